"""A long run of one file's bytes from a web server by one request; see `flowing`."""

from __future__ import annotations

from contextlib import suppress
from http.client import HTTPException

from tieredstore.backends.flowing import Flowing
from tieredstore.backends.http.answer import PARTIAL, Answer, BrokenAnswer, Version
from tieredstore.backends.http.client import Client, Exchange, import_requests
from tieredstore.backends.http.reader import HttpReader


class _Flow:
    """One request for what is left of a run."""

    def __init__(self, reader: FlowingHttpReader, offset: int, size: int) -> None:
        self._reader, self._offset, self._size = reader, offset, size
        self._exchange = reader.exchange()
        self._answer: Answer | None = None

    def begin(self) -> bool:
        """See `Flow.begin`."""
        headers = self._reader.range_headers(self._offset, self._size)
        answer = self._exchange.send("GET", self._reader.path, headers)
        if answer.status != PARTIAL:
            return False
        answer.check_plain()
        self._reader.check_range(answer, self._offset, self._size)
        self._answer = answer
        return True

    def fill(self, buffer: memoryview) -> bool:
        """See `Flow.fill`."""
        return self._answer is not None and self._answer.pour(buffer) == len(buffer)

    def end(self) -> None:
        """See `Flow.end`: the connection is used again."""
        if self._answer is not None:
            self._answer.end()

    def close(self) -> None:
        """See `Flow.close`."""
        with suppress(Exception):
            self._exchange.close()


class FlowingHttpReader(Flowing, HttpReader):
    """Reads one version of a file: what a thread has said it reads in order comes at once."""

    def __init__(self, client: Client, path: str, version: Version) -> None:
        HttpReader.__init__(self, client, path, version)
        Flowing.__init__(self)
        self.path = path

    def exchange(self) -> Exchange:
        """A request that is yet to be sent."""
        return Exchange(self._client, self._client.timeout)

    def flow(self, offset: int, end: int) -> _Flow | None:
        """See `Flowing.flow`."""
        return None if self.streams else _Flow(self, offset, end - offset)

    def broken(self) -> tuple[type[Exception], ...]:
        """See `Flowing.broken`."""
        import_requests()
        from urllib3.exceptions import HTTPError

        return BrokenAnswer, OSError, HTTPException, ValueError, HTTPError

    def piece(self, offset: int, buffer: memoryview) -> int:
        """See `Flowing.piece`."""
        return HttpReader.readinto(self, offset, buffer)

    def close(self) -> None:
        """See `FileReader.close`."""
        Flowing.close(self)
        HttpReader.close(self)
