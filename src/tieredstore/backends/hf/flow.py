"""A long run of one file's bytes from the Hub by one request; see `flowing`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress

from tieredstore.backends.flowing import Flowing
from tieredstore.backends.hf.answer import Answer
from tieredstore.backends.hf.reader import Files, Found, HubReader
from tieredstore.backends.http.answer import PARTIAL, BrokenAnswer


class _Flow:
    """One request for what is left of a run."""

    def __init__(self, sending: AbstractContextManager[Answer], start: int, end: int) -> None:
        self._sending = sending
        self._range = start, end
        self._pieces: Iterator[bytes] = iter(())
        self._rest = memoryview(b"")

    def begin(self) -> bool:
        """See `Flow.begin`."""
        answer = self._sending.__enter__()
        answer.check()
        given = answer.range()
        self._pieces = answer.pieces()
        return answer.status == PARTIAL and given is not None and given[:2] == self._range

    def fill(self, buffer: memoryview) -> bool:
        """See `Flow.fill`."""
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

    def end(self) -> None:
        """See `Flow.end`: the client knows by itself."""

    def close(self) -> None:
        """See `Flow.close`."""
        with suppress(Exception):
            self._sending.__exit__(None, None, None)


class FlowingHubReader(Flowing, HubReader):
    """Reads one file at one commit: what a thread has said it reads in order comes at once."""

    def __init__(self, files: Files, path: str, revision: str, found: Found) -> None:
        HubReader.__init__(self, files, path, revision, found)
        Flowing.__init__(self)

    def flow(self, offset: int, end: int) -> _Flow:
        """See `Flowing.flow`."""
        client = self._files.client
        client.check_online()
        headers = {"Range": f"bytes={offset}-{end - 1}"}
        request = self._files.request("GET", self._path, self._revision, **headers)
        return _Flow(client.send(request, client.timeout), offset, end)

    def broken(self) -> tuple[type[Exception], ...]:
        """See `Flowing.broken`."""
        import httpx2

        return BrokenAnswer, httpx2.RequestError, httpx2.StreamError, httpx2.InvalidURL

    def piece(self, offset: int, buffer: memoryview) -> int:
        """See `Flowing.piece`."""
        return HubReader.readinto(self, offset, buffer)

    def close(self) -> None:
        """See `FileReader.close`."""
        Flowing.close(self)
        HubReader.close(self)
