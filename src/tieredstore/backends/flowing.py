"""A long run of one file's bytes by one request, handed out in pieces as they come.

Each piece can be verified and written while the next is on its way, and what was handed out is
not asked for again when the connection breaks.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from typing import Protocol

from tieredstore.errors import TieredStoreError
from tieredstore.pinned import FlowingReader


class Flow(Protocol):
    """One request for a run of bytes, and its answer while that is read."""

    def begin(self) -> bool:
        """Send the request; false where the answer is not simply that run."""

    def fill(self, buffer: memoryview) -> bool:
        """Fill a buffer with the next bytes; false where they stop before."""

    def end(self) -> None:
        """All has been read."""

    def close(self) -> None:
        """Let go of it, read or not; raises nothing."""


class _Coming(threading.local):
    """What a thread reads next, and what brings it."""

    at = end = 0
    flow: Flow | None = None


class Flowing(FlowingReader):
    """A reader to which a thread can say what it reads in order; used by several threads."""

    def __init__(self) -> None:
        self._coming = _Coming()
        self._opening = threading.Lock()
        self._open: set[Flow] = set()

    @abstractmethod
    def flow(self, offset: int, end: int) -> Flow | None:
        """A request that is yet to be sent; ``None`` where there is no use in one."""

    @abstractmethod
    def broken(self) -> tuple[type[Exception], ...]:
        """What is raised when the connection breaks, or the answer is not understood."""

    @abstractmethod
    def piece(self, offset: int, buffer: memoryview) -> int:
        """Read a piece by a request of its own."""

    def expect(self, offset: int, size: int) -> bool:
        """See `FlowingReader.expect`; also true where the place has one stream for all."""
        self._drop()
        self._coming.at, self._coming.end = offset, offset + size
        return True

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        coming = self._coming
        if offset == coming.at and offset + len(buffer) <= coming.end:
            coming.at += len(buffer)
            if self._flows(offset, buffer):
                return len(buffer)
            self._drop()  # this piece is asked for by itself, and what follows anew
        return self.piece(offset, buffer)

    def _flows(self, offset: int, buffer: memoryview) -> bool:
        coming = self._coming
        try:
            flow = coming.flow or self._begun(offset)
            if flow is None or not flow.fill(buffer):
                return False
            if coming.at == coming.end:
                flow.end()
                self._drop()
            return True
        except (TieredStoreError, FileNotFoundError):
            self._drop()
            raise
        except self.broken():
            return False

    def _begun(self, offset: int) -> Flow | None:
        flow = self.flow(offset, self._coming.end)
        if flow is None:
            return None
        with self._opening:
            self._open.add(flow)
        self._coming.flow = flow
        return flow if flow.begin() else None

    def _drop(self) -> None:
        flow, self._coming.flow = self._coming.flow, None
        if flow is not None:
            self._close(flow)

    def _close(self, flow: Flow) -> None:
        with self._opening:
            known = flow in self._open
            self._open.discard(flow)
        if known:
            flow.close()

    def close(self) -> None:
        """See `FileReader.close`; answers that were not read to their end are ended."""
        for flow in list(self._open):
            self._close(flow)
