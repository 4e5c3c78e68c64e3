"""What is downloaded in these tests, and looked at afterwards: archives, options, folders."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from datasets_prep.download import DownloadOptions, download
from datasets_prep.errors import PrepError
from tieredstore import TieredStoreError

MIB = 1 << 20
FILES = {
    "prompts.jsonl": b'{"id": 1}\n' * 1000,
    **{f"images/{n}.png": random.Random(n).randbytes(30_000) for n in range(200)},
    "large.bin": random.Random(1).randbytes(9 * MIB),
}


def tar(mode="w:gz", files=FILES):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def zipped(files=FILES):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return data.getvalue()


TAR = tar()


def options(web, tmp_path, **more):
    given = {"url": f"{web.url}/data.tar.gz", "dest": tmp_path / "out", **more}
    return DownloadOptions(**given)


def found(folder):
    paths = [p for p in Path(folder).rglob("*") if p.is_file() and p.name[0] != "."]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def left(tmp_path):
    """What is staged in the destination's store."""
    return [p for area in ("part", "stage") for p in (tmp_path / ".tieredstore" / area).glob("*")]


def refused(web, tmp_path, match, **more):
    with pytest.raises((PrepError, TieredStoreError), match=match) as caught:
        download(options(web, tmp_path, **more))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
