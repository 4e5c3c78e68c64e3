"""Locks and leases on mounted places, from filelock, loaded only when somebody works.

They save work and never give correctness: whoever cannot have one goes on without.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tieredstore.errors import LeaseTimeout
from tieredstore.manifest.artifact import digest128
from tieredstore.mounted.alive import temporary

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from tieredstore.backend import OnWait

LEASE_LENGTH: Final = 30.0  # seconds
_LONGEST: Final = 3600.0
_POLL: Final = 0.02  # seconds between two looks; those who have waited long look less often
_LOOKS: Final = 20  # in as long as somebody has waited already
_FLOCK_POLL: Final = 0.1  # at most; a look is one call of the system
_MARKER_POLL: Final = 0.5  # at most; a look reads a file, perhaps over the network
_LOOK_EVERY: Final = 1.0
_TELL_EVERY: Final = 5.0
_NAMELESS: Final = 3.0  # seconds that a marker may be without its holder's name
_NAMING: Final = 0.05  # seconds that another needs at most, as good as ever, to write its name


def lock_name(key: str) -> str:
    """A file name for the lease ``key``: readable, and distinct for every key."""
    readable = "".join(c if c.isalnum() or c in "-_" else "_" for c in key)[-80:]
    return f"{readable}-{digest128(key.encode())[:12]}.lock"


def note_name(key: str) -> str:
    """A file name for the note beside the lease ``key``."""
    return f"{lock_name(key)}.note"


def file_lock(
    folder: str, key: str, timeout: float | None, on_wait: OnWait
) -> AbstractContextManager[None]:
    """An ``flock`` in ``folder``: freed by the kernel when its holder dies.

    Raises
    ------
    LeaseTimeout
        When it was not free in time.
    OSError
        Where the file system has no locks, or the folder cannot be written.
    """
    from filelock import FileLock

    path = os.path.join(folder, lock_name(key))
    lock = FileLock(path, fallback_to_soft=False, thread_local=False)
    return _held(_Contender(lock, _FLOCK_POLL), timeout, on_wait)


def soft_lease(
    folder: str, key: str, timeout: float | None, on_wait: OnWait
) -> AbstractContextManager[None]:
    """A marker file in ``folder`` that its holder refreshes: for mounts whose ``flock`` may lie.

    It is taken over when it has not been refreshed for the length that is recorded for the
    folder, as the contender's own clock measures it; and soon where it names nobody: whoever made
    it was killed just then, or it is left from an ``flock`` of the same name.
    """
    from filelock import SoftFileLease

    path = os.path.join(folder, lock_name(key))
    length = _recorded_length(folder)
    lock = SoftFileLease(path, lease_duration=length, thread_local=False)
    return _held(_MarkerContender(lock, _MARKER_POLL), timeout, on_wait)


def _recorded_length(folder: str) -> float:
    """The lease length all contenders of a folder agree on, recorded by the first of them."""
    path = os.path.join(folder, "length.json")
    written = temporary(f"{path}.")
    with suppress(FileExistsError):
        if not os.path.exists(path):
            with open(written, "w", encoding="ascii") as file:
                json.dump({"seconds": LEASE_LENGTH}, file)
            try:
                os.rename(written, path)  # whole at once; all write the same default
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(written)
    with suppress(OSError, ValueError, KeyError, TypeError):
        with open(path, encoding="ascii") as file:
            length = float(json.load(file)["seconds"])
        if 1.0 <= length <= _LONGEST:
            return length
    return LEASE_LENGTH


@dataclass(slots=True)
class _Contender:
    lock: BaseFileLock
    slowest: float
    trying: bool = False  # stays so where it is interrupted

    def acquire(self, seconds: float, waited: float) -> bool:
        """Try for a while; who has waited for longer looks less often."""
        from filelock import Timeout

        poll = min(max(waited / _LOOKS, _POLL), self.slowest)
        # The lock would make its folder: a volume that is gone would seem to be there again.
        os.stat(os.path.dirname(self.lock.lock_file))
        self.trying = True
        try:
            self.lock.acquire(timeout=max(seconds, 0.0), poll_interval=poll)
        except Timeout:
            self.trying = False
            return False
        self.trying = False
        return True

    def let_go(self) -> None:
        """Let go of it, where it is held."""
        with suppress(OSError):
            self.lock.release()

    @property
    def holder(self) -> str:
        """Who holds it, in words; ``flock`` does not tell."""
        owner = getattr(self.lock, "owner", None)
        return "another process" if owner is None else f"process {owner.pid} on {owner.hostname}"


@dataclass(slots=True)
class _MarkerContender(_Contender):
    nameless: tuple[int, int] | None = None  # a marker that was seen without a name
    since: float = 0.0

    def acquire(self, seconds: float, waited: float) -> bool:
        if _Contender.acquire(self, seconds, waited):
            return True
        now, found = time.monotonic(), self._nameless()
        if found is None or found != self.nameless:
            self.nameless, self.since = found, now
        elif now - self.since >= _NAMELESS:
            with suppress(OSError):
                os.unlink(self.lock.lock_file)
        return False

    def let_go(self) -> None:
        """Let go of it; a marker that an interrupted call has made is not known to the lock."""
        _Contender.let_go(self)
        found = self._nameless() if self.trying else None
        if found is not None:
            time.sleep(_NAMING)
            if found == self._nameless():
                with suppress(OSError):
                    os.unlink(self.lock.lock_file)

    def _nameless(self) -> tuple[int, int] | None:
        with suppress(OSError):
            found = os.lstat(self.lock.lock_file)
            if found.st_size == 0:
                return found.st_ino, found.st_ctime_ns
        return None


@contextmanager
def _held(contender: _Contender, timeout: float | None, on_wait: OnWait) -> Iterator[None]:
    try:  # from here on: who is interrupted right after it was given a lease lets go of it too
        _acquire(contender, timeout, on_wait)
        yield
    finally:
        try:
            contender.let_go()
        except BaseException:  # who is interrupted right here lets go all the same
            contender.let_go()
            raise


def _acquire(contender: _Contender, timeout: float | None, on_wait: OnWait) -> None:
    since = time.monotonic()
    told = since - _TELL_EVERY + 1.0
    look = min(_LOOK_EVERY, _TELL_EVERY)
    while True:
        waited = time.monotonic() - since
        if contender.acquire(look if timeout is None else min(look, timeout - waited), waited):
            return
        now = time.monotonic()
        if timeout is not None and now - since >= timeout:
            raise LeaseTimeout(
                f"{contender.lock.lock_file}: still held after {timeout:.0f} s by "
                f"{contender.holder}; wait longer, or look for the process that holds it"
            )
        if now - told >= _TELL_EVERY:
            told = now
            on_wait(contender.holder)
