"""SIGTERM and Ctrl-C end the work in order: stages are dropped and leases let go on the way out.

SLURM before it preempts a job, and a platform before it stops a pod, send SIGTERM and some
seconds later SIGKILL. Nothing here is done at import, and no handler is put in place unasked.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final

from tieredstore.interrupting import should_wait

_MOMENT: Final = 0.01  # seconds
_PATIENCE: Final = 1.0  # seconds that a signal waits at most for a moment that suits


class Terminated(SystemExit):
    """SIGTERM came; a process that does not catch this ends with the status 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextmanager
def terminable(second: signal.Handlers = signal.SIG_DFL) -> Iterator[None]:
    """End the block in order on SIGTERM or Ctrl-C; a second signal ends the process at once.

    SIGTERM raises `Terminated`, Ctrl-C `KeyboardInterrupt`, both in the main thread: ``with``
    blocks are left, so stages are dropped and leases let go, and the process ends with 143 or 130
    where nobody catches it. Without this, SIGTERM ends a Python process where it stands: nothing
    is damaged, but leases of marker files and in buckets have to run out first.

    A signal waits, for a second at most, while a ``with`` block is being left and while an object
    is finalized. One that the process ignores stays ignored. Outside the main thread this does
    nothing.

    Parameters
    ----------
    second : signal.Handlers
        What a second signal does: ``SIG_IGN`` for a process that another one would kill.
    """
    listener = _Listener(second)
    try:
        listener.begin()
        yield
    finally:
        listener.end()


class _Listener:
    """Raises what the first signal means, once, in the main thread."""

    def __init__(self, second: signal.Handlers) -> None:
        self._second = second
        self._before: dict[int, Any] = {}
        self._hook = sys.unraisablehook
        self._waits: int | None = None  # the signal
        self._until = 0.0
        self._heard = self._sent = 0  # signals; those that are sent again
        self._over = False
        self._lock = threading.RLock()  # a handler can be interrupted by itself

    def begin(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                with suppress(ValueError):  # not in the main thread
                    self._before[number] = signal.signal(number, self._hear)
        if self._before:
            sys.unraisablehook = self._lost

    def end(self) -> None:
        with self._lock:
            missed = None if self._over else self._waits
            self._over = True
        if self._before:
            sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if missed is not None:
            raise _meant(missed)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard += 1
        again = self._second is signal.SIG_DFL and self._heard > self._sent + 1
        if not again and should_wait(frame) and self._may_wait(number):
            return
        with self._lock:
            if self._over:
                return
            self._over = True
        for each in self._before:
            signal.signal(each, self._second)
        if again:
            signal.raise_signal(number)
        raise _meant(number)

    def _may_wait(self, number: int) -> bool:
        if self._waits is None:
            self._wait(number)
        return time.monotonic() < self._until

    def _wait(self, number: int) -> None:
        self._waits, self._until = number, time.monotonic() + _PATIENCE
        threading.Thread(target=self._repeat, args=(number,), daemon=True).start()

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
                self._sent += 1
                signal.pthread_kill(main, number)

    def _lost(self, what: Any) -> None:
        """Hear of an error that cannot be raised; the signal comes again where that was its own."""
        at = what.exc_traceback
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        if at is None or at.tb_frame.f_code is not _Listener._hear.__code__:
            self._hook(what)
            return
        for each in self._before:
            signal.signal(each, self._hear)
        with self._lock:
            self._over = False
        self._heard, self._sent = 1, 0
        self._wait(signal.SIGTERM if issubclass(what.exc_type, Terminated) else signal.SIGINT)


def _meant(number: int) -> BaseException:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
