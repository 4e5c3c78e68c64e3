"""Whether locks on a mounted place exclude other processes: flock, fcntl's, exclusive creation.

Each check works in the current folder, with a process of its own on the other side.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tieredstore.doctor.finding import GOOD, NOTE, Check, Finding

_ROUNDS: Final = 20
_HELD: Final = frozenset({errno.EAGAIN, errno.EACCES})
_NONE: Final = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL})
WON, LOST, NO_LOCKS, OTHER = 0, 1, 2, 3


def checks() -> list[Check]:
    """All of them."""
    return [
        Check("flock", lambda: _lock("flock", try_flock)),
        Check("fcntl locks", lambda: _lock("fcntl locks", try_fcntl)),
        Check("O_EXCL", _exclusive),
    ]


def in_another_process(action: Callable[[], int]) -> int:
    """What ``action`` gives in a process of its own."""
    child = os.fork()
    if child == 0:
        code = OTHER
        with suppress(BaseException):
            code = action()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def try_flock(file: int) -> int:
    """Lock a whole file, without a wait."""
    return _tried(lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB))


def try_fcntl(file: int) -> int:
    """Lock a whole file as POSIX has it, without a wait."""
    return _tried(lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB))


def _tried(lock: Callable[[], None]) -> int:
    try:
        lock()
    except OSError as error:
        return LOST if error.errno in _HELD else NO_LOCKS if error.errno in _NONE else OTHER
    return WON


def _lock(name: str, lock: Callable[[int], int]) -> Finding:
    """Hold a lock here, and have another process try: while it is held, and after."""
    path = name.replace(" ", "-")

    def other() -> int:
        return lock(os.open(path, os.O_RDWR))

    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if lock(file) != WON:
            return Finding(name, "not supported", _meaning(name), NOTE, False)
        second = in_another_process(other)
    finally:
        os.close(file)
    freed = in_another_process(other)
    if second == LOST and freed == WON:
        return Finding(name, "excludes another process here", "", GOOD, True)
    result = "does not exclude" if second == WON else "stays held after its holder let go"
    return Finding(name, result, _meaning(name), NOTE, False)


def _meaning(name: str) -> str:
    if name != "flock":
        return "the store does not use them"
    return "processes do work twice that one could do; what is published is whole all the same"


def _exclusive() -> Finding:
    """Two processes make the same file: one of them does."""
    wins = 0
    for number in range(_ROUNDS):
        path = f"exclusive-{number}"

        def make(path: str = path) -> int:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except FileExistsError:
                return LOST
            return WON

        child = os.fork()
        if child == 0:
            code = OTHER
            with suppress(BaseException):
                code = make()
            os._exit(code)
        here = make()
        there = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        wins += (here, there).count(WON) == 1
    if wins == _ROUNDS:
        result = f"one of two makes a file, {_ROUNDS} of {_ROUNDS} times"
        return Finding("O_EXCL", result, "", GOOD, True)
    meaning = "two processes may both believe that they were first"
    return Finding("O_EXCL", f"one winner in {wins} of {_ROUNDS} rounds", meaning, NOTE, False)
