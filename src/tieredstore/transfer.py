"""One verb: move these files from these copies to that staging, verified, resumed, in parallel.

Bytes are read in runs, digested block by block while they move, and written only when they match.
A run that one copy cannot give is fetched again, then from the next copy of the same generation.
Reading without a staging is how data is measured (digests computed) and verified.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from tieredstore.artifact import Head
from tieredstore.backend import FileSource, FileWriter, Readable, Staging
from tieredstore.errors import (
    CorruptData,
    TieredStoreError,
    TierTimeout,
    TierUnavailable,
    cannot_write,
    reason,
)
from tieredstore.records import BLOCK, Block, FileRecord, block_digest, groups, pack_block
from tieredstore.reporter import Reporter
from tieredstore.runs import RUN, OpenFile, Part, batches, mismatch, views
from tieredstore.workers import Watch, Workers, patience

T = TypeVar("T")

_SMALL: Final = 256 << 10  # mean size in bytes below which files count as small
_SETTLE: Final = 5.0  # seconds that an operation which failed waits for its threads
DEADLINE: Final = 60.0  # seconds that one read or write may take, and more for what is large


@dataclass(frozen=True, slots=True)
class Copy:
    """One generation in one tier; no ``head``: unmanaged data; each read has a ``deadline``."""

    tier: str
    backend: Readable
    folder: str
    head: Head | None
    deadline: float = DEADLINE

    def path(self, file: str) -> str:
        """Where one of its files lies below the backend's root."""
        if self.head is None:
            return f"{self.folder}/{file}" if self.folder else file
        return self.backend.data_path(self.folder, self.head, file)


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
    """

    size: int = 0
    reused: int = 0
    files: list[FileRecord] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, list[str]] = field(default_factory=dict)


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
        self._copies = list(copies)
        self._staging = staging
        self._reporter = reporter or Reporter()
        self._target = target
        self._deadlines = {**{c.tier: c.deadline for c in copies}, "": deadline}
        self._watch = Watch()
        self._buffers = threading.local()
        self._lock = threading.Lock()
        self._dead: set[str] = set()
        self._sources: dict[str, FileSource] = {}
        self._collect = False
        self._stopped: Callable[[], bool] = lambda: False
        self._patience = deadline
        self.moved = Moved()

    def move(self, files: Sequence[FileRecord]) -> Moved:
        """Move the files, or measure those whose blocks are not known.

        Raises
        ------
        CorruptData
            When no copy gives the bytes that the manifest promises.
        OSError
            When no copy can be read, or the staging cannot be written.
        """
        open_files = [OpenFile(f) for f in files]
        threads = self._threads(files)
        tasks = [partial(self._batch, b) for b in batches(open_files, self._longest, threads)]
        largest = max((self._request(f.size) for f in files), default=BLOCK)
        in_order = self._staging is not None and not self._staging.any_order  # may send on late
        self._patience = patience(self._deadlines[""], max(largest, RUN if in_order else 0))
        workers = Workers(threads, self._watch, min(self._deadlines.values()), self._on_hang)
        self._stopped = lambda: workers.stopped
        try:
            workers.run(tasks)
        except BaseException:
            if workers.settle(_SETTLE):
                self._let_go(open_files)
            raise
        self._let_go(open_files)
        self.moved.files = [f.finished() for f in open_files]
        return self.moved

    def _threads(self, files: Sequence[FileRecord]) -> int:
        if sum(f.size for f in files) >= _SMALL * len(files):
            target = 1 if self._staging is None else self._staging.parallel
            return max([target, *(c.backend.parallel for c in self._copies)])
        target = 1 if self._staging is None else self._staging.parallel_small
        return max([target, *(c.backend.parallel_small for c in self._copies)])

    def _longest(self, size: int) -> int:
        """How much of a file of so many bytes one task moves."""
        if self._staging is None or self._staging.any_order:
            return RUN
        return self._staging.piece(size) or size

    def compare(self, files: Sequence[FileRecord]) -> Moved:
        """Read the files and note in ``damaged`` what differs, instead of stopping there."""
        self._collect = True
        return self.move(files)

    # -- tasks ----------------------------------------------------------------------------------

    def _batch(self, batch: deque[Part]) -> None:
        # A thread that is given up on leaves the rest of its batch to the one that takes over.
        while batch and not self._stopped():
            self._part(batch[0].file, batch[0].run)
            batch.popleft()

    def _part(self, file: OpenFile, run: list[Block]) -> None:
        self._open(file)
        if file.held:
            self._count_reused(sum(b.length for b in run))
        else:
            for group in groups(run, self._request(file.record.size)):
                if self._stopped():
                    return
                self._group(file, group)
            if self._collect and not run:
                self._compare_empty(file)
        with file.lock:
            file.left -= 1
            last = file.left == 0
        if last and not file.held:
            assert file.writer is not None
            self._on_target(file.writer.close)
            if self._staging is not None:
                self._reporter.copied(file.record.path, self._source_name(), self._target)

    def _open(self, file: OpenFile) -> None:
        with file.lock:
            if file.writer is not None or file.held:
                return
            if self._staging is None:
                file.writer = _NoWriter()
            else:
                self._on_target(partial(_begin, file, self._staging))

    def _let_go(self, files: Sequence[OpenFile]) -> None:
        for file in files:
            if file.begun is not None:
                file.begun.close()
            if file.writer is not None and file.left:
                with suppress(OSError):
                    file.writer.abort()

    def _request(self, size: int) -> int:
        """Bytes that are read, and written, at once of a file of so many bytes."""
        piece = 0 if self._staging is None else self._staging.piece(size)
        if piece:
            return piece
        alive = [c for c in self._copies if c.tier not in self._dead]
        return max((c.backend.request for c in alive), default=BLOCK)

    def _source_name(self) -> str:
        alive = [c.tier for c in self._copies if c.tier not in self._dead]
        return alive[0] if alive else ""

    # -- bytes ----------------------------------------------------------------------------------

    def _group(self, file: OpenFile, blocks: list[Block]) -> None:
        start, size = blocks[0].offset, sum(b.length for b in blocks)
        buffer = self._buffer(size)
        if file.begun is not None and self._reuse(file, blocks, buffer):
            return
        digests = self._fetch(file, blocks, buffer)
        if digests is None:
            return  # damaged everywhere, and only being compared
        assert file.writer is not None
        writer = file.writer
        self._on_target(lambda: writer.write(start, buffer))
        if not file.known:
            table = b"".join(pack_block(b.length, d) for b, d in zip(blocks, digests, strict=True))
            with file.lock:
                file.tables[start] = table
        with self._lock:
            self.moved.size += size
        self._reporter.advanced(size)

    def _buffer(self, size: int) -> memoryview:
        whole: bytearray | None = getattr(self._buffers, "whole", None)
        if whole is None or len(whole) < size:
            whole = self._buffers.whole = bytearray(size)
        return memoryview(whole)[:size]

    def _reuse(self, file: OpenFile, blocks: list[Block], buffer: memoryview) -> bool:
        assert file.begun is not None
        begun = file.begun
        got = self._on_target(lambda: begun.readinto(blocks[0].offset, buffer))
        if got != len(buffer) or mismatch(blocks, buffer) is not None:
            return False
        self._count_reused(len(buffer))
        return True

    def _count_reused(self, size: int) -> None:
        with self._lock:
            self.moved.reused += size
        self._reporter.advanced(size)

    def _fetch(self, file: OpenFile, blocks: list[Block], buffer: memoryview) -> list[bytes] | None:
        """Read one group from the first copy that gives it right."""
        problems: list[str] = []
        corrupt = False
        for copy in self._copies:
            if copy.tier in self._dead:
                continue
            damaged = True  # a tier that cannot be reached is not: its copy stays as it is
            for _ in range(2):  # a second look tells a bad wire from a bad disk
                try:
                    return self._read(copy, file, blocks, buffer)
                except CorruptData as error:
                    problem, corrupt = str(error), True
                except (OSError, TieredStoreError) as error:
                    problem = reason(error)
                    damaged = isinstance(error, FileNotFoundError)
                    if not self._collect and not damaged:
                        self._fail(copy.tier, problem)
                    break
            problems.append(problem)
            if damaged or self._collect:
                self._note_damage(copy.tier, problem)
        if self._collect:
            return None
        text = "; ".join(problems) or "; ".join(self.moved.failed.values()) or "no copy is left"
        raise (CorruptData if corrupt else TierUnavailable)(f"{file.record.path}: {text}")

    def _read(
        self, copy: Copy, file: OpenFile, blocks: list[Block], buffer: memoryview
    ) -> list[bytes]:
        path = copy.path(file.record.path)
        if self._collect and blocks[0].offset == 0:
            self._check_size(copy, path, file.record.size)
        where = f"{copy.backend.place}/{path}"
        self._watch.enter(copy.tier, patience(self._deadlines[copy.tier], len(buffer)))
        try:
            with self._source(copy).open(file.record.path) as reader:
                got = reader.readinto(blocks[0].offset, buffer)
        finally:
            self._watch.leave()
        if got != len(buffer):
            raise CorruptData(
                f"{where}: ends at byte {blocks[0].offset + got}, expected {file.record.size} bytes"
            )
        digests = [block_digest(view) for view in views(blocks, buffer)]
        if file.known:
            for block, digest in zip(blocks, digests, strict=True):
                if digest != block.digest:
                    end = block.offset + block.length
                    raise CorruptData(
                        f"{where}: bytes {block.offset} to {end} differ from the manifest"
                    )
        return digests

    def _source(self, copy: Copy) -> FileSource:
        found = self._sources.get(copy.tier)
        if found is None:
            found = copy.backend.source(copy.folder, copy.head)
            with self._lock:
                found = self._sources.setdefault(copy.tier, found)
        return found

    def _compare_empty(self, file: OpenFile) -> None:
        """An empty file has no block to read, but it has to be there, and empty."""
        for copy in self._copies:
            try:
                self._check_size(copy, copy.path(file.record.path), 0)
            except (OSError, TieredStoreError) as error:
                self._note_damage(copy.tier, reason(error))

    def _check_size(self, copy: Copy, path: str, size: int) -> None:
        self._watch.enter(copy.tier, self._deadlines[copy.tier])
        try:
            found = copy.backend.stat(path).size
        finally:
            self._watch.leave()
        if found != size:
            raise CorruptData(f"{copy.backend.place}/{path}: {found} bytes, expected {size}")

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
        why = f"no answer within {self._deadlines[tier]:g} s"
        if not tier:
            raise TierTimeout(f"{self._target or 'the staging'}: {why}", writing=self._target)
        self._fail(tier, why)
        return any(c.tier not in self._dead for c in self._copies)

    def _fail(self, tier: str, why: str) -> None:
        with self._lock:
            new = tier not in self._dead
            self._dead.add(tier)
            self.moved.failed.setdefault(tier, why)
        if new:
            self._reporter.skipped(tier, why)

    def _note_damage(self, tier: str, problem: str) -> None:
        with self._lock:
            self.moved.damaged.setdefault(tier, []).append(problem)


def _begin(file: OpenFile, staging: Staging) -> None:
    """Look what an earlier attempt has left of a file, and open it for writing."""
    if file.known and staging.resumes:
        file.held = staging.holds(file.record)
        if file.held:
            return
        file.begun = staging.staged(file.record)
    file.writer = staging.create(file.record)
    if file.begun is not None and not file.writer.continues(file.begun):
        file.begun.close()
        file.begun = None
