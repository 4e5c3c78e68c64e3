"""Shards and their index: what tar reads, what is parsed back, what is refused."""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tieredstore.backend import FileReader, FileSource, Readable
from tieredstore.errors import CorruptData
from tieredstore.manifest.artifact import Shards
from tieredstore.manifest.names import RESERVED
from tieredstore.manifest.records import BLOCK, Records, groups
from tieredstore.manifest.shards import (
    END,
    LARGE,
    SLOT,
    Index,
    header,
    header_size,
    known_as,
    max_size,
    padded,
)
from tieredstore.moving.fetching import Copies, Copy
from tieredstore.moving.packed import PackedSource
from tieredstore.moving.packing import Packing
from tieredstore.reporter import Reporter
from tieredstore.testing.samples import MTIME_NS, ODD_NAMES, record_of
from tieredstore.workers import Watch

MOST = 1 << 20
parts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"),
    min_size=1,
    max_size=40,
).filter(lambda part: part not in {".", ".."} and not part.casefold().startswith(RESERVED))
names = st.lists(parts, min_size=1, max_size=4).map("/".join)
times = st.integers(-(2**63), 2**63 - 1)
sizes = st.integers(0, 5) | st.integers(SLOT - 1, SLOT + 1) | st.integers(0, 3 * SLOT)


def records_of(files):
    return Records.of(record_of(path, data) for path, data in files.items())


def random_files(number, seed=1):
    chance = random.Random(seed)
    return {f"d{n % 7}/{n:04d}": chance.randbytes(chance.randrange(3000)) for n in range(number)}


class Memory(Readable):
    """Files that lie in a dictionary."""

    place = "memory"

    def __init__(self, files):
        self.files = files

    def stat(self, path):
        raise NotImplementedError

    def list(self, folder):
        raise NotImplementedError

    def open(self, path):
        return Bytes(self.files[path])

    def source(self, folder, head):
        return FileSource(self, lambda file: file)


class Bytes(FileReader):
    def __init__(self, data):
        self.data = data

    def readinto(self, offset, buffer):
        part = self.data[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        return len(part)


def packed(files, piece=MOST, records=None):
    """The bytes of each shard, put together from pieces of a length."""
    records = records or records_of(files)
    index = Index.cut(records.files.values(), MOST)
    copies = Copies([Copy("one", Memory(files), "", None)], Reporter(), Watch())
    found = []
    for shard in Packing(records, index).files():
        data = bytearray(shard.record.size)
        told = 0
        for blocks in groups(list(shard.record.blocks()), piece):
            begin, size = blocks[0].offset, sum(b.length for b in blocks)
            assert shard.fill(copies, blocks, memoryview(data)[begin : begin + size])
            told += shard.counted(blocks)
        assert told == sum(len(files[path]) for path in shard.files)
        found.append(bytes(data))
    return index, found


# -- archives -----------------------------------------------------------------------------------


def test_tar_gives_odd_names_with_mode_and_time(tmp_path):
    names = [*ODD_NAMES, "long/" * 150 + "x", "n" * 100, "m" * 101, "a\u2028b", "@PaxHeader"]
    files = {f"set/{name}": name.encode() * 3 for name in names}
    records = records_of(files)
    changed = {path: replace(f, mode=0o751) for path, f in records.files.items()}
    _, (data,) = packed(files, records=Records(changed))
    archive, out = tmp_path / "shard.tar", tmp_path / "out"
    archive.write_bytes(data)
    out.mkdir()
    subprocess.run(["tar", "xf", archive, "-C", out], check=True, capture_output=True)
    for path, content in files.items():
        found = out / path
        assert found.read_bytes() == content
        assert found.stat().st_mode & 0o777 == 0o751
        assert found.stat().st_mtime == MTIME_NS // 10**9
    with tarfile.open(archive) as opened:
        assert opened.getnames() == sorted(files, key=str.encode)
        assert {(m.uid, m.gid, m.isreg()) for m in opened} == {(0, 0, True)}


@pytest.mark.parametrize("piece", [BLOCK, 3 * BLOCK])
def test_pieces_of_any_length_make_the_same_shards(piece):
    chance = random.Random(2)
    files = {f"{n:02d}": chance.randbytes(chance.randrange(3 * BLOCK)) for n in range(6)}
    files["05b"] = b""
    index, shards = packed(files, piece)
    assert len(shards) == len(index.sizes) > 3
    assert [len(data) for data in shards] == list(index.sizes)
    found = {}
    for data in shards:
        with tarfile.open(fileobj=io.BytesIO(data)) as opened:
            found |= {m.name: opened.extractfile(m).read() for m in opened}
    assert found == files


def test_offsets_are_those_of_the_bytes():
    files = random_files(900)
    index, shards = packed(files)
    assert len(shards) > 1
    assert max(index.sizes) <= MOST
    for path, data in files.items():
        shard, offset = index.places[path]
        assert shards[shard][offset : offset + len(data)] == data


def test_large_files_stay_objects_of_their_own():
    small, large = record_of("b", b"x"), replace(record_of("a", b""), size=LARGE + 1)
    index = Index.cut([large, small], MOST)
    assert index.places["a"] is None
    assert index.places["b"] == (0, SLOT)


@settings(deadline=None, max_examples=300)
@given(names, st.integers(0, LARGE), times)
def test_the_length_of_a_header_is_known_before_it_is_made(name, size, mtime_ns):
    file = replace(record_of("x", b""), path=name, size=size, mtime_ns=mtime_ns)
    data = header(file)
    assert header_size(file) == len(data)
    assert len(data) % SLOT == 0
    with tarfile.open(fileobj=io.BytesIO(data + bytes(padded(size) + END))) as opened:
        [found] = opened.getmembers()
    assert (found.name, found.size, found.mtime) == (name, size, mtime_ns // 10**9)


# -- the index ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.dictionaries(st.text("abc/", min_size=1), sizes, max_size=30), st.integers(1, 9))
def test_what_is_emitted_is_parsed_back(named, slots):
    wanted = {f"{n}{name.replace('/', '_')}": size for n, (name, size) in enumerate(named.items())}
    records = records_of({name: bytes(size) for name, size in wanted.items()})
    index = Index.cut(records.files.values(), slots * SLOT)
    data = index.emit()
    assert Index.parse(data, known_as(data), records, "here") == index


@pytest.fixture
def records():
    return records_of(random_files(40))


def refused(data, records, known=None):
    with pytest.raises(CorruptData, match="here: "):
        Index.parse(data, known or known_as(data), records, "here")


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=600))
def test_no_bytes_raise_anything_else(data):
    refused(data, records_of(random_files(40)))


def test_an_index_of_other_bytes_than_the_head_says_is_refused(records):
    data = Index.cut(records.files.values(), MOST).emit()
    known = known_as(data)
    for other in (data[:-1], data + b"\0", bytes([data[0] ^ 1]) + data[1:], b""):
        refused(other, records, known)
    refused(data, records, Shards(len(data), "0" * 32))


def test_places_that_cannot_be_are_refused(records):
    index = Index.cut(records.files.values(), 20_000)
    good, (first, *_), last = dict(index.places), index.places, list(index.places)[-1]
    assert len(index.sizes) > 2
    paths = list(good)
    sizes = index.sizes
    for places, lengths in (
        (good | {first: (0, 0)}, sizes),  # no room for a header
        (good | {paths[1]: good[first]}, sizes),  # one in another
        (good | {last: (len(sizes) - 1, sizes[-1])}, sizes),  # behind the end
        (good | {last: (len(sizes) - 1, 2**63)}, sizes),
        (good | {last: (len(sizes), SLOT)}, sizes),  # a shard that is not there
        (good | {last: (2**32 - 1, 5)}, sizes),
        (good | {last: good[first]}, sizes),  # out of order
        (good | {first: None, last: None}, (*sizes, 5 * SLOT)),  # a shard without files
        (good, sizes[:-1]),
        (good, (*sizes[:-1], 2**63)),
        ({first: good[first]}, sizes[:1]),  # files are missing
    ):
        data = Index(tuple(lengths), places).emit()
        refused(data, records)


def test_counts_that_do_not_fit_are_refused(records):
    good = Index.cut(records.files.values(), MOST).emit()
    first, rest = good.split(b"\n", 1)
    for line in (
        b'{"files": 40, "shards": 2}',
        b'{"files": 41, "shards": 1}',
        b'{"files": -1, "shards": 1}',
        b'{"files": true, "shards": 1}',
        b'{"files": 40.0, "shards": 1}',
        b'{"files": 40}',
        b"[40, 1]",
        b"[" * 250,
        first + b" " * 300,
    ):
        refused(line + b"\n" + rest, records)


def test_an_index_longer_than_its_files_need_is_not_read(records):
    data = Index.cut(records.files.values(), MOST).emit()
    assert len(data) <= max_size(len(records.files))
    source = PackedSource(Unasked(), Shards(1 << 50, "0" * 32), records, "here")
    with pytest.raises(CorruptData, match="an index of 1125899906842624 bytes"):
        source.open("d0/0000")


class Unasked(FileSource):
    def __init__(self):
        pass


@pytest.mark.parametrize("most", [MOST, 4 * MOST, 1 << 30])
def test_what_no_head_vouches_for_is_known_by_its_cut(records, most):
    index = Index.cut(records.files.values(), most)
    assert index.is_cut_from(records)
    for bit in (9, 14, 26):
        sizes = (index.sizes[0] ^ (1 << bit), *index.sizes[1:])
        assert not Index(sizes, index.places).is_cut_from(records)
        path = next(path for path, place in index.places.items() if place is not None)
        moved = index.places[path]._replace(offset=index.places[path].offset ^ (1 << bit))
        assert not Index(index.sizes, {**index.places, path: moved}).is_cut_from(records)
