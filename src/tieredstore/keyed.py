"""Publication on places that cannot rename: fresh keys for each generation, then a small head.

``<folder>/<generation>/<file>`` never changes once it is written; ``<folder>/.tieredstore.json``
is the head, put last. A backend for such a place subclasses :class:`KeyedBackend` and says how
one key is written, conditionally put and deleted.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from tieredstore import keyed_litter
from tieredstore.backend import (
    ANY_HEAD,
    DAMAGED_HEAD,
    Expected,
    FileWriter,
    FoundHead,
    Publishable,
    Readable,
    Staging,
)
from tieredstore.errors import HeadConflict, ManifestError, TierUnavailable, Unsupported
from tieredstore.keyed_litter import damaged_mark, is_tombstone
from tieredstore.litter import Collectable, Litter
from tieredstore.manifest.artifact import HEAD, RECORDS, Head, digest128, random_hex
from tieredstore.manifest.names import RESERVED
from tieredstore.manifest.records import FileRecord, Records
from tieredstore.recordable import MAX_VALUE, Recordable, Versioned

__all__ = ["KeyedBackend", "KeyedStaging", "check_expected", "damaged_mark"]

_TORN_HEAD_TRIES: Final = 5
_STAGING: Final = f"{RESERVED}.staging"  # written to a generation that is gone on with
_GRAVES: Final = 15  # seconds to wait for a collector that takes a generation away
_POLL: Final = 0.5


class KeyedBackend(Readable, Publishable, Collectable, Recordable):
    """An object store, or anything that is used like one.

    Attributes
    ----------
    lagging : float
        Seconds for which the place may deny what it has just taken.
    """

    lagging: float = 0.0

    @abstractmethod
    def writer(self, key: str, size: int) -> FileWriter:
        """Write one key of ``size`` bytes in order; it appears when the writer is closed."""

    @abstractmethod
    def put(self, key: str, data: bytes, expected: Expected) -> None:
        """Put a small key.

        Raises
        ------
        HeadConflict
            When what is there is not what was expected, as far as the place can tell.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete one key; nothing happens where there is none."""

    def delete_all(self, keys: Sequence[str]) -> None:
        """Delete many keys."""
        for key in keys:
            self.delete(key)

    def has(self, key: str) -> bool:
        """Whether there is such a key."""
        try:
            self.stat(key)
        except FileNotFoundError:
            return False
        return True

    def read_head(self, folder: str) -> FoundHead | None:
        """See `Readable.read_head`; a head that is just being overwritten is read again."""
        for attempt in range(_TORN_HEAD_TRIES):
            try:
                return super().read_head(folder)
            except ManifestError:
                if attempt == _TORN_HEAD_TRIES - 1:
                    raise
                time.sleep(0.02 * (attempt + 1))
        return None

    def clock(self) -> float:
        """What time it is there: when a key that is written now was written, seconds since 1970.

        Raises
        ------
        Unsupported
            Where the place does not say of a key when it was written.
        """
        key = f"{RESERVED}/probe/{random_hex(8)}"
        self.put(key, b"", ANY_HEAD)
        try:
            now = self.stat(key).mtime_ns / 1e9
        finally:
            self.delete(key)
        if now <= 0:
            raise Unsupported(
                f"{self.place}: does not say when its keys were written, so none is known to be old"
            )
        return now

    def litter(self, grace: float) -> Iterator[Litter]:
        """See `Collectable.litter`."""
        return keyed_litter.litter(self, grace)

    def drop(self, litter: Litter) -> int | None:
        """See `Collectable.drop`."""
        return keyed_litter.drop(self, litter)

    def read_record(self, path: str) -> Versioned | None:
        """See `Recordable.read_record`."""
        try:
            data = self.read(path, MAX_VALUE)
        except FileNotFoundError:
            return None
        return Versioned(data, digest128(data))

    def swap_record(self, path: str, data: bytes, version: str | None) -> None:
        """See `Recordable.swap_record`; compared just before it is written, where that is all."""
        if version is None:
            self.put(path, data, None)
            return
        there = self.read_record(path)
        if there is None or there.version != version:
            raise HeadConflict(f"{self.place}/{path}: was changed meanwhile")
        self.put(path, data, ANY_HEAD)

    def begin(self, folder: str, head: Head) -> Staging:
        """See `Publishable.begin`."""
        return KeyedStaging(self, folder, head.generation)

    def remove(self, folder: str, head: Head) -> None:
        """See `Publishable.remove`: the head first, so that nobody begins to read."""
        self.unpublish(folder, head)
        self.delete_all([found.path for found in self.list(f"{folder}/{head.generation}")])

    def set_aside(self, folder: str, head: Head) -> str:
        """See `Publishable.set_aside`: the head is moved; the data stays under its generation."""
        key = damaged_mark(head.generation)
        with suppress(FileNotFoundError):
            self.put(key, self.read(f"{folder}/{HEAD}", 1 << 16), ANY_HEAD)
        self.unpublish(folder, head)
        return f"{self.place}/{folder}/{head.generation}"

    def unpublish(self, folder: str, head: Head) -> None:
        """Delete the head, where it is this generation's."""
        found = None
        with suppress(ManifestError):
            found = self.read_head(folder)
        if found is not None and found.head.generation == head.generation:
            self.delete(f"{folder}/{HEAD}")


def check_expected(expected: Expected, found: bytes | None, where: str) -> None:
    """Compare the head that lies at a key with the one that is to be replaced.

    For `KeyedBackend.put`, which does it as close to the writing as its place allows.

    Parameters
    ----------
    expected : str, None, ANY_HEAD or DAMAGED_HEAD
        What `put` was given.
    found : bytes or None
        What lies there now; ``None`` where nothing does.
    where : str
        The key, for the message.

    Raises
    ------
    HeadConflict
        When they differ.
    ManifestError
        When what lies there is no head, and one is expected.
    """
    if expected is ANY_HEAD:
        return
    if expected is DAMAGED_HEAD:
        _check_damaged(found, where)
        return
    if expected is None and found is not None:
        raise HeadConflict(f"{where}: was published meanwhile")
    if expected is not None:
        now = None if found is None else Head.parse(found, where).generation
        if now != expected:
            raise HeadConflict(f"{where}: {now} was published meanwhile")


def _check_damaged(found: bytes | None, where: str) -> None:
    if found is not None:
        with suppress(ManifestError):
            now = Head.parse(found, where).generation
            raise HeadConflict(f"{where}: {now} was published meanwhile")


class KeyedStaging(Staging):
    """Keys below the generation: unseen because no head names them yet.

    Where a damaged copy of the same generation was set aside, every key is written anew.
    """

    any_order = False

    def __init__(self, backend: KeyedBackend, folder: str, generation: str) -> None:
        self._backend = backend
        self._folder = folder
        self._generation = generation
        self._damaged = backend.has(damaged_mark(generation))
        self._lock = threading.Lock()
        self._sizes: dict[str, int] | None = None
        self._relied: dict[str, int] = {}
        self._marked = False

    def _key(self, file: str) -> str:
        return f"{self._folder}/{self._generation}/{file}"

    def create(self, file: FileRecord) -> FileWriter:
        """See `Staging.create`."""
        return self._backend.writer(self.rely(file), file.size)

    def rely(self, file: FileRecord) -> str:
        """The key of a file that will have to be there when the head is put."""
        key = self._key(file.path)
        self._relied[key] = file.size
        return key

    def holds(self, file: FileRecord) -> bool:
        """See `Staging.holds`: a key appears only whole, and its bytes were verified before."""
        held = not self._damaged and self._left().get(self._key(file.path)) == file.size
        if held:
            self.rely(file)
        return held

    def _left(self) -> dict[str, int]:
        """Sizes of the keys that an earlier attempt has left, by one listing.

        Where there are some the generation is marked as in use, and listed again: a collector
        that began before has left its tombstone, and one that begins now finds the mark.

        Raises
        ------
        TierUnavailable
            When a collector was killed while it took this generation away.
        """
        with self._lock:
            if self._sizes is None:
                sizes = self._unburied()
                if sizes:
                    self._backend.put(self._key(_STAGING), b"", ANY_HEAD)
                    self._marked = True
                    sizes = self._unburied()
                self._sizes = sizes
        return self._sizes

    def _unburied(self) -> dict[str, int]:
        for _ in range(round(_GRAVES / _POLL)):
            sizes = self._listed()
            if not any(is_tombstone(key) for key in sizes):
                return sizes
            time.sleep(_POLL)
        raise TierUnavailable(
            f"{self._backend.place}/{self._folder}/{self._generation}: is being taken away as "
            f"litter; run tieredstore gc there to its end, then promote again"
        )

    def _listed(self) -> dict[str, int]:
        below = self._backend.list(f"{self._folder}/{self._generation}")
        return {found.path: found.size for found in below}

    def publish(self, head: Head, records: Records, expected: Expected) -> None:
        """See `Staging.publish`; a collector that came between is a `HeadConflict` too."""
        data = records.emit()
        with_key = replace(head, data=self._generation)
        writer = self._backend.writer(self._key(RECORDS), len(data))
        writer.write(0, memoryview(data))
        writer.close()
        self._relied[self._key(RECORDS)] = len(data)
        self.settle(list(self._relied))
        self._check_keys()
        self._backend.put(f"{self._folder}/{HEAD}", with_key.emit(), expected)
        try:
            self._check_keys()
        except HeadConflict:
            self._backend.unpublish(self._folder, head)
            raise
        if self._damaged:
            self._backend.delete(damaged_mark(self._generation))
        if self._marked:
            self._backend.delete(self._key(_STAGING))

    def settle(self, keys: Sequence[str]) -> None:
        """Wait until readers are shown these keys, where the place shows them late."""

    def _check_keys(self) -> None:
        """Look whether every key is there, and none was put there by a collector."""
        until = time.monotonic() + self._backend.lagging
        while True:
            sizes = self._listed()
            buried = any(is_tombstone(key) for key in sizes)
            gone = [key for key, size in self._relied.items() if sizes.get(key) != size]
            if not buried and not gone:
                return
            if buried or time.monotonic() >= until:
                what = "is being taken away as litter" if buried else f"{gone[0]!r} has gone"
                raise HeadConflict(
                    f"{self._backend.place}/{self._folder}/{self._generation}: {what}"
                )
            time.sleep(_POLL)

    def discard(self) -> None:
        """See `Staging.discard`."""
        self._backend.delete_all(list(self._listed()))
