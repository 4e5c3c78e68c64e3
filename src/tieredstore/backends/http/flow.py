"""A long run of one file's bytes by one request, handed out in pieces as they come.

Each piece can be verified and written while the next is on its way, and what was handed out is
not asked for again when the connection breaks.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from http.client import HTTPException

from tieredstore.backends.http.answer import PARTIAL, Answer, BrokenAnswer, Version
from tieredstore.backends.http.client import Client, Exchange, import_requests
from tieredstore.backends.http.reader import HttpReader
from tieredstore.errors import TieredStoreError
from tieredstore.pinned import FlowingReader


class _Coming(threading.local):
    """What a thread reads next, and the answer that brings it."""

    at = end = 0
    exchange: Exchange | None = None
    answer: Answer | None = None


def _client_errors() -> type[Exception]:
    import_requests()
    from urllib3.exceptions import HTTPError

    return HTTPError


class FlowingHttpReader(HttpReader, FlowingReader):
    """Reads one version of a file: what a thread has said it reads in order comes at once."""

    def __init__(self, client: Client, path: str, version: Version) -> None:
        super().__init__(client, path, version)
        self._coming = _Coming()
        self._opening = threading.Lock()
        self._open: set[Exchange] = set()

    def expect(self, offset: int, size: int) -> bool:
        """See `FlowingReader.expect`; also true where the server has one stream for all."""
        self._drop()
        self._coming.at, self._coming.end = offset, offset + size
        return True

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        coming = self._coming
        if offset != coming.at or offset + len(buffer) > coming.end or self.streams:
            return super().readinto(offset, buffer)
        coming.at += len(buffer)
        if self._flows(offset, buffer):
            return len(buffer)
        self._drop()  # this piece is asked for by itself, and what follows anew
        return super().readinto(offset, buffer)

    def _flows(self, offset: int, buffer: memoryview) -> bool:
        """Fill a buffer with the next bytes; false where they do not come."""
        coming = self._coming
        try:
            if coming.answer is None and not self._begin(offset):
                return False
            assert coming.answer is not None
            if not coming.answer.pour(buffer):
                return False
            if coming.at == coming.end:
                coming.answer.end()
                self._drop()
            return True
        except TieredStoreError:
            self._drop()
            raise
        except (BrokenAnswer, OSError, HTTPException, ValueError, _client_errors()):
            return False

    def _begin(self, offset: int) -> bool:
        """Ask for what is left of the run; false where the answer is not simply that."""
        exchange = Exchange(self._client, self._client.timeout)
        with self._opening:
            self._open.add(exchange)
        self._coming.exchange = exchange
        size = self._coming.end - offset
        answer = exchange.send("GET", self._path, self.range_headers(offset, size))
        if answer.status != PARTIAL:
            return False
        answer.check_plain()
        self.check_range(answer, offset, size)
        self._coming.answer = answer
        return True

    def _drop(self) -> None:
        exchange, self._coming.exchange, self._coming.answer = self._coming.exchange, None, None
        if exchange is not None:
            self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        with self._opening:
            known = exchange in self._open
            self._open.discard(exchange)
        if known:
            with suppress(Exception):
                exchange.close()

    def close(self) -> None:
        """See `FileReader.close`; answers that were not read to their end are ended."""
        for exchange in list(self._open):
            self._end(exchange)
        super().close()
