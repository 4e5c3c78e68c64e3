"""Nodes that all restore one artifact from S3 at once, over a scratch that they share.

Forked from one process that has loaded everything. Each writes a line of JSON to a file of its
own; those that are killed write none.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import botocore.session  # noqa: F401 - loaded before the fork, once for all
import filelock  # noqa: F401
import obstore.store  # noqa: F401

from tieredstore.backends.local import LocalBackend
from tieredstore.backends.runpod import RunPodBackend
from tieredstore.backends.s3 import S3Backend
from tieredstore.reporter import Reporter
from tieredstore.store import TieredStore
from tieredstore.tiers.tier import Tier

PDEATHSIG = 1
BACKENDS = {"local": LocalBackend, "runpod": RunPodBackend}


class Filling(Reporter):
    """Leaves a file when this process begins to fill the scratch."""

    def __init__(self, note):
        self._note = Path(note)

    def started(self, verb, name, size):
        if verb == "populate":
            self._note.touch()


def store_of(order):
    scratch = BACKENDS[order["kind"]](order["scratch"])
    s3 = S3Backend(order["url"], order["endpoint"])
    return TieredStore(
        [
            Tier("local", LocalBackend(order["local"])),
            Tier("scratch", scratch, populate=True),
            Tier("s3", s3, durable=True),
        ],
        reporter=Filling(order["filling"]),
    )


def restore(order):
    while not Path(order["go"]).exists():
        time.sleep(0.005)
    got = store_of(order).restore("set")
    sizes = {}
    for file in order["files"]:
        with got.open(file) as opened:
            sizes[file] = len(opened.read())
    return {"source": got.source, "skipped": dict(got.skipped), "sizes": sizes}


def main():
    for order in json.load(sys.stdin):
        if os.fork():
            continue
        ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)  # as the test is ended
        answer = Path(order["answer"])
        Path(order["pid"]).write_text(str(os.getpid()))
        try:
            said = restore(order)
        except BaseException:  # noqa: BLE001 - the test shows it
            said = {"error": traceback.format_exc()}
        answer.with_suffix(".part").write_text(json.dumps(said))
        answer.with_suffix(".part").rename(answer)
        os._exit(0)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    main()
