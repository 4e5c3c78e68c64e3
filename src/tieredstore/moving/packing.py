"""Small files written as shards: what a transfer moves in the place of the files themselves.

A shard is filled like a file, in runs and from several threads; its bytes are headers, the bytes of
the artifact's files, verified against the files' own blocks, and zeros between them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tieredstore.backend import Staging
from tieredstore.manifest.artifact import SHARDS, Head
from tieredstore.manifest.records import Block, FileRecord, Records, block_digest, pack_block
from tieredstore.manifest.shards import (
    SHARD,
    Index,
    blank_blocks,
    header,
    known_as,
    padded,
    shard_name,
)
from tieredstore.moving.fetching import Copies
from tieredstore.moving.runs import OpenFile

_AT_ONCE: Final = 8 << 20  # bytes; a block that lies across two runs is read for each of them


@dataclass(frozen=True, slots=True)
class Packing:
    """A generation on its way into shards.

    Attributes
    ----------
    records : Records
        Of the generation.
    index : Index
        Where each file comes to lie.
    """

    records: Records
    index: Index

    @classmethod
    def of(cls, records: Records) -> Packing:
        """Shards for all small files of a generation."""
        return cls(records, Index.cut(records.files.values(), SHARD))

    def head(self, head: Head) -> Head:
        """The head of the packed copy."""
        return replace(head, shards=known_as(self.index.emit()))

    def files(self) -> list[OpenFile]:
        """What is to be moved: the shards, and large files as they are."""
        shards = zip(self.index.sizes, self.index.members(self.records), strict=True)
        packed = [Shard(n, size, members) for n, (size, members) in enumerate(shards)]
        places = self.index.places
        own = [OpenFile(f) for path, f in self.records.files.items() if places[path] is None]
        return [*packed, *own]

    def put_index(self, staging: Staging) -> None:
        """Write the index beside the records."""
        data = self.index.emit()
        writer = staging.create(FileRecord(SHARDS, len(data), table=_table(data)))
        writer.write(0, memoryview(data))
        writer.close()


class Shard(OpenFile):
    """A shard being written.

    Parameters
    ----------
    number, size : int
        Which one, and its bytes.
    members : sequence of (FileRecord, int)
        Its files in their order, with the offset of each one's first byte.
    """

    at_once = _AT_ONCE

    def __init__(self, number: int, size: int, members: Sequence[tuple[FileRecord, int]]) -> None:
        super().__init__(FileRecord(shard_name(number), size, table=blank_blocks(size)))
        self._members = members
        self._begins = [offset for _, offset in members]

    @property
    def files(self) -> Sequence[str]:
        """See `OpenFile.files`."""
        return [file.path for file, _ in self._members]

    def counted(self, blocks: Sequence[Block]) -> int:
        """See `OpenFile.counted`: headers and padding are not the artifact's."""
        begin, end = blocks[0].offset, blocks[-1].offset + blocks[-1].length
        found = (self._members[number] for number in self._between(begin, end))
        return sum(
            max(0, min(end, offset + file.size) - max(begin, offset)) for file, offset in found
        )

    def fill(self, copies: Copies, blocks: list[Block], buffer: memoryview) -> bool:
        """See `OpenFile.fill`."""
        begin = blocks[0].offset
        end = begin + len(buffer)
        for number in self._between(begin, end):
            file, offset = self._members[number]
            _put(buffer, offset - begin, header(file))
            if offset < end and offset + file.size > begin:
                _fill(copies, file, offset - begin, buffer)
            _put_zeros(buffer, offset + file.size - begin, self._end(number) - begin)
        _put_zeros(buffer, self._end(-1) - begin, len(buffer))
        return True

    def _between(self, begin: int, end: int) -> Iterator[int]:
        """Members of which something, headers included, may lie between these bytes."""
        first = max(0, bisect_right(self._begins, begin) - 1)
        for number in range(first, len(self._members)):
            if number and self._end(number - 1) >= end:
                return
            yield number

    def _end(self, number: int) -> int:
        file, offset = self._members[number]
        return offset + padded(file.size)


def _put(buffer: memoryview, end: int, data: bytes) -> None:
    """Put what ends at ``end``, as far as it lies in the buffer."""
    start = end - len(data)
    cut = data[max(0, -start) : max(0, len(buffer) - start)] if end > 0 else b""
    buffer[max(0, start) : max(0, start) + len(cut)] = cut


def _put_zeros(buffer: memoryview, start: int, end: int) -> None:
    start, end = max(0, start), min(len(buffer), end)
    if start < end:
        buffer[start:end] = bytes(end - start)


def _fill(copies: Copies, file: FileRecord, start: int, buffer: memoryview) -> None:
    """Put a file's bytes, which begin at ``start`` (it may be negative), where they lie in it."""
    size = len(buffer)
    inside: list[Block] = []
    for block in file.blocks():
        begin, end = start + block.offset, start + block.offset + block.length
        if begin >= 0 and end <= size:
            inside.append(block)
        elif begin < size and end > 0:
            whole = memoryview(bytearray(block.length))
            copies.fetch(file, [block], whole)
            part = whole[max(0, -begin) : size - begin]
            buffer[max(0, begin) : max(0, begin) + len(part)] = part
    if inside:
        begin = start + inside[0].offset
        copies.fetch(file, inside, buffer[begin : begin + sum(b.length for b in inside)])


def _table(data: bytes) -> bytes:
    return pack_block(len(data), block_digest(data))
