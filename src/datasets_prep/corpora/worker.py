"""The process that makes shards and writes ranges of files, told what to do on its input.

``python -m datasets_prep.corpora.worker``. What comes on its input, pickled, are settings, which
count from then on, and tasks, one after the other; what goes out is ``("told", …)``,
``("done", result)`` or ``("failed", error)``. When its input ends, whoever started it is gone or
wants no more: it drops what it has staged, and ends.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import IO, Any, Final

from datasets_prep.corpora.shards import Setting
from datasets_prep.errors import PrepError, reason
from tieredstore import terminable

_PATIENCE: Final = 10.0  # seconds to drop what is staged
_TELL: Final = 0.25  # seconds between two things that are told
_MOMENT: Final = 0.01  # seconds


class _Out:
    """Writes what is said to whoever started this process."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sums = [0, 0, 0]
        self._said = 0.0

    def tell(self, documents: int, size: int, tokens: int) -> None:
        """So much more is done; said now and then."""
        for n, more in enumerate((documents, size, tokens)):
            self._sums[n] += more
        if time.monotonic() - self._said >= _TELL:
            self._flush()

    def end(self, kind: str, value: object) -> None:
        """A task is over."""
        self._flush()
        self._send((kind, value))

    def _flush(self) -> None:
        if any(self._sums):
            self._send(("told", tuple(self._sums)))
        self._sums = [0, 0, 0]
        self._said = time.monotonic()

    def _send(self, message: object) -> None:
        pickle.dump(message, self._file)
        self._file.flush()


def main() -> None:
    """Work until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C; whoever started us decides
    with terminable(signal.SIG_IGN):
        _work()


def _work() -> None:
    out = _Out(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    if "parquet" in sys.argv[1:]:
        import pyarrow.parquet  # noqa: F401 - while the plan is still being made
    tasks: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_read, args=(tasks,), daemon=True).start()
    setting: Setting | None = None
    while True:
        task = tasks.get()
        if isinstance(task, Setting):
            setting = task
            continue
        try:
            out.end("done", task.run(setting, out.tell))
        except Exception as error:  # noqa: BLE001 - raised by whoever gave the task
            out.end("failed", _sendable(error))


def _read(tasks: queue.Queue[Any]) -> None:
    with suppress(EOFError, OSError, pickle.UnpicklingError):
        while True:
            tasks.put(pickle.load(sys.stdin.buffer))  # noqa: S301 - of whoever started us
    _end()


def _end() -> None:
    """Send the signal until it has been heard: then it is ignored."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_MOMENT)
    os._exit(1)


def _sendable(error: Exception) -> Exception:
    """The error itself, where it arrives as it was sent."""
    with suppress(Exception):
        if str(pickle.loads(pickle.dumps(error))) == str(error):  # noqa: S301 - our own
            return error
    if isinstance(error, PrepError):
        return type(error)(str(error))
    if isinstance(error, OSError):
        return OSError(error.errno, reason(error)) if error.errno else OSError(reason(error))
    return PrepError(f"{type(error).__name__}: {reason(error)}")


if __name__ == "__main__":
    try:
        main()
    finally:
        os._exit(0)  # the thread that reads would keep the interpreter from ending
