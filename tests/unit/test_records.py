"""Records: emit and parse, look-ups by bisection, and every way in which they can be malformed."""

from __future__ import annotations

import json
import mmap
import random
import struct

import pytest

from tieredstore.errors import InvalidName, ManifestError, NoSuchFile
from tieredstore.manifest.artifact import Recipe, digest128
from tieredstore.manifest.records import (
    BLOCK,
    MAX_BLOCK,
    MAX_RECORDS,
    Block,
    FileRecord,
    Records,
    block_digest,
    entries,
    find,
    groups,
    head_of,
    pack_block,
    require,
)


def parse(data):
    return Records.parse(data, digest128(data), "here")


def many(count, seed=1):
    """Records of files with names of very different lengths."""
    chosen = random.Random(seed)
    names = {f"{chosen.randrange(10**9):x}" * chosen.randrange(1, 20) for _ in range(count * 2)}
    names = [f"d{len(n) % 7}/{n}é" if len(n) % 3 else n for n in sorted(names)][:count]
    files = []
    for name in names:
        sizes = [chosen.randrange(1, 100) for _ in range(chosen.randrange(4))]
        table = b"".join(pack_block(size, chosen.randbytes(16)) for size in sizes)
        sha = f"{chosen.randrange(2**256):064x}" if chosen.random() < 0.3 else None
        files.append(FileRecord(name, sum(sizes), 0o600, chosen.randrange(2**60), table, sha))
    return Records.of(files)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 100, 1000])
def test_records_come_back_and_every_file_is_found(count):
    records = many(count)
    assert len(records.files) == count
    data = records.emit()
    assert parse(data) == records
    for path, record in records.files.items():
        found = find(data, path)
        assert found is not None
        assert (found.path, found.size, found.mode) == (path, record.size, record.mode)
        assert (found.mtime_ns, found.sha256) == (record.mtime_ns, record.sha256)
        for near in (path[:-1], path + "x", path.upper() + "~", "", "a", "zzzz"):
            assert (find(data, near) is not None) == (near in records.files)


def test_a_mapped_file_is_looked_up_the_same_way(tmp_path):
    records = many(50)
    (tmp_path / "records").write_bytes(records.emit())
    with (tmp_path / "records").open("rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            assert all(find(data, path) is not None for path in records.files)
            assert find(data, "absent") is None


def test_79413_files_are_ordinary():
    table = pack_block(5000, b"0123456789abcdef")
    files = [FileRecord(f"images/{n:06d}.png", 5000, 0o644, n, table) for n in range(79_413)]
    records = Records.of(reversed(files))
    data = records.emit()
    assert parse(data) == records
    assert records.size == 79_413 * 5000
    for number in (0, 1, 39_706, 79_411, 79_412):
        assert find(data, files[number].path).mtime_ns == number
    assert find(data, "images/079413.png") is None


def test_an_18_gb_file_is_ordinary():
    count = 18 * 1024
    table = pack_block(BLOCK, bytes(16)) * count
    data = Records.of([FileRecord("merged.bin", BLOCK * count, table=table)]).emit()
    record = parse(data).files["merged.bin"]
    assert record.size == BLOCK * count
    blocks = list(record.blocks())
    assert blocks[-1] == Block(BLOCK * (count - 1), BLOCK, bytes(16))
    assert find(data, "merged.bin").size == BLOCK * count


def test_the_table_of_a_merged_file_is_its_inputs_tables():
    parts = [b"a" * 10, b"b" * 3, b"c" * 7]
    tables = [pack_block(len(p), block_digest(p)) for p in parts]
    merged = FileRecord("m", 20, table=b"".join(tables))
    whole = b"".join(parts)
    for block in merged.blocks():
        assert block_digest(whole[block.offset : block.offset + block.length]) == block.digest
    assert parse(Records.of([merged]).emit()).files["m"] == merged


def test_heads_sum_their_records_up():
    records = many(20)
    recipe = Recipe.of({"subset": 1})
    head = head_of(records, recipe, generation="generation-1", kind="file")
    assert (head.files, head.size, head.kind) == (20, records.size, "file")
    assert head.records_digest == digest128(records.emit())
    assert head.records_size == len(records.emit())


def test_require_names_what_is_missing():
    records = many(3)
    names = list(records.files)
    assert [f.path for f in require(records, names[:2], "x")] == names[:2]
    with pytest.raises(NoSuchFile, match="nope"):
        require(records, [names[0], "nope"], "x")


# -- malformed ---------------------------------------------------------------------------------

TABLE = pack_block(10, b"0123456789abcdef")
ROWS = [["a", 10, 0o644, 1, 0, 1, None], ["b/c", 20, 0o644, 1, 1, 2, None]]
TABLES = TABLE * 3


def built(rows=None, tables=TABLES, lines=None, **first):
    """Records put together by hand, with a right digest."""
    if lines is None:
        rows = ROWS if rows is None else rows
        lines = b"".join(json.dumps(r, separators=(",", ":")).encode() + b"\n" for r in rows)
    counts = {"files": lines.count(b"\n"), "blocks": len(tables) // 20, "lines": len(lines)}
    return json.dumps({**counts, **first}).encode() + b"\n" + lines + tables


def changed(at, column, value):
    rows = [list(row) for row in ROWS]
    rows[at][column] = value
    return built(rows)


def test_the_example_is_well_formed():
    assert list(parse(built()).files) == ["a", "b/c"]


MALFORMED = {
    "out of order": built(
        [["b", 10, 0o644, 1, 0, 1, None], ["a", 20, 0o644, 1, 1, 2, None]], TABLES
    ),
    "listed twice": built(
        [["a", 10, 0o644, 1, 0, 1, None], ["a", 20, 0o644, 1, 1, 2, None]], TABLES
    ),
    "file and folder": changed(1, 0, "a/b"),
    "traversal": changed(0, 0, "../a"),
    "traversal inside": changed(1, 0, "b/../../c"),
    "absolute": changed(0, 0, "/a"),
    "NUL": changed(0, 0, "a\0"),
    "backslash": changed(0, 0, "a\\b"),
    "empty name": changed(0, 0, ""),
    "empty part": changed(1, 0, "b//c"),
    "lone surrogate": changed(1, 0, "b\ud800"),
    "own name": changed(0, 0, ".tieredstore.json"),
    "long name": changed(1, 0, "b" * 300),
    "name is a number": changed(0, 0, 5),
    "name is a list": changed(0, 0, ["a"]),
    "size too small": changed(0, 1, 9),
    "size too large": changed(0, 1, 11),
    "size negative": changed(0, 1, -10),
    "size is text": changed(0, 1, "10"),
    "size is true": changed(0, 1, True),
    "size is a float": changed(0, 1, 10.0),
    "setuid": changed(0, 2, 0o4755),
    "sticky": changed(0, 2, 0o1644),
    "mode negative": changed(0, 2, -1),
    "mode is text": changed(0, 2, "644"),
    "time too large": changed(0, 3, 2**63),
    "time is null": changed(0, 3, None),
    "blocks overlap": changed(1, 4, 0),
    "blocks leave a hole": changed(1, 4, 2),
    "count negative": changed(0, 5, -1),
    "count too large": changed(1, 5, 3),
    "count huge": changed(1, 5, 2**70),
    "blocks left over": built(tables=TABLES + TABLE),
    "blocks missing": built(tables=TABLES[:-20]),
    "sha256 short": changed(0, 6, "ab"),
    "sha256 upper": changed(0, 6, "AB" * 32),
    "sha256 a number": changed(0, 6, 5),
    "column missing": built([ROWS[0][:-1], ROWS[1]]),
    "column too many": built([[*ROWS[0], 1], ROWS[1]]),
    "row is a table": built(lines=b'{"a":1}\n' + b'["b/c",20,420,1,1,2,null]\n'),
    "row is a number": built(lines=b"5\n"),
    "row is no JSON": built(lines=b'["a",\n'),
    "two rows in a line": built(
        lines=b'["a",10,420,1,0,1,null],["b/c",20,420,1,1,2,null]\n', files=2
    ),
    "empty line": built(lines=b'["a",10,420,1,0,1,null]\n\n["b/c",20,420,1,1,2,null]\n'),
    "no line end": built(lines=b'["a",30,420,1,0,3,null]'),
    "nested deeply": built(lines=b'["a",' + b"[" * 100_000 + b"]\n"),
    "files too few": built(files=1),
    "files too many": built(files=3),
    "files absurd": built(files=10**9),
    "files negative": built(files=-1),
    "files a float": built(files=2.0),
    "blocks do not add up": built(blocks=4),
    "lines do not add up": built(lines=b"", files=0),
    "first line is a list": b"[1,2,3]\n" + built().split(b"\n", 1)[1],
    "first line is a number": b"5\n",
    "first line lacks a key": b'{"files":0,"blocks":0}\n',
    "first line too long": b'{"files":0,"blocks":0,"lines":0' + b" " * 300 + b"}\n",
    "no first line": b'{"files":0,"blocks":0,"lines":0}',
    "empty": b"",
    "block of length 0": built(
        [["a", 10, 0o644, 1, 0, 2, None]], TABLE + struct.pack("<I", 0) + bytes(16)
    ),
    "block too long": built(
        [["a", MAX_BLOCK + 1, 0o644, 1, 0, 1, None]],
        struct.pack("<I", MAX_BLOCK + 1) + bytes(16),
    ),
    "bytes without blocks": built([["a", 10, 0o644, 1, 0, 0, None]], b""),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_records_are_refused(kind):
    with pytest.raises(ManifestError, match="here") as caught:
        parse(MALFORMED[kind])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_look_up_in_malformed_records_ends(kind):
    for path in ("a", "b/c", "0", "z"):
        try:
            found = find(MALFORMED[kind], path)
        except ManifestError:
            continue
        assert found is None or found.path == path


def test_every_flipped_byte_is_noticed_by_the_digest():
    good = many(3).emit()
    digest = digest128(good)
    for at in range(len(good)):
        bad = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        with pytest.raises(ManifestError, match="damaged"):
            Records.parse(bad, digest, "here")


def test_oversized_records_are_refused_before_they_are_digested():
    class Huge(bytes):
        def __len__(self):
            return MAX_RECORDS + 1

    with pytest.raises(ManifestError, match="more than"):
        Records.parse(Huge(), "0" * 32, "here")


def test_records_of_bad_names_are_not_made():
    for names in (["../a"], ["a", "a/b"], ["a", "a"]):
        with pytest.raises(InvalidName):
            Records.of(FileRecord(n, 0) for n in names)


def test_entries_are_the_files_without_their_blocks():
    records = Records.of(
        [FileRecord("a", 3, 0o600, 5, pack_block(3, b"x" * 16)), FileRecord("b/c", 0)]
    )
    found = entries(records.emit())
    assert [(f.path, f.size, f.mode, f.mtime_ns, f.table) for f in found] == [
        ("a", 3, 0o600, 5, b""),
        ("b/c", 0, 0o644, 0, b""),
    ]
    with pytest.raises(ManifestError):
        entries(records.emit().replace(b"b/c", b"../"))


@pytest.mark.parametrize("lengths", [[MAX_BLOCK, 1] * 3, [1, MAX_BLOCK] * 3, [1] * 5, [BLOCK] * 40])
def test_only_the_last_group_of_blocks_is_short(lengths):
    offsets = [sum(lengths[:n]) for n in range(len(lengths))]
    blocks = [Block(at, length, b"") for at, length in zip(offsets, lengths, strict=True)]
    size = 16 * BLOCK
    found = groups(blocks, size)
    assert [block for group in found for block in group] == blocks
    filled = [sum(block.length for block in group) for group in found]
    assert all(size <= 2 * f < 2 * (size + MAX_BLOCK) for f in filled[:-1])
    assert [group for part in found for group in groups(part, size)] == found
