"""The process that makes chunks on one GPU, told what to do by lines of JSON on its input.

``python worker.py`` runs it; it needs nothing but the standard library, so that it starts at once.
It runs a command for each chunk, or calls a function that stays loaded from one to the next. What
either prints goes to the chunk's log. When its input ends, whoever started it is gone: it ends
too, at once, with everything that it has started.

A task is ``{"folder", "log", "start", "end", "gpu", "command" or "callable", "environment",
"cwd"}``, the answer ``{"code": 0}`` or ``{"code", "error"}``.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True, slots=True)
class Task:
    """What a callable is told of the chunk that it makes.

    Attributes
    ----------
    start, end : int
        The first and the last item.
    folder : Path
        Where its files go.
    gpu : str
        The GPU; empty where there is none.
    """

    start: int
    end: int
    folder: Path
    gpu: str


class Worker:
    """Does one task after the other; keeps what a callable has loaded."""

    def __init__(self) -> None:
        self._loaded: dict[str, Callable[[Any], object]] = {}

    def answer(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do a task."""
        os.environ.update(order["environment"])  # of the command, or of the callable
        with open(order["log"], "ab", buffering=0) as log:
            try:
                if order.get("command"):
                    return self._run(order, log)
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                self._call(order)
            except SystemExit as error:
                return {"code": 1, "error": f"SystemExit: {error.code}"}
            except Exception as error:  # noqa: BLE001 - told to whoever asked, with its traceback
                log.write(traceback.format_exc().encode())
                return {"code": 1, "error": f"{type(error).__name__}: {error}"}
            finally:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
        return {"code": 0}

    def _run(self, order: dict[str, Any], log: IO[bytes]) -> dict[str, Any]:
        try:
            process = subprocess.Popen(  # noqa: S603 - what its user asked for
                order["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=order["cwd"],
            )
        except OSError as error:
            return {"code": 127, "error": f"{order['command'][0]}: {error.strerror or error}"}
        code = process.wait()
        if code < 0:
            return {"code": 128 - code, "error": f"ended by {signal.Signals(-code).name}"}
        return {"code": code, "error": f"exit status {code}" if code else ""}

    def _call(self, order: dict[str, Any]) -> None:
        name = order["callable"]
        if name not in self._loaded:
            self._loaded[name] = _loaded(name)
        work = self._loaded[name]
        work(Task(order["start"], order["end"], Path(order["folder"]), order["gpu"]))


def _loaded(reference: str) -> Callable[[Any], object]:
    """The function of that name; a class is made once, and its object is called."""
    module, _, name = reference.rpartition(":")
    if module.endswith(".py"):
        path = Path(module)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{module}: cannot be imported")
        found: Any = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = found
        sys.path.insert(0, str(path.resolve().parent))
        spec.loader.exec_module(found)
    else:
        sys.path.insert(0, "")
        found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    made: Callable[[Any], object] = found() if isinstance(found, type) else found
    return made


def _read(tasks: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        tasks.put(json.loads(line))
    # Whoever gave the orders is gone, or has given this process up.
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Answer one task after the other, until the input ends.

    SIGTERM to the group is for the command that runs; this process stays to say how it ended.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # no SIG_IGN: a command would inherit that
    answers = os.fdopen(os.dup(1), "w")  # the work's own output goes to its log
    tasks: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read, args=(tasks,), daemon=True).start()
    worker = Worker()
    while True:
        answers.write(json.dumps(worker.answer(tasks.get())) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
