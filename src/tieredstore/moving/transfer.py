"""One verb: move these files from these copies to that staging, verified, resumed, in parallel.

Bytes are read in runs, digested block by block while they move, and written only when they match.
A run that one copy cannot give is fetched again, then from the next copy of the same generation.
Reading without a staging is how data is measured (digests computed) and verified.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from tieredstore.backend import FileWriter, Staging
from tieredstore.errors import TieredStoreError, TierTimeout, cannot_write
from tieredstore.manifest.records import BLOCK, Block, FileRecord, groups
from tieredstore.moving.fetching import DEADLINE, Copies, Copy
from tieredstore.moving.runs import RUN, Cut, OpenFile, Part, batches, compared
from tieredstore.reporter import Reporter
from tieredstore.workers import Task, Watch, Workers, patience

T = TypeVar("T")

_BUFFERS: Final = 128 << 20  # bytes that the buffers of more than a few threads take at most
_SMALL: Final = 256 << 10  # mean size in bytes below which files count as small
_SETTLE: Final = 5.0  # seconds that an operation which failed waits for its threads


@dataclass(slots=True)
class Moved:
    """What a transfer did.

    Attributes
    ----------
    size : int
        Bytes that were read from a copy and verified.
    reused : int
        Bytes that an earlier attempt had left and that were kept.
    files : list of FileRecord
        The files with their blocks, in the order asked for.
    failed : dict
        Why a tier was not used to the end, by its name.
    damaged : dict
        What differs from the manifest, by tier.
    bad : dict
        The files, and shards, that it was found in, by tier.
    given : dict
        Bytes that each tier gave right.
    """

    size: int = 0
    reused: int = 0
    files: list[FileRecord] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, list[str]] = field(default_factory=dict)
    bad: dict[str, set[str]] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)


class _NoWriter(FileWriter):
    def write(self, offset: int, data: memoryview) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class Transfer:
    """One movement of files.

    Parameters
    ----------
    copies : sequence of Copy
        Where to read, in order of preference; all of one generation.
    staging : Staging or None
        Where to write; ``None`` only reads and digests.
    reporter : Reporter
        Told of each verified run and each whole file.
    target : str
        How the reporter calls the place written to.
    deadline : float
        Seconds that one call of the place written to may take.
    """

    def __init__(
        self,
        copies: Sequence[Copy],
        staging: Staging | None = None,
        reporter: Reporter | None = None,
        target: str = "",
        deadline: float = DEADLINE,
    ) -> None:
        self._staging = staging
        self._reporter = reporter or Reporter()
        self._target = target
        self._deadline = deadline
        self._shortest = min([deadline, *(c.deadline for c in copies)])
        self._watch = Watch()
        self._copies = Copies(copies, self._reporter, self._watch)
        self._buffers = threading.local()
        self._lock = threading.Lock()
        self._stopped: Callable[[], bool] = lambda: False
        self._patience = deadline
        found = self._copies
        self.moved = Moved(
            failed=found.failed, damaged=found.damaged, bad=found.bad, given=found.given
        )

    def move(self, files: Sequence[FileRecord]) -> Moved:
        """Move the files, or measure those whose blocks are not known.

        Raises
        ------
        CorruptData
            When no copy gives the right bytes.
        TierUnavailable
            When no copy can be read, or the place written to fails.
        """
        return self.move_open([OpenFile(f) for f in files])

    def move_open(self, files: Sequence[OpenFile]) -> Moved:
        """Move files that say themselves what they are filled with, see `move`."""
        largest = max((min(self._request(f), f.record.size) for f in files), default=BLOCK)
        threads = min(self._threads([f.record for f in files]), max(8, _BUFFERS // max(largest, 1)))
        ordered = sorted(files, key=_path) if self._copies.packed else files
        make = Cut.packed if self._copies.packed else Cut.of
        cut = make(self._longest, [f.record for f in files], threads)
        tasks: list[Task] = [partial(self._batch, batch) for batch in batches(ordered, cut)]
        if self._copies.collect:
            tasks.append(self._copies.compare_shards)
        in_order = self._staging is not None and not self._staging.any_order  # may send on late
        self._patience = patience(self._deadline, max(largest, RUN if in_order else 0))
        workers = Workers(threads, self._watch, self._shortest, self._on_hang)
        self._stopped = lambda: workers.stopped
        try:
            workers.run(tasks)
        except BaseException as error:
            for file in files:
                file.end(error)
            if workers.settle(_SETTLE):
                self._let_go(files)
            raise
        finally:
            # A thread that is late stops; and what this holds open is not kept by a circle.
            self._stopped = _ended
        self._let_go(files)
        self.moved.files = [f.finished() for f in files]
        return self.moved

    def _threads(self, files: Sequence[FileRecord]) -> int:
        small = sum(f.size for f in files) < _SMALL * len(files)
        target = 1
        if self._staging is not None:
            target = self._staging.parallel_small if small else self._staging.parallel
        return max(target, self._copies.parallel(small=small))

    def _longest(self, size: int) -> int:
        """How much of a file of so many bytes one task moves."""
        if self._staging is None or self._staging.any_order:
            return RUN
        return self._staging.piece(size) or size

    def compare(self, files: Sequence[FileRecord]) -> Moved:
        """Read the files and note in ``damaged`` what differs, instead of stopping there."""
        self._copies.collect = True
        return self.move(files)

    # -- tasks ----------------------------------------------------------------------------------

    def _batch(self, batch: deque[Part]) -> None:
        # A thread that is given up on leaves the rest of its batch to the one that takes over.
        self._copies.ahead(path for part in batch for path in part.file.files)
        while batch and not self._stopped():
            self._part(batch[0].file, batch[0].run)
            batch.popleft()

    def _part(self, file: OpenFile, run: list[Block]) -> None:
        self._open(file)
        if file.held:
            self._count_reused(file.counted(run))
        else:
            for group in self._groups(file, run):
                if self._stopped():
                    return
                self._group(file, group)
            if self._copies.collect and not run:
                self._copies.compare_empty(file.record.path)
        with file.lock:
            file.left -= 1
            last = file.left == 0
        if last:
            file.whole()
        if last and not file.held:
            assert file.writer is not None
            self._on_target(file.writer.close)
            if self._staging is not None:
                for path in file.files:
                    self._reporter.copied(path, self._copies.first, self._target)

    def _open(self, file: OpenFile) -> None:
        with file.lock:
            if file.writer is not None or file.held:
                return
            if self._staging is None:
                file.writer = _NoWriter()
            else:
                self._on_target(partial(file.begin, self._staging))

    def _let_go(self, files: Sequence[OpenFile]) -> None:
        self._copies.close()
        for file in files:
            file.end(None)
            if file.begun is not None:
                file.begun.close()
            if file.writer is not None and file.left:
                with suppress(OSError):
                    file.writer.abort()

    def _request(self, file: OpenFile) -> int:
        """Bytes of a file that are read, and written, at once."""
        piece = 0 if self._staging is None else self._staging.piece(file.record.size)
        return piece or max(file.at_once, self._copies.request)

    def _groups(self, file: OpenFile, run: list[Block]) -> Iterator[list[Block]]:
        """The blocks of a run that are read, and written, together."""
        for piece in file.pieces(run):
            yield from groups(piece, self._at_once(file, piece))

    def _at_once(self, file: OpenFile, run: list[Block]) -> int:
        """The same for one run: a block, which stays in a core's cache, where that may be."""
        size = self._request(file)
        here = file.begun is not None and file.expected(run) is not None
        if not here and len(run) > 1 and size == self._copies.request:
            return BLOCK if self._copies.expect(file.record, run) else size
        return size

    # -- bytes ----------------------------------------------------------------------------------

    def _group(self, file: OpenFile, blocks: list[Block]) -> None:
        lacking = [blocks] if file.begun is None else self._reuse(file, blocks)
        for some in lacking:
            self._fetch(file, some)

    def _fetch(self, file: OpenFile, blocks: list[Block]) -> None:
        start, size = blocks[0].offset, sum(b.length for b in blocks)
        buffer = self._buffer(size)
        if not file.fill(self._copies, blocks, buffer):
            return  # damaged everywhere, and only being compared
        assert file.writer is not None
        writer = file.writer
        self._on_target(lambda: writer.write(start, buffer))
        self._on_target(lambda: file.note(blocks))
        file.here(blocks)
        moved = file.counted(blocks)
        with self._lock:
            self.moved.size += moved
        self._reporter.advanced(moved)

    def _buffer(self, size: int) -> memoryview:
        whole: bytearray | None = getattr(self._buffers, "whole", None)
        if whole is None or len(whole) < size:
            whole = self._buffers.whole = bytearray(size)
        return memoryview(whole)[:size]

    def _reuse(self, file: OpenFile, blocks: list[Block]) -> list[list[Block]]:
        """Keep what an earlier attempt has left right; runs of the blocks that it has not."""
        assert file.begun is not None
        begun, expected = file.begun, file.expected(blocks)
        if expected is None:
            return [blocks]
        buffer = self._buffer(sum(b.length for b in blocks))
        got = self._on_target(lambda: begun.readinto(blocks[0].offset, buffer))
        found, lacking = compared(expected, buffer[:got])
        for run in found:
            file.keep(run)
            self._count_reused(file.counted(run))
        asked = {block.offset: block for block in blocks}
        return [[asked[block.offset] for block in run] for run in lacking]

    def _count_reused(self, size: int) -> None:
        with self._lock:
            self.moved.reused += size
        self._reporter.advanced(size)

    def _on_target(self, call: Callable[[], T]) -> T:
        """Call the place written to, watched so that it cannot hang unnoticed."""
        self._watch.enter("", self._patience)
        try:
            return call()
        except TieredStoreError:
            raise
        except OSError as error:
            raise cannot_write(self._target, error) from error
        finally:
            self._watch.leave()

    # -- what goes wrong ------------------------------------------------------------------------

    def _on_hang(self, tier: str) -> bool:
        seconds = self._copies.deadline(tier) if tier else self._deadline
        why = f"no answer within {seconds:g} s"
        if not tier:
            raise TierTimeout(f"{self._target or 'the staging'}: {why}", writing=self._target)
        self._copies.fail(tier, why)
        return bool(self._copies.alive)


def _ended() -> bool:
    return True


def _path(file: OpenFile) -> str:
    return file.record.path
