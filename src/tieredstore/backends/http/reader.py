"""Reading one file from a web server: by ranges, or from its one stream where there are none.

Every answer is checked to be of the version that was seen first, so that bytes of two versions
are never mixed.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tieredstore.backend import FileReader, FileSource, Readable
from tieredstore.backends.http.answer import (
    OK,
    PARTIAL,
    UNSATISFIABLE,
    Answer,
    BrokenAnswer,
    Version,
)
from tieredstore.backends.http.client import Client, Exchange
from tieredstore.errors import ArtifactChanged, TierUnavailable

_HEAD_REFUSED: Final = frozenset({400, 401, 403, 405, 501})
_LINGERS: Final = 0.5  # seconds that a stream waits for who reads on where it is
_KEPT: Final = 1024  # files of one copy whose version is remembered


class HttpReader(FileReader):
    """Reads ranges of one version of a file, or its one stream where ranges are not served.

    Without a version the first answer's is taken.
    """

    def __init__(self, client: Client, path: str, version: Version | None = None) -> None:
        self._client = client
        self._path = path
        self._version = version
        self._lock = threading.Lock()
        self._stream: _Stream | None = None

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        view = self._within(offset, buffer)
        if not len(view):
            return 0
        if self._stream is None:
            got = self._range(offset, view)
            if got is not None:
                return got
        assert self._stream is not None
        return self._stream.readinto(offset, view)

    def close(self) -> None:
        """See `FileReader.close`."""
        with self._lock:
            if self._stream is not None:
                self._stream.close()

    def agree(self, answer: Answer) -> Version:
        """The version of an answer, which has to be the one that was seen first.

        Raises
        ------
        ArtifactChanged
            When it is another.
        """
        now = answer.version()
        with self._lock:
            if self._version is None:
                self._version = now
            change = self._version.change(now)
            size = self._version.size if now.size is None else now.size
        if change:
            raise ArtifactChanged(f"{answer.where}: changed while it was read ({change})")
        return Version(size, now.etag, now.modified)

    def _within(self, offset: int, buffer: memoryview) -> memoryview:
        size = None if self._version is None else self._version.size
        return buffer if size is None else buffer[: max(0, size - offset)]

    def _range(self, offset: int, view: memoryview) -> int | None:
        """One range; ``None`` where the server answers with the whole file."""
        headers = self.range_headers(offset, len(view))

        def take(answer: Answer) -> int | None:
            if answer.status == OK:
                answer.check_plain()
                return self._all(answer, offset, view)
            if answer.status == UNSATISFIABLE and self.agree(answer).size is not None:
                return self._past_end(answer, offset)
            if answer.status != PARTIAL:
                raise answer.refused()
            answer.check_plain()
            return self._take(answer, offset, view)

        got = self._client.ask("GET", self._path, headers, take)
        if got is None:
            with self._lock:
                self._stream = self._stream or _Stream(self._client, self._path, self.agree)
        return got

    @property
    def streams(self) -> bool:
        """Whether the server has answered a range with the whole file."""
        return self._stream is not None

    def range_headers(self, offset: int, size: int) -> dict[str, str]:
        """How a range of this version is asked for."""
        headers = {"Range": f"bytes={offset}-{offset + size - 1}"}
        if self._version is not None and self._version.strong:
            headers["If-Range"] = self._version.etag
        return headers

    def _all(self, answer: Answer, offset: int, view: memoryview) -> int | None:
        """A whole file that was asked for whole; ``None`` where only a part of it was."""
        size = self.agree(answer).size
        if offset or size is None or size > len(view):
            return None
        check_length(answer.fill(view[:size]), size)
        return size

    def _past_end(self, answer: Answer, offset: int) -> int:
        size = answer.version().size
        if size is None or offset < size:
            raise TierUnavailable(f"{answer.where}: no byte {offset}, says the server, of {size}")
        return 0

    def check_range(self, answer: Answer, offset: int, size: int) -> int:
        """Refuse an answer that is not the range that was asked for; how long it is."""
        whole, given = self.agree(answer).size, answer.range()
        wanted = None if whole is None else (offset, min(offset + size, whole), whole)
        if wanted is None or given is None or (*given[:2], whole) != wanted:
            said = answer.header("Content-Range")[:60]
            raise TierUnavailable(
                f"{answer.where}: bytes {offset} to {offset + size} were asked for, "
                f"the answer says {said or 'no range'!r}"
            )
        length = wanted[1] - offset
        if answer.length() not in {None, length}:
            raise TierUnavailable(
                f"{answer.where}: {answer.length()} bytes for a range of {length}"
            )
        return length

    def _take(self, answer: Answer, offset: int, view: memoryview) -> int:
        length = self.check_range(answer, offset, len(view))
        check_length(answer.fill_whole(view[:length]), length)
        if answer.length() is None and answer.read(1):
            raise TierUnavailable(f"{answer.where}: more bytes than the range of {length}")
        return length


class _Stream:
    """The whole file from its beginning, for a server that serves no ranges.

    One connection for all threads that read the file: each in its turn, lowest offset first, so
    that the file is asked for once. Reading further back begins again.
    """

    def __init__(self, client: Client, path: str, agree: Callable[[Answer], Version]) -> None:
        self._client = client
        self._path = path
        self._agree = agree
        self._free = threading.Condition()
        self._waiting: list[int] = []
        self._busy = False
        self._open: tuple[Exchange, Answer] | None = None
        self._at = 0
        self._since = time.monotonic()
        self._size: int | None = None

    def readinto(self, offset: int, view: memoryview) -> int:
        with self._turn(offset):
            return self._client.again(self._path, lambda timeout: self._read(timeout, offset, view))

    @contextmanager
    def _turn(self, offset: int) -> Iterator[None]:
        with self._free:
            self._waiting.append(offset)
            while self._busy or self._next() != offset or self._early(offset):
                self._free.wait(_LINGERS)
            self._waiting.remove(offset)
            self._busy = True
        try:
            yield
        finally:
            with self._free:
                self._busy, self._since = False, time.monotonic()
                self._free.notify_all()

    def _early(self, offset: int) -> bool:
        """Whether somebody may still come for what lies before: what is passed over is lost."""
        return offset > self._at and time.monotonic() - self._since < _LINGERS

    def _next(self) -> int:
        ahead = [offset for offset in self._waiting if offset >= self._at]
        return min(ahead or self._waiting)

    def _read(self, timeout: float, offset: int, view: memoryview) -> int:
        try:
            if self._open is None or offset < self._at:
                self.close()
                self._begin(timeout)
            assert self._open is not None
            answer = self._open[1]
            skipped = answer.skip(offset - self._at)
            self._at += skipped
            got = answer.fill(view) if self._at == offset else 0
            self._at += got
            if got < len(view):
                check_length(self._at, self._size)
        except BaseException:
            self.close()
            raise
        if self._at == self._size:
            self.close()
        return got

    def _begin(self, timeout: float) -> None:
        exchange = Exchange(self._client, timeout)
        try:
            answer = exchange.send("GET", self._path, {})
            whole_file(answer)
            self._size = self._agree(answer).size
        except BaseException:
            exchange.close()
            raise
        self._open, self._at = (exchange, answer), 0

    def close(self) -> None:
        if self._open is not None:
            self._open[0].close()
            self._open = None


class HttpSource(FileSource):
    """Keeps the readers of one copy's files, so that all ranges of a file are of one version."""

    def __init__(self, backend: Readable, client: Client, path_of: Callable[[str], str]) -> None:
        super().__init__(backend, path_of)
        self._client = client
        self._lock = threading.Lock()
        self._readers: OrderedDict[str, HttpReader] = OrderedDict()

    def open(self, file: str) -> FileReader:
        """See `FileSource.open`; a file that is gone is noticed by the first read."""
        with self._lock:
            reader = self._readers.get(file)
            if reader is None:
                reader = HttpReader(self._client, self._path_of(file))
                self._readers[file] = reader
                if len(self._readers) > _KEPT:
                    self._readers.popitem(last=False)
        return _Kept(reader)

    def close(self) -> None:
        """See `FileSource.close`: a stream that was not read to its end is ended."""
        with self._lock:
            for reader in self._readers.values():
                reader.close()
            self._readers.clear()


class _Kept(FileReader):
    """A reader that its source closes."""

    def __init__(self, reader: HttpReader) -> None:
        self._reader = reader

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        return self._reader.readinto(offset, buffer)


def look(client: Client, path: str) -> Version:
    """The version of a file that is there, its size included.

    Raises
    ------
    FileNotFoundError
        Where there is none.
    TierUnavailable
        When the server denies access, or does not say how long the file is.
    """

    def from_head(answer: Answer) -> Version | None:
        if answer.status == OK:
            answer.check_plain()
            return answer.version()
        if answer.status in _HEAD_REFUSED:
            return None
        raise answer.refused()

    def from_byte(answer: Answer) -> Version:
        if answer.status not in {OK, PARTIAL, UNSATISFIABLE}:
            raise answer.refused()
        answer.check_plain()
        found = answer.version()
        if found.size is None or (answer.status == UNSATISFIABLE and found.size):
            raise TierUnavailable(f"{answer.where}: the server does not say how long it is")
        return found

    found = client.ask("HEAD", path, {}, from_head)
    if found is not None and found.size is not None:
        return found
    return client.ask("GET", path, {"Range": "bytes=0-0"}, from_byte)


def whole_file(answer: Answer) -> Version:
    """The version of an answer that has to be the whole file."""
    if answer.status != OK:
        raise answer.refused()
    answer.check_plain()
    return answer.version()


def check_length(got: int, expected: int | None) -> None:
    """Ask again for a body that ended early."""
    if expected is not None and got != expected:
        raise BrokenAnswer(f"the answer ended after {got} of {expected} bytes")
