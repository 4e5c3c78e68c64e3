"""Files of a packed copy, read from its shards by range. The format is in ``shards.py``.

Whoever reads many files says so before (`PackedSource.ahead`): those that lie near one another are
then brought by one request, and handed out from memory, once. What is asked for again did not
match, and is read from the place by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

from tieredstore.backend import FileReader, FileSource
from tieredstore.errors import CorruptData
from tieredstore.manifest.artifact import SHARDS, Shards
from tieredstore.manifest.records import Records
from tieredstore.manifest.shards import Index, Place, max_size, shard_name

WINDOW: Final = 8 << 20  # bytes that one request brings of files that lie near one another
_LOOKS: Final = 2  # at an index that is damaged
_NEAR: Final = 64 << 10  # bytes between two files that are read through rather than left out


class PackedSource(FileSource):
    """The files of one packed copy; used by several threads.

    Parameters
    ----------
    objects : FileSource
        The objects of the copy: shards, the index, large files.
    known : Shards
        What the head says of the index.
    records : Records
        Of the generation.
    where : str
        The copy's place, for messages.
    """

    def __init__(self, objects: FileSource, known: Shards, records: Records, where: str) -> None:
        self._objects = objects
        self._known = known
        self._records = records
        self._where = where
        self._lock = threading.Lock()
        self._loaded: Index | None = None
        self._broken: list[CorruptData] = []
        self._window = _Window()

    @property
    def most(self) -> int:
        """Bytes that one read may bring besides those asked for."""
        return WINDOW + (self._known.size if self._loaded is None else 0)

    @property
    def index(self) -> Index:
        """Where each file lies; read when first asked for.

        Raises
        ------
        CorruptData
            When it is missing or cannot be believed.
        """
        with self._lock:
            if len(self._broken) >= _LOOKS:
                raise self._broken[-1]
            if self._loaded is None:
                try:
                    self._loaded = self._load()
                except CorruptData as error:
                    self._broken.append(error)
                    raise
            return self._loaded

    def _load(self) -> Index:
        where = f"{self._where}/{SHARDS}"
        most = max_size(len(self._records.files))
        if self._known.size > most:
            raise CorruptData(f"{where}: an index of {self._known.size} bytes, at most {most}")
        data = bytearray(self._known.size)
        try:
            with self._objects.open(SHARDS) as reader:
                got = reader.readinto(0, memoryview(data))
        except FileNotFoundError:
            raise CorruptData(f"{where}: the index of the shards is missing") from None
        return Index.parse(bytes(data[:got]), self._known, self._records, where)

    def open(self, file: str) -> FileReader:
        """See `FileSource.open`."""
        place = self.index.places[file]
        return self._objects.open(file) if place is None else _Member(self, file, place)

    def close(self) -> None:
        """See `FileSource.close`."""
        self._objects.close()

    def holder(self, file: str) -> str:
        """The object that a file's bytes lie in."""
        place = None if self._loaded is None else self._loaded.places.get(file)
        return file if place is None else shard_name(place.shard)

    def ahead(self, files: Iterable[str]) -> None:
        """Say what this thread reads next; nothing is read before the first of them is."""
        self._window.coming = list(files)

    def read(self, file: str, place: Place, offset: int, buffer: memoryview) -> int:
        """Bytes of one file in a shard, from memory where they were brought with others."""
        window, size = self._window, self._records.files[file].size
        end = window.until(file, self.index, self._records)
        length = max(0, min(len(buffer), size - offset))
        if offset or end <= place.offset + size:
            return self._range(place.shard, place.offset + offset, buffer[:length])
        if not window.covers(place, size):
            window.begin(place, end)
            window.filled(self._range(place.shard, place.offset, window.buffer))
        return window.give(place, buffer[:length])

    def _range(self, shard: int, offset: int, buffer: memoryview) -> int:
        with self._objects.open(shard_name(shard)) as reader:
            return reader.readinto(offset, buffer)


class _Member(FileReader):
    def __init__(self, source: PackedSource, file: str, place: Place) -> None:
        self._source, self._file, self._place = source, file, place

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`; never past the file's end."""
        return self._source.read(self._file, self._place, offset, buffer)


class _Window(threading.local):
    """What a thread has brought by one request, and the files that it reads next."""

    def __init__(self) -> None:
        self.coming: list[str] = []
        self.buffer = memoryview(b"")
        self._until: dict[str, int] = {}
        self._whole = bytearray()
        self._place = self._wanted = Place(-1, 0)
        self._got = 0

    def until(self, file: str, index: Index, records: Records) -> int:
        """Where the run of files that begins with this one ends; 0 for one not foreseen.

        The next time the file counts as not foreseen.
        """
        if self.coming:
            self._until = _runs(self.coming, index, records)
            self.coming = []
        return self._until.pop(file, 0)

    def covers(self, place: Place, size: int) -> bool:
        """Whether a file has been brought already, as far as there was something."""
        begin = self._place.offset
        inside = begin <= place.offset and place.offset + size <= begin + len(self.buffer)
        return place.shard == self._place.shard and inside

    def begin(self, place: Place, end: int) -> None:
        """Make room for what lies from a place on, up to ``end``."""
        size = end - place.offset
        if len(self._whole) < size:
            self._whole = bytearray(size)
        self.buffer = memoryview(self._whole)[:size]
        self._place, self._got = Place(-1, 0), 0  # until it has been filled
        self._wanted = place

    def filled(self, got: int) -> None:
        """So many bytes came."""
        self._place, self._got = self._wanted, got

    def give(self, place: Place, buffer: memoryview) -> int:
        """Bytes of a file from its beginning; fewer where fewer came."""
        start = place.offset - self._place.offset
        data = self.buffer[start : min(start + len(buffer), self._got)]
        buffer[: len(data)] = data
        return len(data)


def _runs(files: Iterable[str], index: Index, records: Records) -> dict[str, int]:
    """For each file that lies in a shard, where the run of neighbours that it is in ends."""
    found = [(place, f) for f in files if (place := index.places[f]) is not None]
    until: dict[str, int] = {}
    run: list[str] = []
    begin, end = Place(-1, 0), 0
    for place, file in sorted(found):
        after = place.offset + records.files[file].size
        near = place.shard == begin.shard and place.offset - end <= _NEAR
        if not near or after - begin.offset > WINDOW:
            until.update(dict.fromkeys(run, end))
            run, begin = [], place
        run.append(file)
        end = after
    until.update(dict.fromkeys(run, end))
    return until
