"""No archive writes outside its stage or fills the disk, and each is named in one line."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, os.path.dirname(__file__))
import hostile

import tieredstore
from datasets_prep.download.extraction import Limits, extract
from datasets_prep.errors import ArchiveError

COLLECTION = hostile.collection()


class Unseekable(io.BytesIO):
    """As a network gives it: some bytes at a time, once."""

    def seekable(self):
        return False

    def seek(self, *_args):
        raise io.UnsupportedOperation("seek")

    def read(self, size=-1):
        return super().read(min(size, 70_001) if size >= 0 else 70_001)


def everything(root):
    """Every path below a folder, with what tells whether it was touched."""
    found = {}
    for folder, _, files in os.walk(root):
        for path in [folder, *(os.path.join(folder, f) for f in files)]:
            state = os.lstat(path)
            found[path] = (state.st_mode, state.st_size, state.st_mtime_ns)
    return found


def extracted(source, stage, case):
    """Extract, and look at what there is when that has failed."""
    try:
        extract(source, stage, Limits(size=1 << 30, links=case.links), name=case.name)
    finally:
        files = [p for p in Path(stage.path).rglob("*") if not p.is_dir()]
        assert not any(p.is_symlink() or not p.is_file() for p in files)
        assert sum(p.stat().st_blocks * 512 for p in files) <= 256 << 20


def test_the_collection_is_large():
    assert len(COLLECTION) >= 100


@pytest.mark.parametrize("name", COLLECTION)
def test_a_hostile_archive_is_named_and_nothing_is_left(name, tmp_path):
    case = COLLECTION[name]
    root = tmp_path / "a" / "b" / "first"
    root.mkdir(parents=True)
    (tmp_path / "a" / "mine").write_text("mine")
    store = tieredstore.TieredStore([tieredstore.local_tier(root)])
    source = (io.BytesIO if name.startswith("zip") else Unseekable)(case.data)
    outside = {p: s for p, s in everything(tmp_path).items() if not p.startswith(str(root))}
    with pytest.raises(ArchiveError, match=case.says) as caught, store.create("x") as stage:
        extracted(source, stage, case)
    message = str(caught.value)
    assert message.isprintable(), message
    assert len(message) < 300, message
    assert case.name in message
    assert {p: s for p, s in everything(tmp_path).items() if not p.startswith(str(root))} == outside
    assert not (root / "x").exists()
    assert store.locate("x")[0].state == "absent"
