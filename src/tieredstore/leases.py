"""Locks and leases on mounted places, from filelock, loaded only when somebody works.

They save work and never give correctness: whoever cannot have one goes on without.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from tieredstore.artifact import digest128
from tieredstore.errors import LeaseTimeout

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from tieredstore.backend import OnWait

LEASE_LENGTH: Final = 30.0  # seconds
_LONGEST: Final = 3600.0
_POLL: Final = 0.02
_TELL_EVERY: Final = 5.0


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
    return _held(FileLock(path, fallback_to_soft=False, thread_local=False), timeout, on_wait)


def soft_lease(
    folder: str, key: str, timeout: float | None, on_wait: OnWait
) -> AbstractContextManager[None]:
    """A marker file in ``folder`` that its holder refreshes: for mounts whose ``flock`` may lie.

    It is taken over when it has not been refreshed for the length that is recorded for the
    folder, as the contender's own clock measures it.
    """
    from filelock import SoftFileLease

    path = os.path.join(folder, lock_name(key))
    length = _recorded_length(folder)
    return _held(SoftFileLease(path, lease_duration=length, thread_local=False), timeout, on_wait)


def _recorded_length(folder: str) -> float:
    """The lease length all contenders of a folder agree on, recorded by the first of them."""
    path = os.path.join(folder, "length.json")
    temporary = f"{path}.{os.getpid()}.{time.monotonic_ns()}"
    with suppress(FileExistsError):
        if not os.path.exists(path):
            with open(temporary, "w", encoding="ascii") as file:
                json.dump({"seconds": LEASE_LENGTH}, file)
            try:
                os.rename(temporary, path)  # whole at once; all write the same default
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
    with suppress(OSError, ValueError, KeyError, TypeError):
        with open(path, encoding="ascii") as file:
            length = float(json.load(file)["seconds"])
        if 1.0 <= length <= _LONGEST:
            return length
    return LEASE_LENGTH


@contextmanager
def _held(lock: BaseFileLock, timeout: float | None, on_wait: OnWait) -> Iterator[None]:
    _acquire(lock, timeout, on_wait)
    try:
        yield
    finally:
        with suppress(OSError):
            lock.release()


def _acquire(lock: BaseFileLock, timeout: float | None, on_wait: OnWait) -> None:
    from filelock import Timeout

    since = time.monotonic()
    told = since - _TELL_EVERY + 1.0
    while True:
        waited = time.monotonic() - since
        left = _TELL_EVERY if timeout is None else min(_TELL_EVERY, timeout - waited)
        try:
            lock.acquire(timeout=max(left, 0.0), poll_interval=_POLL)
        except Timeout as error:
            if timeout is not None and time.monotonic() - since >= timeout:
                raise LeaseTimeout(
                    f"{lock.lock_file}: still held after {timeout:.0f} s by {_holder(lock)}; "
                    f"wait longer, or look for the process that holds it"
                ) from error
            if time.monotonic() - told >= _TELL_EVERY:
                told = time.monotonic()
                on_wait(_holder(lock))
        else:
            return


def _holder(lock: BaseFileLock) -> str:
    """Who holds it, in words; ``flock`` does not tell."""
    owner = getattr(lock, "owner", None)
    return "another process" if owner is None else f"process {owner.pid} on {owner.hostname}"
