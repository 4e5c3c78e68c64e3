"""Files on their way to the Hub: spooled ones are asked about, sent where large, kept where small.

A file is sent when it is closed. One call may take only so long, and a large file longer: it goes
on being sent in a thread of its own, and further ones are written the more slowly the more wait.
What has been sent stays with the Hub, which says so when it is asked again: a promote that was
killed sends the rest.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tieredstore.backends.hf.api import HubApi
from tieredstore.backends.hf.large import Sender, Spooled
from tieredstore.backends.hf.spool import IN_MEMORY, Spool

PARALLEL: Final = 4  # large files on disk, and being sent, at a time
_HELD_UP: Final = 20.0  # seconds that one call waits at most, well below what it may take
_FILES: Final = 64  # small files that are asked about at once
_BYTES: Final = 4 << 20  # bytes of small files that are sent by one thread
MAX_REGULAR: Final = 8 << 20  # bytes; a larger file is always sent as a large one
_ALL_REGULAR: Final = 32 << 20  # bytes of all ordinary files of a commit, which lie in memory


@dataclass(frozen=True, slots=True)
class Addition:
    """A file that can be committed: a large one by its digest, an ordinary one with its bytes.

    Attributes
    ----------
    path : str
        In the repository.
    size : int
        Bytes.
    sha256 : str
        Of a large file; empty for an ordinary one.
    content : bytes
        Of an ordinary file.
    """

    path: str
    size: int
    sha256: str = ""
    content: bytes = b""

    @property
    def blob(self) -> str:
        """Git's id of an ordinary file."""
        start = b"blob %d\0" % self.size
        return hashlib.sha1(start + self.content, usedforsecurity=False).hexdigest()


class Uploads:
    """All files of one staging, which several threads write."""

    def __init__(self, api: HubApi) -> None:
        self._api = api
        self._sender = Sender(api)
        self._slots = threading.BoundedSemaphore(PARALLEL)
        self._lock = threading.Condition()
        self._under_way = 0
        self._error: BaseException | None = None
        self._small: list[Spooled] = []
        self._regular = 0
        self._done: dict[str, Addition] = {}

    def hold_up(self, spool: Spool) -> None:
        """Wait a while for the turn of a file that goes to disk, unless it has come.

        Raises
        ------
        OSError
            When another file could not be sent.
        """
        with self._lock:
            self._raise()
        if (
            spool.size > IN_MEMORY
            and spool.on_close is None
            and self._slots.acquire(timeout=_HELD_UP)
        ):
            spool.on_close = self._slots.release

    def add(self, file: Spooled) -> None:
        """Send a file; a small one when there are more of them."""
        batch: list[Spooled] = []
        with self._lock:
            self._raise()
            if file.spool.size > IN_MEMORY:
                self._under_way += 1
                threading.Thread(target=self._large, args=(file,), daemon=True).start()
                self._lock.wait_for(lambda: file.path in self._done or self._error, _HELD_UP)
                return
            self._small.append(file)
            if len(self._small) >= _FILES or sum(f.spool.size for f in self._small) >= _BYTES:
                batch, self._small = self._small, []
        self._send(batch)

    def _large(self, file: Spooled) -> None:
        error: BaseException | None = None
        try:
            self._send([file])
        except BaseException as caught:  # noqa: BLE001 - raised by who writes or publishes
            error = caught
        with self._lock:
            self._under_way -= 1
            self._error = self._error or error
            self._lock.notify_all()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def finish(self) -> Mapping[str, Addition]:
        """Send the rest, and wait for all; what can be committed, by path."""
        with self._lock:
            batch, self._small = self._small, []
        self._send(batch)
        with self._lock:
            self._lock.wait_for(lambda: self._error or not self._under_way)
            self._raise()
            return dict(self._done)

    def drop(self) -> None:
        """Forget everything."""
        with self._lock:
            self._small = []
            self._done.clear()

    def _send(self, batch: Sequence[Spooled]) -> None:
        if not batch:
            return
        try:
            asked = [f.asked() for f in batch if f.spool.size]
            modes = self._api.modes(asked) if asked else {}
            sent, large = [], []
            for file in batch:
                wanted = modes.get(file.path, "regular") != "lfs"
                if wanted and self._room_for(file.spool.size):
                    content = file.spool.read(0, file.spool.size)
                    sent.append(Addition(file.path, file.spool.size, content=content))
                else:
                    large.append(replace(file, forced=wanted))
            if large:
                self._sender.send(large)
        finally:
            for file in batch:
                file.spool.close()
        sent += [Addition(f.path, f.spool.size, f.spool.sha256) for f in large]
        with self._lock:
            self._done.update({a.path: a for a in sent})

    def _room_for(self, size: int) -> bool:
        """Whether a file may be an ordinary one; an empty file cannot be a large one."""
        with self._lock:
            if size and (size > MAX_REGULAR or self._regular + size > _ALL_REGULAR):
                return False
            self._regular += size
            return True
