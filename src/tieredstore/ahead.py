"""A file that is read by position, as one that is read like any other: in order, and ahead.

What is read next is fetched in a daemon thread while the caller works on what is there.
"""

from __future__ import annotations

import threading
import time
from typing import Final, cast

from tieredstore.backend import FileReader
from tieredstore.errors import ArtifactChanged, TierTimeout
from tieredstore.seeking import Positioned

_FIRST: Final = 256 << 10  # bytes that are fetched where it is not known that reading goes on
_MOST: Final = 8 << 20
_PAUSE: Final = 0.3  # seconds before the second try; twice as long before each further one


class _Window:
    """A run of bytes that is being fetched, or is here."""

    def __init__(self, offset: int, size: int) -> None:
        self.offset = offset
        self.data = bytearray(size)
        self.done = threading.Event()
        self.error: Exception | None = None

    @property
    def end(self) -> int:
        return self.offset + len(self.data)

    def holds(self, position: int) -> bool:
        return self.offset <= position < self.end


class ReadAhead(Positioned):
    """Reads through a `FileReader`; seekable.

    Parameters
    ----------
    reader : FileReader
        Closed with this.
    size : int
        Bytes of the file.
    request : int
        Bytes that the place is best asked for at once.
    tries : int
        How often a read that fails is made.
    """

    def __init__(self, reader: FileReader, size: int, request: int, tries: int = 1) -> None:
        super().__init__(size)
        self._reader = reader
        self._largest = min(max(request, _FIRST), _MOST)
        self._tries = tries
        self._here: _Window | None = None
        self._next: _Window | None = None

    def readinto(self, buffer: object) -> int:
        """Hand on bytes, at most those of one window."""
        view = memoryview(cast(bytearray, buffer)).cast("B")
        if self._at >= self._size or not len(view):
            return 0
        window = self._window(len(view))
        begin = self._at - window.offset
        data = memoryview(window.data)[begin : begin + len(view)]
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _window(self, wanted: int) -> _Window:
        here, ahead = self._here, self._next
        if here is not None and here.holds(self._at):
            return here
        if ahead is not None and ahead.holds(self._at):
            self._next = None
        else:  # somewhere else: what was on its way is not needed
            ahead = _Window(self._at, min(max(wanted, _FIRST), self._largest, self._left(self._at)))
            self._fetch(ahead)
        ahead.done.wait()
        if ahead.error is not None:
            self._here = None
            raise ahead.error
        self._here = ahead
        if self._next is None and here is not None and here.end == ahead.offset:
            self._begin(ahead.end, min(2 * len(ahead.data), self._largest))
        return ahead

    def _left(self, position: int) -> int:
        return self._size - position

    def _begin(self, offset: int, size: int) -> None:
        if self._left(offset) > 0:
            self._next = _Window(offset, min(size, self._left(offset)))
            threading.Thread(
                target=self._fetch, args=(self._next,), name="tieredstore-ahead", daemon=True
            ).start()

    def _fetch(self, window: _Window) -> None:
        try:
            self._read(window)
        except Exception as error:  # noqa: BLE001 - raised by whoever reads on
            window.error = error
        window.done.set()

    def _read(self, window: _Window) -> None:
        for left in reversed(range(self._tries)):
            try:
                got = self._reader.readinto(window.offset, memoryview(window.data))
            except (ArtifactChanged, FileNotFoundError, PermissionError, TierTimeout):
                raise
            except OSError:
                if not left:
                    raise
                time.sleep(_PAUSE * 2 ** (self._tries - 1 - left))
                continue
            if got != len(window.data):
                text = f"the file ends at byte {window.offset + got}, expected {self._size} bytes"
                raise ArtifactChanged(text)
            return

    def close(self) -> None:
        """Let go of the file, and of what is on its way."""
        if not self.closed:
            ahead, self._next, self._here = self._next, None, None
            if ahead is None or ahead.done.is_set():
                self._reader.close()
            else:
                threading.Thread(
                    target=self._close_after, args=(ahead,), name="tieredstore-ahead", daemon=True
                ).start()
        super().close()

    def _close_after(self, window: _Window) -> None:
        window.done.wait()
        self._reader.close()
