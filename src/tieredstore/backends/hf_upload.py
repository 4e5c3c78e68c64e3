"""Files on their way to the Hub: spooled ones are asked about, sent where large, kept where small.

A file is sent when it is closed, by the thread that closed it, so what lies on disk is bounded.
What has been sent stays with the Hub, which says so when it is asked again: a promote that was
killed sends the rest.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tieredstore.backends.hf_api import HubApi
from tieredstore.backends.hf_large import Sender, Spooled
from tieredstore.backends.hf_spool import IN_MEMORY, Spool

PARALLEL: Final = 4  # files on disk, and requests, at a time
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
    """All files of one staging; used by several threads, each of which sends what it has closed."""

    def __init__(self, api: HubApi) -> None:
        self._api = api
        self._sender = Sender(api)
        self._slots = threading.BoundedSemaphore(PARALLEL)
        self._lock = threading.Lock()
        self._small: list[Spooled] = []
        self._regular = 0
        self._done: dict[str, Addition] = {}

    def spool(self, size: int) -> Spool:
        """Where to keep a file of ``size`` bytes until it is sent.

        Of those that go to disk a few are there at a time; the others wait their turn.
        """
        if size <= IN_MEMORY:
            return Spool(size)
        self._slots.acquire()
        try:
            return Spool(size, self._slots.release)
        except BaseException:
            self._slots.release()
            raise

    def add(self, file: Spooled) -> None:
        """Send a file; a small one when there are more of them."""
        if file.spool.size > IN_MEMORY:
            self._send([file])
            return
        batch: list[Spooled] = []
        with self._lock:
            self._small.append(file)
            if len(self._small) >= _FILES or sum(f.spool.size for f in self._small) >= _BYTES:
                batch, self._small = self._small, []
        self._send(batch)

    def finish(self) -> Mapping[str, Addition]:
        """Send the rest; what can be committed, by path."""
        with self._lock:
            batch, self._small = self._small, []
        self._send(batch)
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
