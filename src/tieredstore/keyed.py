"""Publication on places that cannot rename: fresh keys for each generation, then a small head.

``<folder>/<generation>/<file>`` never changes once it is written; ``<folder>/.tieredstore.json``
is the head, put last. A backend for such a place subclasses :class:`KeyedBackend` and says how
one key is written, conditionally put and deleted.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from tieredstore.artifact import HEAD, RECORDS, Head
from tieredstore.backend import (
    ANY_HEAD,
    Expected,
    FileWriter,
    FoundHead,
    Publishable,
    Readable,
    Staging,
)
from tieredstore.errors import HeadConflict, ManifestError
from tieredstore.names import RESERVED
from tieredstore.records import FileRecord, Records

_TORN_HEAD_TRIES: Final = 5


class KeyedBackend(Readable, Publishable):
    """An object store, or anything that is used like one."""

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

    def begin(self, folder: str, head: Head) -> Staging:
        """See `Publishable.begin`."""
        return KeyedStaging(self, folder, head.generation)

    def remove(self, folder: str, head: Head) -> None:
        """See `Publishable.remove`: the head first, so that nobody begins to read."""
        self._drop_head(folder, head)
        self.delete_all([found.path for found in self.list(f"{folder}/{head.generation}")])

    def set_aside(self, folder: str, head: Head) -> str:
        """See `Publishable.set_aside`: the head is moved; the data stays under its generation."""
        key = damaged_mark(head.generation)
        with suppress(FileNotFoundError):
            self.put(key, self.read(f"{folder}/{HEAD}", 1 << 16), ANY_HEAD)
        self._drop_head(folder, head)
        return f"{self.place}/{folder}/{head.generation}"

    def _drop_head(self, folder: str, head: Head) -> None:
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
    expected : str, None or ANY_HEAD
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
    if expected is None and found is not None:
        raise HeadConflict(f"{where}: was published meanwhile")
    if expected is not None:
        now = None if found is None else Head.parse(found, where).generation
        if now != expected:
            raise HeadConflict(f"{where}: {now} was published meanwhile")


def damaged_mark(generation: str) -> str:
    """The key that says that a generation's keys hold bytes that differ from its manifest."""
    return f"{RESERVED}/damaged/{generation}.json"


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

    def _key(self, file: str) -> str:
        return f"{self._folder}/{self._generation}/{file}"

    def create(self, file: FileRecord) -> FileWriter:
        """See `Staging.create`."""
        return self._backend.writer(self._key(file.path), file.size)

    def holds(self, file: FileRecord) -> bool:
        """See `Staging.holds`: a key appears only whole, and its bytes were verified before."""
        return not self._damaged and self._left().get(self._key(file.path)) == file.size

    def _left(self) -> dict[str, int]:
        """Sizes of the keys that an earlier attempt has left, by one listing."""
        with self._lock:
            if self._sizes is None:
                below = self._backend.list(f"{self._folder}/{self._generation}")
                self._sizes = {found.path: found.size for found in below}
        return self._sizes

    def publish(self, head: Head, records: Records, expected: Expected) -> None:
        """See `Staging.publish`."""
        data = records.emit()
        with_key = replace(head, data=self._generation)
        writer = self._backend.writer(self._key(RECORDS), len(data))
        writer.write(0, memoryview(data))
        writer.close()
        self._backend.put(f"{self._folder}/{HEAD}", with_key.emit(), expected)
        if self._damaged:
            self._backend.delete(damaged_mark(self._generation))

    def discard(self) -> None:
        """See `Staging.discard`."""
        below = self._backend.list(f"{self._folder}/{self._generation}")
        self._backend.delete_all([found.path for found in below])
