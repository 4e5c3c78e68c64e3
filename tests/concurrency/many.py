"""Many processes at once, forked from one that has loaded everything: 32 begin within a second.

Reads ``{"answers": folder, "orders": […]}`` and does each order of ``work.py`` in a process of its
own. Each leaves one file of JSON: what it answered, or what it raised.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import filelock  # noqa: F401 - loaded before the fork, once for all

sys.path.insert(0, str(Path(__file__).parent))

import work

PDEATHSIG = 1


def answer(order):
    try:
        return {"answer": work.run(order)}
    except BaseException as error:  # noqa: BLE001 - the test looks at it
        said = {"kind": type(error).__name__, "text": str(error)}
        with suppress(AttributeError):
            said["errno"] = error.errno
        return {"error": said, "trace": traceback.format_exc()}


def fork(order, file):
    pid = os.fork()
    if pid:
        return pid
    ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)  # nobody is left where the test was ended
    try:
        file.with_suffix(".part").write_text(json.dumps(answer(order)))
        file.with_suffix(".part").rename(file)
    finally:
        os._exit(0)


def main():
    asked = json.load(sys.stdin)
    folder = Path(asked["answers"])
    started = [fork(order, folder / f"{n}.json") for n, order in enumerate(asked["orders"])]
    for pid in started:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
