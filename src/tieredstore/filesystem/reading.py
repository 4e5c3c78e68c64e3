"""Files that are read: from the first tier, restored to it, or block by block from below."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, cast

from tieredstore.errors import (
    ArtifactChanged,
    ConfigError,
    HeadConflict,
    NoSuchFile,
    TieredStoreError,
    reason,
)
from tieredstore.filesystem.asking import Asking
from tieredstore.filesystem.behind import Behind
from tieredstore.filesystem.blocks import BlockFile, Fetch, MemoryShelf, Shelf
from tieredstore.filesystem.naming import Spot
from tieredstore.manifest.artifact import Head
from tieredstore.manifest.records import ENTRY, FileRecord, Records
from tieredstore.mounted import beneath
from tieredstore.mounted.changes import writing
from tieredstore.mounted.kept import KeptBlocks, keep_records, kept_records
from tieredstore.space.room import Need, room
from tieredstore.store import TieredStore
from tieredstore.tiers.tier import PARTIAL, WHOLE, Located

ARTIFACT: Final = "artifact"
FILE: Final = "file"
BLOCKS: Final = "blocks"
NEVER: Final = "never"
_TRIES: Final = 20
_BUFFER: Final = 64 << 10  # bytes


def check_restore(restore: str) -> str:
    """Refuse a word that means nothing here.

    Raises
    ------
    ConfigError
        When it is none of ``artifact``, ``file``, ``blocks`` and ``never``.
    """
    if restore not in {ARTIFACT, FILE, BLOCKS, NEVER}:
        raise ConfigError(
            f"restore is {restore!r}, expected {ARTIFACT!r}, {FILE!r}, {BLOCKS!r} or {NEVER!r}"
        )
    return restore


class Reading(io.BufferedReader):
    """A file that is open for reading; of one generation, whatever is published meanwhile.

    Pickled it is opened anew, at the same position. A `seek` and the read after it belong together
    also where threads share the file: DuckDB's do.

    Attributes
    ----------
    fs, path, size
        As files of fsspec have them.
    """

    def __init__(self, fs: Any, path: str, raw: io.RawIOBase, size: int) -> None:
        super().__init__(raw, io.DEFAULT_BUFFER_SIZE if isinstance(raw, io.FileIO) else _BUFFER)
        self.fs = fs
        self.path = path
        self.size = size
        self._one = threading.RLock()
        self._own = threading.local()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere else: this thread's next read begins there, whatever other threads do."""
        with self._one:
            begin = super().seek(offset, whence)
            self._own.begin = begin
            return begin

    def tell(self) -> int:
        """Where this thread's next read begins."""
        with self._one:
            self._go()
            return super().tell()

    def read(self, size: int | None = -1, /) -> bytes:
        """See `io.BufferedReader`."""
        with self._one:
            self._go(done=True)
            return super().read(size)

    def read1(self, size: int = -1, /) -> bytes:
        """See `io.BufferedReader`."""
        with self._one:
            self._go(done=True)
            return super().read1(size)

    def readinto(self, buffer: Any, /) -> int:
        """See `io.BufferedReader`."""
        with self._one:
            self._go(done=True)
            return super().readinto(buffer)

    def readline(self, size: int | None = -1, /) -> bytes:
        """See `io.BufferedReader`."""
        with self._one:
            self._go(done=True)
            return super().readline(size)

    def _go(self, *, done: bool = False) -> None:
        """Go back to where this thread has gone, if another has gone elsewhere since."""
        begin = getattr(self._own, "begin", None)
        if begin is not None:
            if super().tell() != begin:
                super().seek(begin)
            if done:
                self._own.begin = None

    def __del__(self) -> None:
        """Close it: clients of fsspec leave that to the interpreter, and nothing is lost by it."""
        with suppress(OSError, ValueError):
            self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """What opens it anew."""
        return _again, (self.fs, self.path, self.tell())


def _again(fs: Any, path: str, position: int) -> Reading:
    found = cast(Reading, fs.open(path, "rb"))
    found.seek(position)
    return found


@dataclass(frozen=True, slots=True)
class Reader:
    """Opens files of a store.

    Attributes
    ----------
    store : TieredStore
        The store.
    asking : Asking
        Its tiers.
    restore : str
        What is brought up of an artifact that the first tier lacks.
    """

    store: TieredStore
    asking: Asking
    restore: str

    def open(self, spot: Spot) -> io.RawIOBase:
        """Open a file for reading.

        Raises
        ------
        FileNotFoundError
            When no tier can serve it.
        """
        for left in reversed(range(_TRIES)):
            try:
                here = None if spot.below else self._here(spot)
                return here or self._brought(spot)
            except (ArtifactChanged, HeadConflict):  # it was being replaced: look again
                if not left:
                    raise
                spot = replace(spot, below=())
        raise AssertionError

    def lacks(self, name: str, files: Sequence[str] | None) -> bool:
        """Whether the first tier lacks files of an artifact."""
        got = self.asking.chain.first.hit(name, files, None)
        if got is not None:
            got.close()
        return got is None

    def _here(self, spot: Spot) -> io.RawIOBase | None:
        """From the first tier, where it has the file."""
        chain = self.asking.chain
        folder = chain.tiers[0].layout.folder(spot.name)
        fd = writing(chain.first.backend.mount, folder)
        if fd is not None:
            with beneath.opened(fd):
                return io.FileIO(beneath.open_file(fd, spot.file))
        got = chain.first.hit(spot.name, [spot.file], None)
        if got is None:
            return None
        with got:
            return cast(io.BufferedReader, got.open(spot.file)).detach()

    def _brought(self, spot: Spot) -> io.RawIOBase:
        if self.restore in {BLOCKS, NEVER}:
            found = self._by_block(spot)
            if found is not None:
                return found
        files = None if self.restore == ARTIFACT or spot.single else [spot.file]
        with self.store.restore(spot.name, files) as got:
            return cast(io.BufferedReader, got.open(spot.file)).detach()

    # -- block by block -------------------------------------------------------------------------

    def _by_block(self, spot: Spot) -> io.RawIOBase | None:
        """A file read by its blocks; ``None`` where there is no manifest that tells of them."""
        chain = self.asking.chain
        located = list(spot.below) or chain.locate(spot.name)
        usable = [w for w in located if w.state in {WHOLE, PARTIAL}]
        why: dict[str, str] = {}
        for where in usable:
            assert where.head is not None
            same = [w for w in usable if w.head and w.head.generation == where.head.generation]
            records = self._records(where, why)
            if records is None:
                continue
            record = records.files.get(spot.file)
            if record is None:
                raise NoSuchFile(f"{spot.name}: no file {spot.file!r} in this generation")
            copies = [w.copy(records) for w in same if self._holds(w, spot.file)]
            if copies:
                fetch = Fetch(copies, record, chain.reporter)
                found = self._done(spot, where.head, record, fetch)
                keep_records(chain.first.backend.mount, where.head, records)
                return found
        if any(w.present for w in located):
            return None
        raise chain.not_found(spot.name, located, why)

    def _done(self, spot: Spot, head: Head, record: FileRecord, fetch: Fetch) -> io.RawIOBase:
        shelf = self._shelf(spot.name, head, record)
        if self.restore == BLOCKS:
            return _Kept(self.store, spot, record, shelf, fetch)
        return BlockFile(record, shelf, fetch)

    def _shelf(self, name: str, head: Head, record: FileRecord) -> Shelf:
        chain = self.asking.chain
        tier, mount = chain.tiers[0], chain.first.backend.mount
        if self.restore == BLOCKS and tier.writable:
            try:
                if tier.space.limited:  # elsewhere what does not fit any more is not kept
                    with room(chain, tier, name, Need.of(head, [record])):
                        pass
                blocks = len(record.table) // ENTRY
                return Behind(KeptBlocks.of(mount, head.generation, record, blocks))
            except (OSError, TieredStoreError) as error:
                chain.reporter.skipped(tier.name, reason(error))
        return MemoryShelf()

    def _records(self, where: Located, why: dict[str, str]) -> Records | None:
        assert where.head is not None
        mount = self.asking.chain.first.backend.mount
        try:
            return Records(self.asking.tree(where, partial(kept_records, mount, where.head)).files)
        except (OSError, TieredStoreError) as error:
            why[where.tier.name] = reason(error)
            self.asking.chain.reporter.skipped(where.tier.name, reason(error))
            return None

    def _holds(self, where: Located, file: str) -> bool:
        with suppress(OSError, TieredStoreError):
            return file in where.holding([file])
        return False


class _Kept(BlockFile):
    """A file read by its blocks, which is restored when the last of them is here."""

    def __init__(
        self, store: TieredStore, spot: Spot, record: FileRecord, shelf: Shelf, fetch: Fetch
    ) -> None:
        super().__init__(record, shelf, fetch)
        self._store = store
        self._spot = spot

    def close(self) -> None:
        """Let go of it; when all of it has been fetched, nothing is left to be fetched again."""
        whole = not self.closed and self.whole
        super().close()
        if whole:
            with suppress(OSError, TieredStoreError):
                self._store.restore(self._spot.name, [self._spot.file]).close()
