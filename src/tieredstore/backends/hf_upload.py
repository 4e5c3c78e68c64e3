"""Files on their way to the Hub: spooled ones are asked about, sent where large, kept where small.

Sending goes on in threads of its own while the next files are read: a file may be much larger than
what can be sent in the time that one write may take. What has been sent stays with the Hub, which
says so when it is asked again: a promote that was killed sends the rest.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tieredstore.backends.hf_api import HubApi
from tieredstore.backends.hf_large import Sender, Spooled

_THREADS: Final = 8
_FILES: Final = 64  # small files that are asked about at once
_BYTES: Final = 4 << 20  # bytes of small files that are sent by one thread
_WAITING: Final = 64 << 20  # bytes waiting to be sent; writers are held up when there are more
_HELD_UP: Final = 20.0  # seconds that one write is held up at most, well below its deadline
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
    """All files of one staging."""

    def __init__(self, api: HubApi) -> None:
        self._api = api
        self._sender = Sender(api)
        self._state = threading.Condition()
        self._queue: deque[list[Spooled]] = deque()
        self._small: list[Spooled] = []
        self._waiting = 0
        self._threads = 0
        self._regular = 0
        self._error: BaseException | None = None
        self._done: dict[str, Addition] = {}

    def hold_up(self) -> None:
        """Wait a while where too much waits to be sent already.

        Raises
        ------
        OSError
            When something could not be sent.
        """
        with self._state:
            self._state.wait_for(lambda: self._waiting < _WAITING or self._error, _HELD_UP)
            self._raise()

    def add(self, file: Spooled) -> None:
        """Send a file, soon."""
        with self._state:
            self._raise()
            self._waiting += file.spool.size
            if file.spool.size > _BYTES // 4:
                self._push([file])
                return
            self._small.append(file)
            if len(self._small) >= _FILES or sum(f.spool.size for f in self._small) >= _BYTES:
                self._push(self._small)
                self._small = []

    def finish(self) -> Mapping[str, Addition]:
        """Wait until all is sent; what can be committed, by path."""
        with self._state:
            if self._small:
                self._push(self._small)
                self._small = []
            self._state.wait_for(lambda: self._error or not (self._queue or self._threads))
            self._raise()
            return dict(self._done)

    def drop(self) -> None:
        """Forget what waits."""
        with self._state:
            waiting, self._queue = [*self._queue, self._small], deque()
            self._small, self._waiting = [], 0
            self._done.clear()
        for batch in waiting:
            for file in batch:
                file.spool.close()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _push(self, batch: list[Spooled]) -> None:
        self._queue.append(batch)
        if self._threads < _THREADS:
            self._threads += 1
            threading.Thread(target=self._work, name="tieredstore-hub", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._state:
                if not self._queue or self._error:
                    self._threads -= 1
                    self._state.notify_all()
                    return
                batch = self._queue.popleft()
                self._waiting -= sum(f.spool.size for f in batch)
                self._state.notify_all()
            try:
                sent = self._send(batch)
                with self._state:
                    self._done.update({a.path: a for a in sent})
            except BaseException as error:  # noqa: BLE001 - raised by who writes or publishes
                with self._state:
                    self._error = self._error or error
            finally:
                for file in batch:
                    file.spool.close()

    def _send(self, batch: Sequence[Spooled]) -> list[Addition]:
        asked = [f.asked() for f in batch if f.spool.size]
        modes = self._api.modes(asked) if asked else {}
        regular, large = [], []
        for file in batch:
            wanted = modes.get(file.path, "regular") != "lfs"
            if wanted and self._room_for(file.spool.size):
                content = file.spool.read(0, file.spool.size)
                regular.append(Addition(file.path, file.spool.size, content=content))
            else:
                large.append(replace(file, forced=wanted))
        if large:
            self._sender.send(large)
        sent = [Addition(f.path, f.spool.size, f.spool.sha256) for f in large]
        return regular + sent

    def _room_for(self, size: int) -> bool:
        """Whether a file may be an ordinary one; an empty file cannot be a large one."""
        with self._state:
            if size and (size > MAX_REGULAR or self._regular + size > _ALL_REGULAR):
                return False
            self._regular += size
            return True
