"""Reading verified bytes from the first of several copies that gives them right.

A run of blocks that one copy gives wrong is fetched again block by block, and each wrong one from
the next copy of the same generation. A copy that fails is not asked again; what differs from the
manifest is noted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tieredstore.backend import FileSource, FileStat, Readable
from tieredstore.errors import CorruptData, TieredStoreError, TierUnavailable, reason
from tieredstore.manifest.artifact import SHARDS, Head
from tieredstore.manifest.records import BLOCK, Block, FileRecord, Records, block_digest
from tieredstore.manifest.shards import shard_name
from tieredstore.moving.packed import PackedSource
from tieredstore.pinned import PinnedSource
from tieredstore.reporter import Reporter
from tieredstore.workers import Watch, patience

DEADLINE: Final = 60.0  # seconds that one read or write may take, and more for what is large


@dataclass(frozen=True, slots=True)
class Copy:
    """One generation in one tier; no ``head``: unmanaged data; each read has a ``deadline``.

    ``records`` are needed to read from a copy that is packed. ``files`` are those that a partial
    copy has; it is not asked for others. ``seen`` says of unmanaged files which versions to read.
    """

    tier: str
    backend: Readable
    folder: str
    head: Head | None
    deadline: float = DEADLINE
    records: Records | None = None
    files: frozenset[str] | None = None
    seen: Mapping[str, FileStat] = field(default_factory=dict)

    @property
    def packed(self) -> bool:
        """Whether small files lie in shards."""
        return self.head is not None and self.head.shards is not None

    def holds(self, file: str) -> bool:
        """Whether it has a file of its generation."""
        return self.files is None or file in self.files

    def size(self, file: str) -> int:
        """Bytes of one of its files, or of an object it is packed in, as the place has it."""
        if self.head is None:
            return self.backend.stat(self.path(file)).size
        return self.backend.size_of(self.folder, self.head, file)

    def path(self, file: str) -> str:
        """Where one of its objects lies below the backend's root: a file, where none are packed."""
        if self.head is None:
            return f"{self.folder}/{file}" if self.folder else file
        return self.backend.data_path(self.folder, self.head, file)

    def source(self) -> FileSource:
        """Its files, to read many of."""
        if self.seen:
            return PinnedSource(self.backend, self.seen)
        objects = self.backend.source(self.folder, self.head)
        if self.head is None or self.head.shards is None:
            return objects
        assert self.records is not None, "a packed copy is read with its records"
        where = f"{self.backend.place}/{self.path('')}".rstrip("/")
        return PackedSource(objects, self.head.shards, self.records, where)


class Copies:
    """Several copies of one generation, read as one by several threads.

    Parameters
    ----------
    copies : sequence of Copy
        In order of preference.
    reporter : Reporter
        Told of each copy that is not used any more.
    watch : Watch
        Where each read is entered, so that one that hangs is noticed.

    Attributes
    ----------
    alive : list of Copy
        Those that have not failed.
    collect : bool
        What differs is noted, and nothing raised for it.
    failed : dict
        Why a tier was not used to the end, by its name.
    damaged : dict
        What differs from the manifest, by tier.
    bad : dict
        The files, and shards, that it was found in, by tier.
    given : dict
        Bytes that each tier gave right.
    """

    def __init__(self, copies: Sequence[Copy], reporter: Reporter, watch: Watch) -> None:
        self._copies = list(copies)
        self._reporter = reporter
        self._watch = watch
        self._lock = threading.Lock()
        self.alive = list(copies)
        self._sources: dict[str, FileSource] = {}
        self.collect = False
        self.failed: dict[str, str] = {}
        self.damaged: dict[str, list[str]] = {}
        self.bad: dict[str, set[str]] = {}
        self.given: dict[str, int] = {}

    @property
    def packed(self) -> bool:
        """Whether the one that is asked first is packed."""
        return any(c.packed for c in self.alive[:1])

    @property
    def first(self) -> str:
        """The tier that is asked first; empty when none is left."""
        return next((c.tier for c in self.alive), "")

    @property
    def request(self) -> int:
        """Bytes that are best asked for at once."""
        return max((c.backend.request for c in self.alive), default=BLOCK)

    def parallel(self, *, small: bool) -> int:
        """How many requests at once serve best, for many small files or for large ones."""
        found = [
            c.backend.parallel_small if small and not c.packed else c.backend.parallel
            for c in self._copies
        ]
        return max(found, default=1)

    def ahead(self, files: Iterable[str]) -> None:
        """Say what this thread reads next, as far as that helps."""
        for copy in self.alive[:1]:
            if copy.packed:
                with suppress(OSError, TieredStoreError):  # the read itself will say so
                    source = self._source(copy)
                    assert isinstance(source, PackedSource)
                    source.ahead(files)

    def expect(self, file: FileRecord, run: list[Block]) -> bool:
        """Whether this thread may read a run block by block, and costs no more requests by that."""
        for copy in self.alive[:1]:
            if not copy.packed and copy.holds(file.path):
                with suppress(OSError, TieredStoreError):  # the read itself will say so
                    size = sum(b.length for b in run)
                    return self._source(copy).expect(file.path, run[0].offset, size)
        return False

    def fetch(self, file: FileRecord, blocks: list[Block], buffer: memoryview) -> list[bytes]:
        """Fill ``buffer`` with neighbouring blocks, compared with their digests where known.

        Returns
        -------
        list of bytes
            Their digests; none when they are damaged everywhere, and only being compared.

        Raises
        ------
        CorruptData, TierUnavailable
            When no copy gives them right.
        """
        problems: list[str] = []
        corrupt = False
        for copy in self._copies:
            if copy not in self.alive or not copy.holds(file.path):
                continue
            damaged = True  # a tier that cannot be reached is not: its copy stays as it is
            for _ in range(2):  # a second look tells a bad wire from a bad disk
                try:
                    return self._read(copy, file, blocks, buffer)
                except CorruptData as error:
                    if len(blocks) > 1:
                        return self._one_by_one(file, blocks, buffer)
                    problem, corrupt = str(error), True
                except (OSError, TieredStoreError) as error:
                    problem = reason(error)
                    damaged = isinstance(error, FileNotFoundError)
                    if not damaged and (not self.collect or isinstance(error, TierUnavailable)):
                        self.fail(copy.tier, problem)
                    break
            problems.append(problem)
            if damaged or (self.collect and copy in self.alive):
                self._note_damage(copy.tier, problem, file.path)
        if self.collect and self.alive:
            return []
        text = "; ".join(problems) or "; ".join(self.failed.values()) or "no copy is left"
        raise (CorruptData if corrupt else TierUnavailable)(f"{file.path}: {text}")

    def _one_by_one(self, file: FileRecord, blocks: list[Block], buffer: memoryview) -> list[bytes]:
        """Each block by itself, so that only those that are wrong come from another copy."""
        found = [
            self.fetch(file, [block], view)
            for block, view in zip(blocks, views(blocks, buffer), strict=True)
        ]
        return [digest for one in found for digest in one] if all(found) else []

    def _read(
        self, copy: Copy, file: FileRecord, blocks: list[Block], buffer: memoryview
    ) -> list[bytes]:
        begin = blocks[0].offset
        if self.collect and begin == 0 and not copy.packed:
            self._check_size(copy, file.path, file.size)
        source = self._source(copy)
        size = len(buffer) + (source.most if isinstance(source, PackedSource) else 0)
        self._watch.enter(copy.tier, patience(copy.deadline, size))
        try:
            with source.open(file.path) as reader:
                got = reader.readinto(begin, buffer)
        finally:
            self._watch.leave()
        if got != len(buffer):
            raise CorruptData(
                f"{shown(copy, source, file.path)}: ends at byte {begin + got}, "
                f"expected {file.size} bytes"
            )
        if self.collect and begin == 0 and _is_own_object(source, file.path):
            self._check_size(copy, file.path, file.size)
        digests = [block_digest(view) for view in views(blocks, buffer)]
        for block, digest in zip(blocks, digests, strict=True):
            if block.digest and digest != block.digest:
                end = block.offset + block.length
                raise CorruptData(
                    f"{shown(copy, source, file.path)}: bytes {block.offset} to {end} differ "
                    "from the manifest"
                )
        with self._lock:
            self.given[copy.tier] = self.given.get(copy.tier, 0) + got
        return digests

    def _source(self, copy: Copy) -> FileSource:
        found = self._sources.get(copy.tier)
        if found is None:
            self._watch.enter(copy.tier, copy.deadline)
            try:
                found = copy.source()
            finally:
                self._watch.leave()
            with self._lock:
                found = self._sources.setdefault(copy.tier, found)
        return found

    def close(self) -> None:
        """Let go of what is held for further reads."""
        for source in list(self._sources.values()):
            with suppress(OSError):
                source.close()

    # -- what comparing looks at besides --------------------------------------------------------

    def compare_empty(self, file: str) -> None:
        """An empty file has no block to read, but it has to be there, and empty."""
        for copy in self._copies:
            if not copy.packed:
                self._note_size(copy, file, 0)

    def compare_shards(self) -> None:
        """Each shard has to be as long as its index says: ``tar`` would read what is behind."""
        for copy in self._copies:
            if not copy.packed:
                continue
            source = self._source(copy)
            assert isinstance(source, PackedSource)
            self._watch.enter(copy.tier, patience(copy.deadline, source.most))
            try:
                sizes = source.index.sizes
            except (OSError, TieredStoreError) as error:
                self._note_damage(copy.tier, reason(error), SHARDS)
                continue
            finally:
                self._watch.leave()
            for number, size in enumerate(sizes):
                self._note_size(copy, shard_name(number), size)

    def _note_size(self, copy: Copy, file: str, size: int) -> None:
        try:
            self._check_size(copy, file, size)
        except (OSError, TieredStoreError) as error:
            self._note_damage(copy.tier, reason(error), file)

    def _check_size(self, copy: Copy, file: str, size: int) -> None:
        self._watch.enter(copy.tier, copy.deadline)
        try:
            found = copy.size(file)
        finally:
            self._watch.leave()
        if found != size:
            where = f"{copy.backend.place}/{copy.path(file)}"
            raise CorruptData(f"{where}: {found} bytes, expected {size}")

    # -- what goes wrong ------------------------------------------------------------------------

    def deadline(self, tier: str) -> float:
        """Seconds that one call of a tier may take."""
        return next(c.deadline for c in self._copies if c.tier == tier)

    def fail(self, tier: str, why: str) -> None:
        """Note that a tier is not to be asked any more."""
        with self._lock:
            new = any(c.tier == tier for c in self.alive)
            self.alive = [c for c in self.alive if c.tier != tier]
            self.failed.setdefault(tier, why)
        if new:
            self._reporter.skipped(tier, why)

    def _note_damage(self, tier: str, problem: str, file: str) -> None:
        with self._lock:
            problems = self.damaged.setdefault(tier, [])
            if problem not in problems[-1:]:
                problems.append(problem)
            self.bad.setdefault(tier, set()).add(file)


def shown(copy: Copy, source: FileSource, file: str) -> str:
    holder = source.holder(file) if isinstance(source, PackedSource) else file
    where = f"{copy.backend.place}/{copy.path(holder)}"
    return where if holder == file else f"{where}, {file}"


def _is_own_object(source: FileSource, file: str) -> bool:
    """Whether a packed copy keeps this file by itself; where none are packed nobody asks."""
    return isinstance(source, PackedSource) and source.holder(file) == file


def views(blocks: list[Block], buffer: memoryview) -> Iterator[memoryview]:
    """The part of ``buffer`` that each of these neighbouring blocks lies in."""
    start = blocks[0].offset
    for block in blocks:
        begin = block.offset - start
        yield buffer[begin : begin + block.length]
