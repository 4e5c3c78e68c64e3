"""Files of several artifacts read as if they were one, end to end: what a merged file is made of.

To a transfer they are one copy with one file. Nothing is stored here.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from tieredstore.backend import FileReader, FileSource, FileStat, Readable, Segment
from tieredstore.errors import CorruptData, Unsupported
from tieredstore.manifest.artifact import Head
from tieredstore.manifest.records import FileRecord
from tieredstore.manifest.shards import shard_name
from tieredstore.moving.fetching import Copy
from tieredstore.moving.packed import PackedSource

_KEPT_OPEN: Final = 16  # copies; a mounted one holds a folder open for each thread


@dataclass(frozen=True, slots=True)
class JoinedPart:
    """One file of one artifact, in the tier where it is read."""

    artifact: str
    copy: Copy
    record: FileRecord

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.artifact!r}, file {self.record.path!r}"


class Sources:
    """The copies that parts are read from; those used last stay open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, FileSource] = {}

    def of(self, part: JoinedPart) -> FileSource:
        """The files of the artifact that a part belongs to."""
        with self._lock:
            found = self._found.pop(part.artifact, None)
        if found is None:
            found = part.copy.source()
        with self._lock:
            self._found[part.artifact] = found
            if len(self._found) > _KEPT_OPEN:
                del self._found[next(iter(self._found))]
        return found

    def segment(self, part: JoinedPart) -> Segment:
        """Where the part's bytes lie in its place: all of a file, or a run of a shard.

        Raises
        ------
        FileNotFoundError, CorruptData
            When that file is gone, or has another size.
        """
        file, size = part.record.path, part.record.size
        source = self.of(part)
        place = source.index.places[file] if isinstance(source, PackedSource) else None
        path = part.copy.path(file if place is None else shard_name(place.shard))
        found = part.copy.backend.stat(path)
        offset = 0 if place is None else place.offset
        if found.size < offset + size or (place is None and found.size != size):
            where = f"{part.copy.backend.place}/{path}"
            raise CorruptData(f"{where}: {found.size} bytes, expected {offset + size}")
        return Segment(found, offset, size)


class _JoinedReader(FileReader):
    def __init__(self, parts: Sequence[JoinedPart], ends: Sequence[int], sources: Sources) -> None:
        self._parts = parts
        self._ends = ends
        self._sources = sources

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        done = 0
        for number in range(bisect_right(self._ends, offset), len(self._parts)):
            if done == len(buffer):
                break
            part, at = self._parts[number], offset + done
            wanted = min(self._ends[number] - at, len(buffer) - done)
            if not wanted:
                continue  # an empty file
            with self._sources.of(part).open(part.record.path) as reader:
                begin = at - (self._ends[number] - part.record.size)
                got = reader.readinto(begin, buffer[done : done + wanted])
            done += got
            if got < wanted:
                break
        return done


class _JoinedSource(FileSource):
    def __init__(self, reader: FileReader) -> None:
        self._reader = reader

    def open(self, file: str) -> FileReader:  # noqa: ARG002 - there is one
        """See `FileSource.open`."""
        return self._reader


class Joined(Readable):
    """A place that has one file: the parts, one after the other.

    Parameters
    ----------
    parts : sequence of JoinedPart
        All of one tier.
    """

    listable = False

    def __init__(self, parts: Sequence[JoinedPart]) -> None:
        backend = parts[0].copy.backend
        self.place = backend.place
        self.request = backend.request
        self.parallel = backend.parallel
        self.parallel_small = backend.parallel_small
        self.remote = backend.remote
        ends = list(accumulate(part.record.size for part in parts))
        self._size = ends[-1]
        self._reader = _JoinedReader(parts, ends, Sources())

    def stat(self, path: str) -> FileStat:
        """See `Readable.stat`."""
        return FileStat(path, self._size)

    def open(self, path: str) -> FileReader:  # noqa: ARG002 - there is one
        """See `Readable.open`."""
        return self._reader

    def list(self, folder: str) -> Iterator[FileStat]:
        """See `Readable.list`."""
        raise Unsupported(f"{folder}: a file that is being put together cannot be listed")

    def source(self, folder: str, head: Head | None) -> FileSource:  # noqa: ARG002
        """See `Readable.source`."""
        return _JoinedSource(self._reader)
