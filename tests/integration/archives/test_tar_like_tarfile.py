"""The reader of tar archives beside the standard library's, on archives put together at random."""

from __future__ import annotations

import io
import os
import random
import tarfile

import pytest

from datasets_prep.download.archives.rules import FILE, FOLDER, Guard, Limits
from datasets_prep.download.archives.streams import Feed
from datasets_prep.download.archives.tar import TarReader

ARCHIVES = int(os.environ.get("DATASETS_PREP_TARS", "60"))
KINDS = {tarfile.REGTYPE: FILE, tarfile.AREGTYPE: FILE, tarfile.DIRTYPE: FOLDER}


def part(chance):
    """One part of a path, most of them short and plain."""
    length = chance.choice([1, 3, 8, 8, 8, 50, 98, 99, 100, 101, 150, 155, 156])
    letters = chance.choice(["abc", "AbC-_.1", "äé€漢"])
    return "".join(chance.choices(letters, k=length)).strip(".") or "x"


def member(chance, number):
    info = tarfile.TarInfo(
        "/".join([f"{number}", *(part(chance) for _ in range(chance.randint(0, 3)))])
    )
    info.size = chance.choice([0, 0, 1, 511, 512, 513, 1024, 5000, 70_000])
    info.mode = chance.choice([0o644, 0o600, 0o755, 0o4755, 0o777, 0o000])
    info.mtime = chance.choice([0, 1, 1_700_000_000, 1_700_000_000.123456, 8**11 - 1, 8**11 + 5])
    info.uid = chance.choice([0, 1000, 8**7 + 1])
    info.uname = chance.choice(["", "somebody", "jemand-ä"])
    if chance.random() < 0.15:
        info.type, info.size = tarfile.DIRTYPE, 0
    if chance.random() < 0.1:
        info.type = tarfile.AREGTYPE
    return info


def archive(chance, form):
    """Bytes of an archive, and what the standard library finds in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for number in range(chance.randint(1, 12)):
            info = member(chance, number)
            if form == tarfile.USTAR_FORMAT:
                info.mtime = int(min(info.mtime, 8**11 - 1))
                info.uid = min(info.uid, 8**7 - 1)
            if form == tarfile.PAX_FORMAT and chance.random() < 0.3:
                info.pax_headers = {"comment": "c" * chance.choice([1, 80, 90, 900])}
            try:
                made.addfile(info, io.BytesIO(chance.randbytes(info.size)))
            except ValueError:  # a name that ustar cannot hold
                continue
    data = out.getvalue()
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        expected = [
            (
                info.name,
                KINDS[info.type],
                info.mode & 0o777,
                int(info.mtime * 10**6),
                found.extractfile(info).read() if info.isreg() else b"",
            )
            for info in found
        ]
    return data, expected


def pieces(data, chance):
    at = 0
    while at < len(data):
        step = chance.choice([1, 100, 511, 512, 513, 10_240, 1 << 20])
        yield data[at : at + step]
        at += step


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_it_finds_what_tarfile_finds(form):
    chance = random.Random(form)
    for _ in range(ARCHIVES):
        data, expected = archive(chance, form)
        reader = TarReader(Feed(pieces(data, chance)), Guard("tar", Limits()))
        found = []
        for entry in reader.members():
            how = chance.random()
            if how < 0.2 and entry.size:  # not every member's content is asked for
                content = None
            elif how < 0.6:
                content = bytes(reader.whole())
            else:
                content = b"".join(reader.pieces())
            name = entry.raw.decode().rstrip("/")
            found.append((name, entry.kind, entry.mode, entry.mtime_ns // 1000, content))
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours[:3] == theirs[:3]
            assert abs(ours[3] - theirs[3]) <= 1  # theirs is a float
            assert ours[4] in {None, theirs[4]}
