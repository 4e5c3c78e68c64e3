"""Ordinary archives of every kind come out as tar and zip would give them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import sys
import tarfile
import zipfile

import pytest

sys.path.insert(0, os.path.dirname(__file__))
import hostile

import tieredstore
from datasets_prep.download.archives import kinds
from datasets_prep.download.extraction import HEAD, Limits, extract, kind_of, seeks
from datasets_prep.errors import ArchiveError

FILES = {
    "prompts.jsonl": b'{"a": 1}\n' * 5000,
    "images/0001.png": hostile.noise(3000),
    "images/empty": b"",
    "images/one": b"x",
    "images/block": hostile.noise(512),
    "images/deep/er/é ü.txt": "é".encode(),
    "large.bin": hostile.noise(1_200_001),
    "n" * 120 + "/" + "m" * 130: b"long",
    ".hidden/.also": b"h",
}
PACK = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": lambda data: kinds._zstd_module().compress(data),
}


@pytest.fixture
def store(tmp_path):
    return tieredstore.TieredStore([tieredstore.local_tier(tmp_path / "first")])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "first" / "x"


def unpack(store, data, **options):
    source = data if hasattr(data, "read") else io.BytesIO(data)
    with store.create("x") as stage:
        found = extract(source, stage, **options)
    assert all(verified.ok for verified in store.verify("x"))
    return found


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".tieredstore")
    }


class Trickling(io.RawIOBase):
    """As a slow network: a few bytes at a time, and no way back."""

    def __init__(self, data, step=777):
        self._data, self._step, self._at = data, step, 0

    def readable(self):
        return True

    def read(self, size=-1):
        step = self._step if size < 0 else min(size, self._step)
        got = self._data[self._at : self._at + step]
        self._at += len(got)
        return got


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_every_kind_of_tar(store, out, kind, form):
    files = dict(FILES)
    if form == tarfile.USTAR_FORMAT:
        files = {name: data for name, data in FILES.items() if len(name) < 100}
    data = PACK[kind](hostile.by_tarfile(files, form))
    assert kind_of(data[:HEAD], "anything") == kind
    found = unpack(store, Trickling(data, 9_001), name=f"a.{kind}")
    assert (found.kind, found.files, found.size) == (
        kind,
        len(files),
        sum(map(len, files.values())),
    )
    assert files_of(out) == files
    assert (out / "large.bin").stat().st_mtime == 1_700_000_000
    assert (out / "large.bin").stat().st_mode & 0o777 == 0o644 & ~umask()


def umask():
    found = os.umask(0)
    os.umask(found)
    return found


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_a_single_compressed_file(store, out, kind):
    data = PACK[f"tar.{kind}"](FILES["prompts.jsonl"])
    assert kind_of(data, f"p.jsonl.{kind}") == kind
    assert unpack(store, data, name=f"some/p.jsonl.{kind}").kind == kind
    assert files_of(out) == {"p.jsonl": FILES["prompts.jsonl"]}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_zip(store, out, method):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.mkdir("images")
        for name, data in FILES.items():
            archive.writestr(name, data)
    assert seeks(kind_of(packed.getvalue()[:HEAD]))
    told = []
    packed.seek(0)
    unpack(store, packed, progress=lambda done, total: told.append((done, total)))
    assert files_of(out) == FILES
    assert told[-1] == (len(FILES), len(FILES))


def test_a_large_zip_with_64_bit_fields(store, out):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        with archive.open("a", "w", force_zip64=True) as file:
            file.write(b"a" * 1000)
        archive.writestr("b", b"b")
    packed.seek(0)
    unpack(store, packed)
    assert files_of(out) == {"a": b"a" * 1000, "b": b"b"}


def test_without_isal_zlib_stands_in(store, out, monkeypatch):
    monkeypatch.setitem(sys.modules, "isal", None)
    data = gzip.compress(hostile.by_tarfile(FILES)) + gzip.compress(b"")
    unpack(store, Trickling(data, 5_003))
    assert files_of(out) == FILES
    for name, case in hostile.of_bytes().items():
        if "gzip" in name or name == "bomb":
            with pytest.raises(ArchiveError, match=case.says), store.create("y") as stage:
                extract(io.BytesIO(case.data), stage)


def test_without_zstd_it_says_what_to_install(store, monkeypatch):
    data = PACK["tar.zst"](hostile.by_tarfile(FILES))
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ArchiveError, match="pip install 'tieredstore"), store.create("x") as stage:
        extract(io.BytesIO(data), stage)


def test_streams_after_each_other_are_one(store, out):
    whole = hostile.by_tarfile(FILES)
    parts = [whole[at : at + 400_003] for at in range(0, len(whole), 400_003)]
    for name in ("tar.gz", "tar.bz2", "tar.xz", "tar.zst"):
        data = b"".join(PACK[name](part) for part in parts)
        unpack(store, Trickling(data, 65_537))
        assert files_of(out) == FILES


def test_zeros_after_gzip_are_padding(store, out):
    unpack(store, gzip.compress(hostile.by_tarfile(FILES)) + bytes(10_000))
    assert files_of(out) == FILES


def test_as_gnu_tar_writes_it(store, out, tmp_path):
    source = tmp_path / "made"
    for name, data in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
        os.utime(source / name, (1, 1_600_000_000.25))
    (source / "run.sh").write_bytes(b"#!/bin/sh\n")
    (source / "run.sh").chmod(0o4755)
    for form in ("gnu", "pax", "posix"):
        command = ["tar", f"--format={form}", "-C", str(source), "-czf", "-", "."]
        data = subprocess.run(command, check=True, capture_output=True).stdout
        unpack(store, data)
        assert files_of(out) == {**FILES, "run.sh": b"#!/bin/sh\n"}
        assert (out / "run.sh").stat().st_mode & 0o7777 == 0o755 & ~umask()
    assert (out / "large.bin").stat().st_mtime == 1_600_000_000.25


def test_links_are_copied_when_asked_for(store, out):
    good = hostile.GOOD
    data = hostile.tar(
        hostile.member(b"d/later", b"", b"2", target=b"../z/../good.txt"),
        good,
        hostile.member(b"again", b"", b"1", target=b"./good.txt"),
        hostile.member(b"chain", b"", b"2", target=b"d/later"),
        hostile.member(b"self/x", b"", b"2", target=b"../self/../again"),
    )
    found = unpack(store, data, limits=Limits(links="copy"))
    assert found.files == 5
    assert set(files_of(out).values()) == {b"good"}
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert len({path.stat().st_ino for path in out.rglob("*") if path.is_file()}) >= 5


def test_copies_of_links_count(store):
    big = hostile.member(b"big", bytes(1000))
    copies = [hostile.member(b"l%d" % n, b"", b"2", target=b"big") for n in range(20)]
    with pytest.raises(ArchiveError, match="more than the allowed 10000 bytes"):
        unpack(store, hostile.tar(big, *copies), limits=Limits(size=10_000, links="copy"))


@pytest.mark.parametrize("first", [b"websight-v2/", b"./websight-v2/", b""])
def test_one_folder_above_all_is_left_away(store, out, first):
    folder = [hostile.member(first, b"", b"5")] if first else []
    data = hostile.tar(
        *folder,
        hostile.member(first + b"README", b"r"),
        hostile.member(first + b"images/a.png", b"a"),
        hostile.member(first + b"prompts.jsonl", b"{}"),
    )
    unpack(store, data, top={"images", "prompts.jsonl"})
    assert set(files_of(out)) == {"README", "images/a.png", "prompts.jsonl"}


def test_what_lies_beside_that_folder_is_named(store):
    data = hostile.tar(hostile.member(b"v2/images/a", b"a"), hostile.member(b"prompts.jsonl", b""))
    with pytest.raises(ArchiveError, match=r"'prompts.jsonl': lies beside 'v2/'; expected images"):
        unpack(store, data, top={"images", "prompts.jsonl"})


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(size=7), "'b': more than the allowed 7 bytes"),
        (Limits(files=1), "more than the allowed 1 members"),
    ],
)
def test_limits(store, limits, says):
    data = hostile.tar(hostile.member(b"a", b"aaaa"), hostile.member(b"b", b"bbbb"))
    with pytest.raises(ArchiveError, match=says):
        unpack(store, data, limits=limits)


def test_a_single_file_keeps_to_the_limit(store):
    with pytest.raises(ArchiveError, match="more than the allowed 1000 bytes"):
        unpack(store, gzip.compress(bytes(100_000)), limits=Limits(size=1000))


class Failing(Trickling):
    """A source that fails half-way."""

    def read(self, size=-1):
        if self._at > 3_000:
            raise ConnectionResetError("the line is dead")
        return super().read(size)


@pytest.mark.parametrize("kind", PACK)
def test_what_the_source_raises_goes_through(store, kind):
    data = PACK[kind](hostile.by_tarfile(FILES))
    with pytest.raises(ConnectionResetError, match="the line is dead"):
        unpack(store, Failing(data))


def test_it_is_read_to_the_very_end(store):
    source = Trickling(gzip.compress(hostile.by_tarfile(FILES)) + bytes(5000))
    unpack(store, source)
    assert source._at == len(source._data)


def test_names_of_zip_members_in_utf_8_without_the_flag(store, out):
    data = hostile.zipped(("caf__", b"x")).replace(b"caf__", "café".encode())
    unpack(store, data)
    assert files_of(out) == {"café": b"x"}


def test_a_name_decides_only_what_content_cannot():
    data = bz2.compress(hostile.by_tarfile(FILES))
    assert kind_of(data[:100], "a.tar.bz2") == "tar.bz2"
    assert kind_of(data[:100], "a.bz2") == "bz2"
    assert kind_of(b"<!doctype html>", "a.tar.gz") == ""
    assert kind_of(b"", "a.tar") == ""
    assert kind_of(gzip.compress(b"text"), "a.tar.gz") == "gz"


def test_a_corrupt_random_archive_never_gives_anything_but_a_line(store):
    """Flips and cuts at random places: an error that names it, or the very same files."""
    chance, said = random.Random(7), []
    files = {f"f{n}": hostile.noise(200 + n) for n in range(20)}
    for pack in PACK.values():
        whole = pack(hostile.by_tarfile(files))
        for _ in range(15):
            data = hostile.flipped(whole, chance.randrange(len(whole)))
            data = data[: chance.randrange(1, len(data))] if chance.random() < 0.3 else data
            try:
                with store.create("x") as stage:
                    extract(io.BytesIO(data), stage, Limits(size=10**7, files=1000))
            except ArchiveError as error:
                said.append(str(error))
    assert said
    assert all(line.isprintable() for line in said)
