"""How files are cut up to be moved: blocks into runs, runs into batches that one task moves."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tieredstore.backend import FileReader, FileWriter
from tieredstore.records import BLOCK, Block, FileRecord, block_digest, groups

RUN: Final = 32 << 20  # bytes of a large file that one task moves
_BATCH: Final = 64  # small files that one task moves


class OpenFile:
    """A file being moved: its writer, what is left of it, the digests found.

    Attributes
    ----------
    known : bool
        Its blocks are known and compared; otherwise it is measured.
    held : bool
        An earlier attempt has left it whole in the staging.
    left : int
        Runs that have not been moved yet.
    """

    def __init__(self, record: FileRecord) -> None:
        self.record = record
        self.known = bool(record.table) or record.size == 0
        self.writer: FileWriter | None = None
        self.begun: FileReader | None = None
        self.held = False
        self.left = 0
        self.lock = threading.Lock()
        self.tables: dict[int, bytes] = {}

    def finished(self) -> FileRecord:
        """The file's record, with the blocks that were measured."""
        if self.known:
            return self.record
        table = b"".join(self.tables[k] for k in sorted(self.tables))
        return replace(self.record, table=table)


@dataclass(frozen=True, slots=True)
class Part:
    """One run of one file."""

    file: OpenFile
    run: list[Block]

    @property
    def size(self) -> int:
        """Bytes of the run."""
        return sum(b.length for b in self.run)


def batches(
    files: Sequence[OpenFile], longest: Callable[[int], int], threads: int
) -> Iterator[deque[Part]]:
    """Runs of large files one by one; small files many together, to spare the hand-over.

    Parameters
    ----------
    files : sequence of OpenFile
        What is to be moved.
    longest : callable
        Bytes that one task moves at most of a file of so many bytes: `RUN`, or all of them where
        its blocks have to be written in order.
    threads : int
        How many move them: each gets several batches, so that none is left with nothing to do.
    """
    most = max(1, min(_BATCH, len(files) // (4 * threads)))
    batch: deque[Part] = deque()
    size = 0
    for file in files:
        for run in _runs_of(file, longest(file.record.size)):
            batch.append(Part(file, run))
            size += batch[-1].size
            if size >= RUN or len(batch) >= most:
                yield batch
                batch, size = deque(), 0
    if batch:
        yield batch


def _runs_of(file: OpenFile, size: int) -> list[list[Block]]:
    blocks = list(file.record.blocks()) if file.known else list(_cut(file.record.size))
    runs = groups(blocks, size) or [[]]
    file.left = len(runs)
    return runs


def _cut(size: int) -> Iterator[Block]:
    for offset in range(0, size, BLOCK):
        yield Block(offset, min(BLOCK, size - offset), b"")


def views(blocks: list[Block], buffer: memoryview) -> Iterator[memoryview]:
    """The part of ``buffer`` that each of these neighbouring blocks lies in."""
    start = blocks[0].offset
    for block in blocks:
        begin = block.offset - start
        yield buffer[begin : begin + block.length]


def mismatch(blocks: list[Block], buffer: memoryview) -> Block | None:
    """The first of these blocks that differs from its digest, or ``None``."""
    for block, view in zip(blocks, views(blocks, buffer), strict=True):
        if block_digest(view) != block.digest:
            return block
    return None
