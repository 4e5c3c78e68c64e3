"""SIGTERM and Ctrl-C end the work in order: stages are dropped and leases let go on the way out.

SLURM before it preempts a job, and a platform before it stops a pod, send SIGTERM and some
seconds later SIGKILL. Nothing here is done at import, and no handler is put in place unasked.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final

_MOMENT: Final = 0.01  # seconds


class Terminated(SystemExit):
    """SIGTERM came; a process that does not catch this ends with the status 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextmanager
def terminable() -> Iterator[None]:
    """End the block in order on SIGTERM or Ctrl-C; a second signal ends the process at once.

    SIGTERM raises `Terminated`, Ctrl-C `KeyboardInterrupt`, both in the main thread: ``with``
    blocks are left, so stages are dropped and leases let go, and the process ends with 143 or 130
    where nobody catches it. Without this, SIGTERM ends a Python process where it stands: nothing
    is damaged, but leases of marker files and in buckets have to run out first.

    A signal that the process ignores stays ignored. Outside the main thread this does nothing.
    """
    before: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            with suppress(ValueError):  # not in the main thread
                before[number] = signal.signal(number, _stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    if _finalizing(frame):
        again = threading.Timer(_MOMENT, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    for each in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(each) is _stop:
            signal.signal(each, signal.SIG_DFL)
    if number == signal.SIGTERM:
        raise Terminated
    raise KeyboardInterrupt


def _finalizing(frame: FrameType | None) -> bool:
    """Whether an object is just being finalized: what is raised there is printed, and lost."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None
