"""SIGTERM and Ctrl-C end the work in order: stages are dropped and leases let go on the way out.

SLURM before it preempts a job, and a platform before it stops a pod, send SIGTERM and some
seconds later SIGKILL. Nothing here is done at import, and no handler is put in place unasked.
"""

from __future__ import annotations

import signal
import threading
import time
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
    listener = _Listener()
    try:
        listener.begin()
        yield
    finally:
        listener.end()


class _Listener:
    """Raises what the first signal means, once, in the main thread."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._later: int | None = None  # the signal that came while an object was finalized
        self._over = False
        self._lock = threading.RLock()  # a handler can be interrupted by itself

    def begin(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                with suppress(ValueError):  # not in the main thread
                    self._before[number] = signal.signal(number, self._hear)

    def end(self) -> None:
        with self._lock:
            missed = None if self._over else self._later
            self._over = True
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if missed is not None:
            signal.raise_signal(missed)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if _finalizing(frame):
            if self._later is None:
                self._later = number
                threading.Thread(target=self._repeat, args=(number,), daemon=True).start()
            return
        with self._lock:
            if self._over:
                return
            self._over = True
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        if number == signal.SIGTERM:
            raise Terminated
        raise KeyboardInterrupt

    def _repeat(self, number: int) -> None:
        """Send the signal until it has been heard.

        Once would not do: what comes between the interpreter's last look for signals and a call
        that waits does not end that call.
        """
        main = threading.main_thread().ident
        while main is not None:
            time.sleep(_MOMENT)
            with self._lock:
                if self._over:
                    return
                signal.pthread_kill(main, number)


def _finalizing(frame: FrameType | None) -> bool:
    """Whether an object is just being finalized: what is raised there is printed, and lost."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None
