"""Several that stage one file of one generation at once: each moves its own bytes only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tieredstore.manifest.records import FileRecord
from tieredstore.mounted.stage import Mount
from tieredstore.mounted.writing import StagedFolders, StagedWriter

GENERATION = "20260101t000000-0123456789abcdef"
DATA = b"all of it" * 100


class Place:
    def __init__(self, root: Path) -> None:
        self.staged = Mount(str(root)).staged("part", GENERATION)
        self.files = root / self.staged.path

    def writer(self, name: str) -> StagedWriter:
        folders = StagedFolders(self.staged)
        return StagedWriter(lambda: folders, FileRecord(name, len(DATA), 0o644, 1))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("name", ["a", "deep/er/a", "n" * 255])
def test_one_that_is_slow_does_not_move_what_another_has_just_begun(
    place: Place, name: str
) -> None:
    quick, slow = place.writer(name), place.writer(name)  # of one inode
    for each in (quick, slow):
        each.write(0, memoryview(DATA))
    quick.close()
    third = place.writer(name)  # begins anew: what was there has been moved
    slow.close()
    assert (place.files / name).read_bytes() == DATA
    third.write(0, memoryview(DATA[:10]))
    assert (place.files / name).read_bytes() == DATA
    third.write(10, memoryview(DATA[10:]))
    third.close()
    assert (place.files / name).read_bytes() == DATA


def test_one_whose_bytes_another_has_moved_is_done(place: Place) -> None:
    one, other = place.writer("a"), place.writer("a")
    for each in (one, other):
        each.write(0, memoryview(DATA))
        each.close()
    assert (place.files / "a").read_bytes() == DATA
    assert [path.name for path in place.files.iterdir()] == ["a"]


def test_one_that_begins_as_another_tidies_up_makes_its_folders_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two that are made, another has published and removed what was empty."""
    make, home = os.mkdir, tmp_path / f".tieredstore/part/{GENERATION}"
    tidied: list[str] = []

    def tidied_before(name: str, *args: object, **more: object) -> None:
        if name == "files" and len(tidied) < 3:
            tidied.append(name)
            home.rmdir()
        make(name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "mkdir", tidied_before)
    place = Place(tmp_path)
    assert len(tidied) == 3
    writer = place.writer("a")
    writer.write(0, memoryview(DATA))
    writer.close()
    assert (place.files / "a").read_bytes() == DATA
