"""A long run of one file's bytes by one request to the Hub, handed out in pieces as they come."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress

from tieredstore.backends.hf.answer import Answer
from tieredstore.backends.hf.reader import Files, Found, HubReader
from tieredstore.backends.http.answer import PARTIAL, BrokenAnswer
from tieredstore.errors import TieredStoreError
from tieredstore.pinned import FlowingReader


class _Flow:
    """The answer to one request while it is read."""

    def __init__(self, sending: AbstractContextManager[Answer], start: int, end: int) -> None:
        self._sending = sending
        answer = sending.__enter__()
        try:
            answer.check()
            given = answer.range()
            self.right = (
                answer.status == PARTIAL and given is not None and given[:2] == (start, end)
            )
        except BaseException:
            self.close()
            raise
        self._pieces: Iterator[bytes] = answer.pieces()
        self._rest = memoryview(b"")

    def fill(self, buffer: memoryview) -> bool:
        """Fill a buffer with the next bytes; false where they stop before."""
        at = 0
        while at < len(buffer):
            if not self._rest:
                self._rest = memoryview(next(self._pieces, b""))
                if not self._rest:
                    return False
            part = self._rest[: len(buffer) - at]
            buffer[at : at + len(part)] = part
            self._rest = self._rest[len(part) :]
            at += len(part)
        return True

    def close(self) -> None:
        with suppress(Exception):
            self._sending.__exit__(None, None, None)


class _Coming(threading.local):
    """What a thread reads next, and the answer that brings it."""

    at = end = 0
    flow: _Flow | None = None


class FlowingHubReader(HubReader, FlowingReader):
    """Reads one file at one commit: what a thread has said it reads in order comes at once."""

    def __init__(self, files: Files, path: str, revision: str, found: Found) -> None:
        super().__init__(files, path, revision, found)
        self._coming = _Coming()
        self._opening = threading.Lock()
        self._open: set[_Flow] = set()

    def expect(self, offset: int, size: int) -> bool:
        """See `FlowingReader.expect`."""
        self._drop()
        self._coming.at, self._coming.end = offset, offset + size
        return True

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        coming = self._coming
        if offset != coming.at or offset + len(buffer) > coming.end:
            return super().readinto(offset, buffer)
        coming.at += len(buffer)
        if self._flows(offset, buffer):
            return len(buffer)
        self._drop()  # this piece is asked for by itself, and what follows anew
        return super().readinto(offset, buffer)

    def _flows(self, offset: int, buffer: memoryview) -> bool:
        import httpx2

        try:
            flow = self._coming.flow or self._begin(offset)
            return flow.right and flow.fill(buffer)
        except (BrokenAnswer, httpx2.RequestError, httpx2.StreamError, httpx2.InvalidURL):
            return False
        except (TieredStoreError, FileNotFoundError):
            self._drop()
            raise

    def _begin(self, offset: int) -> _Flow:
        client, end = self._files.client, self._coming.end
        client.check_online()
        headers = {"Range": f"bytes={offset}-{end - 1}"}
        request = self._files.request("GET", self._path, self._revision, **headers)
        flow = self._coming.flow = _Flow(client.send(request, client.timeout), offset, end)
        with self._opening:
            self._open.add(flow)
        return flow

    def _drop(self) -> None:
        flow, self._coming.flow = self._coming.flow, None
        if flow is not None:
            self._end(flow)

    def _end(self, flow: _Flow) -> None:
        with self._opening:
            known = flow in self._open
            self._open.discard(flow)
        if known:
            flow.close()

    def close(self) -> None:
        """See `FileReader.close`; answers that were not read to their end are ended."""
        for flow in list(self._open):
            self._end(flow)
        super().close()
