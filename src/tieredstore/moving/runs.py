"""How files are cut up to be moved: blocks into runs, runs into batches that one task moves."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tieredstore.backend import FileReader, FileWriter, Staging
from tieredstore.manifest.records import BLOCK, Block, FileRecord, block_digest, groups, pack_block
from tieredstore.moving.fetching import Copies
from tieredstore.moving.packed import WINDOW

RUN: Final = 32 << 20  # bytes of a large file that one task moves
_BATCH: Final = 64  # small files that one task moves


class OpenFile:
    """A file being moved: its writer, what is left of it, the digests found.

    Attributes
    ----------
    at_once : int
        Bytes that are read and written together at least.
    known : bool
        Its blocks are known and compared; otherwise it is measured.
    held : bool
        An earlier attempt has left it whole in the staging.
    left : int
        Runs that have not been moved yet.
    """

    at_once = 0

    def __init__(self, record: FileRecord) -> None:
        self.record = record
        self.known = bool(record.table) or record.size == 0
        self.writer: FileWriter | None = None
        self.begun: FileReader | None = None
        self.held = False
        self.left = 0
        self.lock = threading.Lock()
        self.tables: dict[int, bytes] = {}

    @property
    def files(self) -> Sequence[str]:
        """The artifact's files that are whole when this one is."""
        return (self.record.path,)

    def counted(self, blocks: Sequence[Block]) -> int:
        """How many bytes of the artifact these blocks are."""
        return sum(b.length for b in blocks)

    def pieces(self, run: list[Block]) -> Iterator[list[Block]]:
        """A run, cut where blocks that have to be read end, and such that may be here begin."""
        yield run

    def begin(self, staging: Staging) -> None:
        """Look what an earlier attempt has left of it, and open it for writing."""
        if self.known and staging.resumes:
            self.held = staging.holds(self.record)
            if self.held:
                return
            self.begun = staging.staged(self.record)
        self.write_to(staging)

    def write_to(self, staging: Staging) -> None:
        """Open it for writing; what is there stays only if it is this very file."""
        self.writer = staging.create(self.record)
        if self.begun is not None and not self.writer.continues(self.begun):
            self.begun.close()
            self.begun = None

    def expected(self, blocks: list[Block]) -> list[Block] | None:
        """Blocks with their digests, where these are known, so that what is here may be kept."""
        return blocks if self.known else None

    def note(self, blocks: list[Block]) -> None:
        """Note in the staging that these blocks have been written to it."""

    def here(self, blocks: list[Block]) -> None:
        """Be told of blocks that have been written, and noted."""

    def keep(self, blocks: list[Block]) -> None:
        """Be told of blocks that an earlier attempt has left right."""

    def whole(self) -> None:
        """Be told that all of it is in the staging, before it is closed; raises if it is wrong."""

    def end(self, error: BaseException | None) -> None:
        """Be told that it is not moved any more, whole or not."""

    def fill(self, copies: Copies, blocks: list[Block], buffer: memoryview) -> bool:
        """Read verified blocks; false when they are damaged, and only being compared."""
        digests = copies.fetch(self.record, blocks, buffer)
        if not self.known and digests:
            table = b"".join(pack_block(b.length, d) for b, d in zip(blocks, digests, strict=True))
            with self.lock:
                self.tables[blocks[0].offset] = table
        return bool(digests)

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


@dataclass(frozen=True, slots=True)
class Cut:
    """How files become tasks.

    Attributes
    ----------
    longest : callable
        Bytes that one task moves at most of a file of so many bytes: `RUN`, or all of them where
        its blocks have to be written in order.
    files, size : int
        How many small files one task moves, and how many bytes of them.
    """

    longest: Callable[[int], int]
    files: int
    size: int = RUN

    @classmethod
    def of(cls, longest: Callable[[int], int], files: Sequence[FileRecord], threads: int) -> Cut:
        """Several tasks for each thread, so that none is left with nothing to do."""
        return cls(longest, max(1, min(_BATCH, len(files) // (4 * threads))))

    @classmethod
    def packed(
        cls, longest: Callable[[int], int], files: Sequence[FileRecord], threads: int
    ) -> Cut:
        """Likewise, and each task's files come by one request from a shard."""
        share = sum(f.size for f in files) // (2 * threads)
        return cls(longest, len(files), max(BLOCK, min(WINDOW, share)))


def batches(files: Sequence[OpenFile], cut: Cut) -> Iterator[deque[Part]]:
    """Runs of large files one by one; small files many together, to spare the hand-over.

    Parameters
    ----------
    files : sequence of OpenFile
        What is to be moved.
    cut : Cut
        How.
    """
    batch: deque[Part] = deque()
    size = 0
    for file in files:
        for run in _runs_of(file, cut.longest(file.record.size)):
            batch.append(Part(file, run))
            size += batch[-1].size
            if size >= cut.size or len(batch) >= cut.files:
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


def compared(
    blocks: list[Block], buffer: memoryview
) -> tuple[list[list[Block]], list[list[Block]]]:
    """Runs of neighbouring blocks that the buffer has right, and runs of those that it has not."""
    runs: tuple[list[list[Block]], list[list[Block]]] = ([], [])
    last: list[list[Block]] | None = None
    start = blocks[0].offset
    for block in blocks:
        view = buffer[block.offset - start : block.offset - start + block.length]
        right = len(view) == block.length and block_digest(view) == block.digest
        into = runs[0] if right else runs[1]
        if into is last:
            into[-1].append(block)
        else:
            into.append([block])
        last = into
    return runs
