"""The first tier: whether it already serves what is asked for, and what it lacks.

A hit reads the head and stats the files asked for. No lock, no write, no network, and neither
fsspec nor filelock is loaded for it.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from weakref import WeakSet

from tieredstore.backends.local import LocalBackend
from tieredstore.errors import (
    ArtifactExists,
    ManifestError,
    NoSuchFile,
    UnsafePath,
    reading_from,
)
from tieredstore.manifest.artifact import Recipe
from tieredstore.manifest.names import check_file, check_name, parents
from tieredstore.manifest.records import FileRecord, Records, entries, find
from tieredstore.mounted import beneath
from tieredstore.mounted.marks import Held
from tieredstore.tiers.got import Got
from tieredstore.tiers.tier import Tier

_LOOKS: Final = 3
STAT_ALL: Final = 128  # an artifact of up to so many files has each of them statted at every hit


@dataclass(slots=True)
class FirstTier:
    """The tier that work reads from: always a mounted place."""

    tier: Tier
    backend: LocalBackend
    _out: WeakSet[Held] = field(default_factory=WeakSet)
    _needed: list[set[str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hit(self, name: str, files: Sequence[str] | None, recipe: Recipe | None) -> Got | None:
        """The artifact as it lies here, or ``None`` when something asked for is not here whole.

        Raises
        ------
        NoSuchFile
            When the generation here is the one asked for and has no such file.
        """
        for _ in range(_LOOKS):
            held = self.held(name)
            if held is None:
                return None
            served = recipe is None or held.head.recipe is None or recipe.same_as(held.head.recipe)
            with reading_from(self.tier.name):
                if served and not self.lacks(held, files):
                    return self.got(name, held, self.tier.name)
            held.close()
            if not served or self._generation(name) == held.head.generation:
                break  # else it was replaced while it was looked at
        return None

    def _generation(self, name: str) -> str | None:
        held = self.held(name)
        if held is None:
            return None
        held.close()
        return held.head.generation

    def held(self, name: str) -> Held | None:
        """Whatever generation is here, held open; a damaged head counts as nothing."""
        for folder in (self.tier.layout.folder(name), *self.tier.layout.old_folders(name)):
            with suppress(ManifestError), reading_from(self.tier.name):
                held = self.backend.hold(folder)
                if held is not None:
                    return held
        return None

    def check_free(self, name: str) -> None:
        """Refuse a name that lies inside another artifact's, or holds one.

        Raises
        ------
        ArtifactExists
            When it does.
        """
        with reading_from(self.tier.name):
            self._check_free(check_name(name))

    def _check_free(self, name: str) -> None:
        for above in parents(name):
            held = self.held(above)
            if held is not None:
                held.close()
                raise ArtifactExists(f"{name}: lies inside the artifact {above!r}")
        for inner in self.backend.folders(self.tier.layout.inner(name)):
            below = self.tier.layout.name_of(inner)
            if below is not None and below.startswith(f"{name}/"):
                raise ArtifactExists(f"{name}: holds the artifact {below!r}")

    def got(self, name: str, held: Held, source: str) -> Got:
        """Hand out a held artifact."""
        folder = Path(self.backend.place, held.marks.folder)
        path = folder / name.rpartition("/")[2] if held.head.kind == "file" else folder
        with self._lock:
            self._out.add(held)
        return Got(name, path, source, held.head.recipe, held.head.generation, {}, held)

    def in_use(self) -> set[str]:
        """The generations that this process has handed out and still holds, or needs."""
        with self._lock:
            held = {held.head.generation for held in self._out if held.fd >= 0}
            return held.union(*self._needed)

    @contextmanager
    def needing(self) -> Iterator[set[str]]:
        """A set for generations that this process must not evict for the time of the block."""
        needed: set[str] = set()
        self._needed.append(needed)
        try:
            yield needed
        finally:
            with self._lock:
                self._needed = [other for other in self._needed if other is not needed]

    def lacks(self, held: Held, files: Sequence[str] | None) -> bool:
        """Whether a file asked for is missing here or has another size than the manifest says."""
        if held.head.shards is not None:
            return True  # somebody has put a packed copy here: work reads files, not shards
        if files is None:
            if held.partial or held.head.files > STAT_ALL:
                return held.partial
            with _MappedRecords(held) as records:
                wanted = records.all()
            return not wanted or any(not _whole(held, f) for f in wanted)
        with _MappedRecords(held) as records:
            return any(not _whole(held, records.find(file)) for file in files)

    def present(self, held: Held, records: Records) -> set[str]:
        """Files of a generation that are here with the right size."""
        return {path for path, f in records.files.items() if _whole(held, f)}


def _whole(held: Held, file: FileRecord | None) -> bool:
    if file is None:
        return False
    try:
        return held.stat(file.path).st_size == file.size
    except (FileNotFoundError, UnsafePath):
        return False


class _MappedRecords:
    """The records of a held artifact, looked up without being read as a whole."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._data: bytes | mmap.mmap = b""

    def __enter__(self) -> Self:
        size = self._held.head.records_size
        with suppress(FileNotFoundError):
            fd = beneath.open_file(self._held.fd, self._held.records_path())
            with beneath.opened(fd):
                if os.fstat(fd).st_size == size:
                    with suppress(OSError, ValueError):  # not every mount maps what it reads
                        self._data = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
                        return self
                    data = beneath.read_small(self._held.fd, self._held.records_path(), size)
                    self._data = data if len(data) == size else b""
        return self

    def find(self, file: str) -> FileRecord | None:
        """The record of one file; ``None`` when the records are gone or damaged."""
        if not self._data:
            return None
        try:
            found = find(self._data, check_file(file))
        except ManifestError:
            return None
        if found is None and self._held.head.recipe is not None:
            raise NoSuchFile(f"{self._held.marks.folder}: no file {file!r} in this generation")
        return found

    def all(self) -> list[FileRecord]:
        """The record of each file; none when the records are gone or do not fit the head."""
        head = self._held.head
        with suppress(ManifestError):
            found = entries(self._data) if self._data else []
            if (len(found), sum(f.size for f in found)) == (head.files, head.size):
                return found
        return []

    def __exit__(self, *_: object) -> None:
        if isinstance(self._data, mmap.mmap):
            self._data.close()
