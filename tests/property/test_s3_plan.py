"""However a file is made up, its parts cover it once and in order, and are as S3 wants them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tieredstore.backend import FileStat, Segment
from tieredstore.backends.s3.plan import LEAST, MOST_PARTS, BlockTable, plan
from tieredstore.manifest.records import BLOCK, MAX_BLOCK, FileRecord, pack_block

MIB = 1 << 20
DIGEST = bytes(16)
budget = settings(deadline=None, max_examples=300)

around = st.sampled_from([1, 4 * MIB, LEAST, 2 * LEAST, 16 * MIB, 256 * MIB, 1 << 30])
near = st.tuples(around, st.integers(-3, 3)).map(lambda pair: max(1, sum(pair)))
lengths = st.lists(near | st.integers(1, 12 * MIB), min_size=1, max_size=30)


def table_of(length, block):
    count, rest = divmod(length, block)
    return pack_block(block, DIGEST) * count + (pack_block(rest, DIGEST) if rest else b"")


def made_of(segments, block=BLOCK):
    table = b"".join(table_of(s.length, block) for s in segments)
    size = sum(s.length for s in segments)
    return BlockTable(FileRecord("merged", size, table=table))


def whole(length, number=0):
    return Segment(FileStat(f"part {number}", length), 0, length)


def wholes(found):
    return [whole(length, number) for number, length in enumerate(found)]


def joined(parts):
    """The segments that the parts are made of, put together again."""
    found = []
    for segment in (s for part in parts for s in part.segments):
        if found and found[-1].file is segment.file:
            before = found[-1]
            assert before.offset + before.length == segment.offset
            found[-1] = Segment(before.file, before.offset, before.length + segment.length)
        else:
            found.append(segment)
    return found


@budget
@given(lengths, st.sampled_from([BLOCK, MAX_BLOCK]))
@example([1, LEAST, 1, 2 * LEAST, 1], BLOCK)
def test_every_byte_is_covered_once_and_in_order(found, block):
    segments = wholes(found)
    parts = plan(segments, made_of(segments, block))
    assert joined(parts) == segments
    offset = 0
    for part in parts:
        assert part.offset == offset
        assert all(s.length > 0 for s in part.segments)
        offset += part.length
    assert offset == sum(found)


@budget
@given(lengths, st.sampled_from([BLOCK, MAX_BLOCK]))
def test_parts_are_as_long_as_s3_wants_them(found, block):
    segments = wholes(found)
    parts = plan(segments, made_of(segments, block))
    assert all(part.length >= LEAST for part in parts[:-1])
    for part in parts:
        assert part.length <= 5 << 30
        if part.copied:
            [segment] = part.segments
            assert segment.whole or segment.length >= LEAST, "S3 copies no range of a short object"
        else:
            assert part.length < 26 * MIB + (block if block > BLOCK else 0)


@budget
@given(lengths)
def test_little_is_sent(found):
    """Short segments, and of a long one behind them what makes a part of them."""
    segments = wholes(found)
    parts = plan(segments, made_of(segments))
    sent = sum(part.length for part in parts if not part.copied)
    short = [length for length in found if length < LEAST]
    runs = sum(a < LEAST <= b for a, b in pairwise(found))
    assert sent <= sum(short) + runs * (2 * LEAST + BLOCK)
    if not short:
        assert sent == 0
    for part in parts:
        long = [s for s in part.segments if s.file.size >= 2 * LEAST + BLOCK]
        assert part.copied or sum(s.length for s in long) < LEAST + BLOCK


@budget
@given(lengths)
def test_what_is_sent_begins_and_ends_with_blocks(found):
    segments = wholes(found)
    blocks = made_of(segments)
    for part in plan(segments, blocks):
        at = part.offset
        for segment in () if part.copied else part.segments:
            inside = list(blocks.within(at, segment.length))
            assert sum(b.length for b in inside) == segment.length
            assert inside[0].offset == 0
            at += segment.length


def test_a_run_of_a_shard_is_copied_too():
    shard = FileStat("shard", 100 * MIB)
    segments = [Segment(shard, 512, 20 * MIB), Segment(shard, 60 * MIB, 3)]
    parts = plan(segments, made_of(segments))
    assert [(p.copied, p.length) for p in parts] == [(True, 20 * MIB), (False, 3)]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([3], [(True, 3)]),
        ([LEAST, LEAST], [(True, LEAST)] * 2),
        ([LEAST, 3], [(True, LEAST), (True, 3)]),
        ([3, 4], [(False, 7)]),
        ([3, 4 * LEAST], [(False, LEAST + 3), (True, 3 * LEAST)]),
        ([3, LEAST], [(False, LEAST + 3)]),
        ([1 << 30], [(True, 256 * MIB)] * 4),
    ],
)
def test_parts_of(found, expected):
    segments = wholes(found)
    assert [(p.copied, p.length) for p in plan(segments, made_of(segments))] == expected


def test_a_file_of_five_tebibytes_is_still_few_enough_parts():
    segments = wholes([5 << 37] * 8)
    table = table_of(5 << 37, MAX_BLOCK)
    blocks = BlockTable(FileRecord("merged", 5 << 40, table=table * 8))
    parts = plan(segments, blocks)
    assert len(parts) < MOST_PARTS
    assert max(part.length for part in parts) <= 5 << 30
