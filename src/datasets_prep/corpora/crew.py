"""Processes that work side by side, each on one task at a time; see ``worker.py``."""

from __future__ import annotations

import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol, Self

from datasets_prep.corpora.shards import Setting
from datasets_prep.corpora.telling import Tell
from datasets_prep.errors import PrepError

_PATIENCE: Final = 15.0  # seconds that a process has to drop what it has staged


class Task(Protocol):
    """What a process does; picklable."""

    def run(self, setting: Setting, tell: Tell) -> Any:
        """Do it, there."""


class Crew:
    """Some processes, started at once, used in a ``with`` statement.

    Parameters
    ----------
    count : int
        How many.
    load : str
        What they load before they know what to do: ``parquet``, or nothing.
    """

    def __init__(self, count: int, load: str = "") -> None:
        words = [sys.executable, "-P", "-m", "datasets_prep.corpora.worker", *load.split()]
        self._processes = [
            subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
            for _ in range(count)
        ]

    def brief(self, setting: Setting) -> None:
        """Tell all what the tasks have in common that they are given from now on."""
        data = pickle.dumps(setting)
        for process in self._processes:
            _send(process, data)

    def do(self, tasks: Iterable[Task], tell: Tell) -> Iterator[tuple[int, Any]]:
        """Have tasks done, which are asked for one by one.

        Yields
        ------
        (int, object)
            A task's place in the sequence and its result, as they are done.

        Raises
        ------
        PrepError
            When a process ends before its work is done.
        Exception
            What a task raised.
        """
        waiting = _Waiting(tasks)
        said: queue.Queue[tuple[str, int, Any]] = queue.Queue()
        for process in self._processes:
            work = partial(_work, process, waiting, said.put)
            threading.Thread(target=work, daemon=True).start()
        working = len(self._processes)
        while working:
            kind, number, value = said.get()
            if kind == "told":
                tell(*value)
            elif kind == "done":
                yield number, value
            elif kind == "failed":
                raise value
            else:
                working -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()


class _Waiting:
    """Tasks that nobody has taken yet; asked by several threads."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = enumerate(tasks)
        self._lock = threading.Lock()

    def take(self) -> tuple[int, Task | None]:
        with self._lock:
            return next(self._tasks, (-1, None))


def _work(
    process: subprocess.Popen[bytes], waiting: _Waiting, say: Callable[[tuple[str, int, Any]], None]
) -> None:
    """Have one process do what is waiting, until nothing is."""
    number = -1
    try:
        while True:
            number, task = waiting.take()
            if task is None:
                say(("ended", number, None))
                return
            _send(process, pickle.dumps(task))
            while (answer := _answer(process))[0] == "told":
                say(("told", number, answer[1]))
            say((answer[0], number, answer[1]))
    except BaseException as error:  # noqa: BLE001 - raised where it is waited for
        say(("failed", number, error))


def _send(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Send one message; from any thread, as a buffered file writes each as a whole."""
    assert process.stdin is not None
    try:
        process.stdin.write(data)
        process.stdin.flush()
    except OSError:
        raise _ended(process) from None


def _answer(process: subprocess.Popen[bytes]) -> tuple[str, Any]:
    assert process.stdout is not None
    try:
        kind, value = pickle.load(process.stdout)  # noqa: S301 - of a process of ours
    except (EOFError, OSError, pickle.UnpicklingError):
        raise _ended(process) from None
    return kind, value


def _ended(process: subprocess.Popen[bytes]) -> PrepError:
    code = process.wait()
    how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    return PrepError(
        f"a working process ended ({how}); what was done is kept: run the command again, with a "
        f"smaller --num-proc where memory is short"
    )
