"""Many processes that ensure one artifact at once, forked from one that has loaded everything.

The order is one line of JSON; each process answers with a file of its own in ``answers/``.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
import traceback
from contextlib import ExitStack
from pathlib import Path

from tieredstore.backends.local import LocalBackend
from tieredstore.backends.runpod import RunPodBackend
from tieredstore.backends.s3 import S3Backend
from tieredstore.errors import BuildFailed
from tieredstore.reporter import Reporter
from tieredstore.store import TieredStore
from tieredstore.testing import faults
from tieredstore.tiers.tier import Tier

FILES = {"a": b"a" * 300_000, "b/c": bytes(range(256)) * 40, "empty": b""}


class Short(S3Backend):
    lease_length = 4.0


class Waits(Reporter):
    def __init__(self, mark):
        self.said = []
        self.mark = mark

    def waits(self, wait):
        if wait.verb == "build":
            self.said.append(str(wait))
            self.mark("waiting")


class Process:
    def __init__(self, order, number):
        self.order, self.number = order, number
        self.root = Path(order["root"])
        self.waits = Waits(self.mark)

    def run(self):
        with ExitStack() as stack:
            if self.order["locks"] == "none":
                stack.enter_context(faults.no_flock())
            store = TieredStore(self.tiers(), self.waits)
            self.mark("ready")
            self.wait_for("go", 1)
            with store.ensure("set", self.build, {"v": 1}) as got:
                found = hashlib.sha256()
                for file in FILES:
                    with got.open(file) as opened:
                        found.update(opened.read())
        return {"bytes": found.hexdigest()}

    def tiers(self):
        locks = self.order["locks"]
        shared = locks in {"flock", "none"}  # of one node; else each on a node of its own
        first = Tier("local", LocalBackend(str(self.root / ("local" if shared else self.node))))
        if locks == "s3":
            return [first, Tier("far", Short(*self.order["s3"]), durable=True)]
        kind = LocalBackend if shared else RunPodBackend
        return [first, Tier("far", kind(str(self.root / "far")), durable=True)]

    @property
    def node(self):
        return f"node{self.number % self.order.get('nodes', self.order['count'])}"

    def build(self, stage):
        self.mark("build")
        stage.progress(1, 2, "half")
        for file, data in FILES.items():
            path = stage.path / file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        first = self.count("build") == 1
        if self.order["locks"] != "none":
            self.wait_for("waiting", self.order["count"] - 1)
        time.sleep(self.order["takes"])
        if first and self.order["how"] == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.order["how"] == "raises":
            raise ValueError("no such input: secret=hunter2")

    def mark(self, what):
        folder = self.root / what
        folder.mkdir(exist_ok=True)
        (folder / str(self.number)).touch()

    def count(self, what):
        folder = self.root / what
        return len(os.listdir(folder)) if folder.exists() else 0

    def wait_for(self, what, count):
        while self.count(what) < count:
            time.sleep(0.01)


def answer(order, number):
    process = Process(order, number)
    try:
        said = process.run()
    except BuildFailed as error:
        said = {"failed": error.why, "host": error.host, "pid": error.pid}
    except Exception:  # noqa: BLE001 - the test compares what it was
        said = {"raised": traceback.format_exc(limit=-3)}
    said["waits"] = process.waits.said[-1:]
    answers = process.root / "answers"
    answers.mkdir(exist_ok=True)
    (answers / f"{number}.json").write_text(json.dumps(said | {"own": os.getpid()}))


def main():
    order = json.loads(sys.argv[1])
    children = []
    for number in range(order["count"]):
        child = os.fork()
        if not child:
            answer(order, number)
            os._exit(0)
        children.append(child)
    ended = [os.waitpid(child, 0)[1] for child in children]
    sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status) for status in ended]))


if __name__ == "__main__":
    main()
