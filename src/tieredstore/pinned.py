"""Files of a place that have no manifest: each is read in the one version that was seen first.

Two capabilities: a place reads one version (`Pinning`), a stage knows which of its blocks have
arrived (`Remembering`). Everything else is derived from them.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tieredstore.backend import FileReader, FileSource, FileStat, Readable
from tieredstore.errors import ArtifactChanged
from tieredstore.manifest.artifact import GENERATED
from tieredstore.manifest.names import RESERVED, check_file
from tieredstore.manifest.records import FileRecord
from tieredstore.workers import together

_ASKED: Final = 32  # files that are asked for one by one, where the place can be listed
_KEPT: Final = 64  # readers of one source that are kept


class Pinning(ABC):
    """A place that reads one version of a file and notices by itself when it is another."""

    @abstractmethod
    def open_pinned(self, file: FileStat) -> FileReader:
        """Open the version of a file that `stat` or `list` has told of.

        Raises
        ------
        ArtifactChanged
            Here, or when it is read: the file is another one by now.
        """


class FlowingReader(FileReader):
    """A reader that brings a long run of bytes by one request and hands them out in pieces."""

    @abstractmethod
    def expect(self, offset: int, size: int) -> bool:
        """Be told what this thread reads next, in order; true where small pieces do."""


class BlockLog(ABC):
    """Digests of blocks that have been written to a stage."""

    @abstractmethod
    def known(self, number: int) -> Mapping[int, bytes]:
        """What earlier attempts have noted of a file: digests by offset, to be compared."""

    @abstractmethod
    def add(self, number: int, blocks: Sequence[tuple[int, bytes]]) -> None:
        """Note blocks of a file, by offset and digest, that have just been written."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it; what was noted stays."""


class Remembering(ABC):
    """A staging on this machine that is gone on with although its files have no manifest."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where whole files lie until they are published."""

    @abstractmethod
    def arrived(self) -> BlockLog:
        """Which blocks of its files have arrived."""

    @abstractmethod
    def reading(self, file: FileRecord) -> FileReader:
        """Open a file that is being written, or is whole."""


def look(backend: Readable, folder: str, files: Sequence[str] | None) -> list[FileStat]:
    """What a place has that may be adopted: the files named, or all below a folder.

    Nothing where one that is named is missing, where the place cannot be listed, and where
    artifacts lie, whole or not.
    """
    if files is not None and backend.listable and len(files) > _ASKED:
        listed = {f.path: f for f in look(backend, folder, None)}
        wanted = ["/".join(part for part in (folder, check_file(f)) if part) for f in files]
        return [listed[path] for path in wanted] if listed.keys() >= set(wanted) else []
    if files is not None:
        paths = ["/".join(part for part in (folder, check_file(f)) if part) for f in files]
        try:
            return together([partial(backend.stat, path) for path in paths])
        except FileNotFoundError:
            return []
    if not backend.listable:
        return []
    found = list(backend.list(folder))
    return [] if any(_is_of_store(f.path) for f in found) else found


def _is_of_store(path: str) -> bool:
    return any(p.startswith(RESERVED) or GENERATED.fullmatch(p) for p in path.split("/"))


def tag_of(file: FileStat) -> str:
    """What tells one version of a file from another: its tag, else size and time."""
    return file.tag or f"{file.size}-{file.mtime_ns}"


def changed(place: str, file: FileStat, now: FileStat) -> ArtifactChanged:
    """The error of a file that is another one now."""
    before, after = tag_of(file), tag_of(now)
    if file.size != now.size:
        before, after = f"{file.size} bytes", f"{now.size} bytes"
    where = f"{place}/{file.path}"
    return ArtifactChanged(f"{where}: changed while it was read ({before} before, {after} now)")


def open_pinned(backend: Readable, file: FileStat) -> FileReader:
    """Open one version of a file; raises `ArtifactChanged`, at the latest when it is read."""
    if isinstance(backend, Pinning):
        return backend.open_pinned(file)
    return _Compared(backend, file)


class _Compared(FileReader):
    """Asks for the file's version after each read, where the place does not do so itself."""

    def __init__(self, backend: Readable, file: FileStat) -> None:
        self._backend = backend
        self._file = file
        self._check()
        self._reader = backend.open(file.path)

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        got = self._reader.readinto(offset, buffer)
        self._check()
        return got

    def _check(self) -> None:
        now = self._backend.stat(self._file.path)
        if tag_of(now) != tag_of(self._file) or now.size != self._file.size:
            raise changed(self._backend.place, self._file, now)

    def close(self) -> None:
        """See `FileReader.close`."""
        self._reader.close()


class PinnedSource(FileSource):
    """Files of a place, each in the version that it was seen in; used by several threads.

    Parameters
    ----------
    backend : Readable
        The place.
    files : mapping of str to FileStat
        By the name that they are asked for.
    """

    def __init__(self, backend: Readable, files: Mapping[str, FileStat]) -> None:
        super().__init__(backend, lambda file: files[file].path)
        self._files = files
        self._lock = threading.Lock()
        self._readers: OrderedDict[str, FileReader] = OrderedDict()

    def open(self, file: str) -> FileReader:
        """See `FileSource.open`; several ranges of a file come from one reader."""
        return _Kept(self._reader(file))

    def expect(self, file: str, offset: int, size: int) -> bool:
        """See `FileSource.expect`."""
        reader = self._reader(file)
        return isinstance(reader, FlowingReader) and reader.expect(offset, size)

    def _reader(self, file: str) -> FileReader:
        with self._lock:
            found = self._readers.get(file)
        if found is None:
            opened = open_pinned(self._backend, self._files[file])
            with self._lock:
                found = self._readers.setdefault(file, opened)
                if len(self._readers) > _KEPT:  # its last user lets go of it
                    self._readers.popitem(last=False)
            if found is not opened:
                opened.close()
        return found

    def close(self) -> None:
        """See `FileSource.close`."""
        with self._lock:
            readers, self._readers = list(self._readers.values()), OrderedDict()
        for reader in readers:
            reader.close()


class _Kept(FileReader):
    """A reader that its source closes."""

    def __init__(self, reader: FileReader) -> None:
        self._reader = reader

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        return self._reader.readinto(offset, buffer)
