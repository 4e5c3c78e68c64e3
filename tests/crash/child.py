"""The process that is killed: it waits for orders, and does each in a fork of itself.

Started by ``harness.py`` with ``operations.py`` or ``wild.py`` as its argument. An order is one
line of JSON naming an operation of that file, the tiers, and at which point to die; the answer is
one line with how the fork ended, what points it met and what it returned. Forking saves the
start-up, so that dying at every point in turn takes seconds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tieredstore import leases, store  # noqa: F401 - loaded before the forks
from tieredstore.mounted import beneath
from tieredstore.testing import faults
from tieredstore.testing.faults import Points
from tieredstore.verbs import restoring  # noqa: F401

FAULTS = {
    "none": faults.kill_before,
    "before": faults.kill_before,
    "after": faults.kill_after,
    "within": faults.kill_within,
}


DONE = "done"  # the mark in the trace of lossyfs.py: the operation has returned


@contextmanager
def syncs_told():
    """``syncfs`` tells lossyfs.py, to which the kernel does not pass it on."""
    real = beneath.syncfs

    def syncfs(fd):
        real(fd)
        os.setxattr(fd, "user.lossyfs.syncfs", b"1")

    beneath.syncfs = syncfs
    try:
        yield
    finally:
        beneath.syncfs = real


@contextmanager
def no_syncs():
    """Nothing is ever flushed."""
    real, beneath.syncfs = (os.fsync, beneath.syncfs), lambda _: None
    os.fsync = lambda _: None
    try:
        yield
    finally:
        os.fsync, beneath.syncfs = real


def load_operations(file):
    path = Path(__file__).with_name(file)
    spec = importlib.util.spec_from_file_location("crash_operations", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run(operations, order, out):
    points = Points(FAULTS[order["fault"]], order["at"])
    world = operations.World(order, points)
    with ExitStack() as stack:
        if order.get("no_exchange"):
            stack.enter_context(faults.no_exchange())
        if order.get("no_flock"):
            stack.enter_context(faults.no_flock())
        if order.get("traced"):
            stack.enter_context(no_syncs() if order["traced"] == "no syncs" else syncs_told())
        operation = getattr(operations, order["operation"])
        try:
            with points:
                result = operation(world)
            answer = {"result": result}
            if order.get("traced"):
                os.setxattr(order["root"], "user.lossyfs.mark", DONE.encode())
        except Exception as error:  # noqa: BLE001 - told to the harness
            answer = {"error": f"{type(error).__name__}: {error}"}
    answer["points"] = points.met
    answer["moved"] = world.moved
    os.write(out, json.dumps(answer).encode())


def main():
    operations = load_operations(sys.argv[1])
    if "--s3" in sys.argv:
        import s3fs  # noqa: F401
    import filelock  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            try:
                run(operations, order, theirs)
            finally:
                os._exit(0)
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            data = pipe.read()
        _, status = os.waitpid(pid, 0)
        answer = json.loads(data) if data else {}
        answer["killed"] = os.WIFSIGNALED(status)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
