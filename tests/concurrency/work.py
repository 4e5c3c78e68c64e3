"""What one of several processes does, in a process of its own; the answer is one line of JSON.

Every file's bytes follow from a number that the whole generation shares, so that a mixture of two
generations shows in what was read, however it came about.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tieredstore.backends.local import LocalBackend
from tieredstore.backends.runpod import RunPodBackend
from tieredstore.errors import ArtifactChanged, ArtifactNotFound
from tieredstore.store import TieredStore
from tieredstore.testing import faults
from tieredstore.tiers.tier import Tier

FILES = {"a": 5000, "b/c": 7, "d": 2_500_000}
ONE = {"one": 300_000}


def content(number, file):
    seed = hashlib.sha256(f"{number}/{file}".encode()).digest()
    size = (FILES | ONE)[file]
    return (f"{number:09d}".encode() + seed * (size // len(seed) + 1))[: max(size, 9)]


def number_of(data):
    return int(data[:9])


class Work:
    def __init__(self, order):
        self.order = order
        FILES.update(order.get("files_of", {}))
        self.root = Path(order["root"])
        self.store = TieredStore(self.tiers())

    def tiers(self):
        """A first tier and what lies below; paths that are absolute may be on a network mount."""
        below = RunPodBackend if self.order.get("below") == "runpod" else LocalBackend
        first = LocalBackend(str(self.root / self.order.get("local", "local")))
        vol = self.root / self.order.get("vol", "vol")
        vol.mkdir(exist_ok=True)
        return [Tier("local", first), Tier("vol", below(str(vol)), durable=True)]

    def note(self, what):
        """Say something outside the store: one file for each time it happened."""
        folder = self.root / "notes"
        folder.mkdir(exist_ok=True)
        (folder / f"{what}-{os.getpid()}-{time.monotonic_ns()}").touch()

    def write(self, stage, number, files=tuple(FILES)):
        for file in files:
            path = stage.path / file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content(number, file))

    def build(self, stage):
        self.note("build")
        time.sleep(self.order.get("takes", 0.0))
        self.write(stage, os.getpid())
        if self.order.get("dies"):
            faults.die()

    def check(self, got, files=tuple(FILES)):
        """Read files through the held generation: they are whole, and of one generation."""
        numbers = set()
        for file in files:
            with got.open(file) as opened:
                data = opened.read()
            number = number_of(data)
            assert data == content(number, file), f"{file} is of no generation"
            numbers.add(number)
        assert len(numbers) == 1, f"a mixture of {numbers}"
        got.close()
        return numbers.pop()

    # -- what is ordered ------------------------------------------------------------------------

    def ensure(self):
        self.wait_for("go")
        return self.check(self.store.ensure("set", self.build, recipe={"v": 1}))

    def wait_for(self, name):
        while not (self.root / name).exists():
            time.sleep(0.002)

    def replace(self):
        for number in range(1, self.order["times"] + 1):
            with self.store.create("set", recipe={"v": 1}) as stage:
                self.write(stage, number)
        (self.root / "done").touch()
        return self.order["times"]

    def read(self):
        """Read in a loop until told that it is over; what was seen."""
        seen, reads, changed, last = set(), 0, 0, 0
        while not (self.root / "done").exists() or not reads:
            try:
                number = self.check(self.store.restore("set"))
            except ArtifactChanged:
                changed += 1  # replaced in place: said so, nothing mixed was handed out
                continue
            assert number >= last, f"{number} was read after {last}"
            last, reads = number, reads + 1
            seen.add(number)
        return {"reads": reads, "seen": len(seen), "changed": changed, "last": last}

    def keep_reading(self):
        """Hold one generation, and read it again and again while it is being replaced."""
        got = self.store.restore("set")
        (self.root / "held").touch()
        numbers = set()
        while not (self.root / "done").exists():
            for file in FILES:
                with got.open(file) as opened:
                    data = opened.read()
                assert data == content(number_of(data), file)
                numbers.add(number_of(data))
        assert len(numbers) == 1, f"got.open gave {numbers}"
        return numbers.pop()

    def make(self):
        with self.store.create("set", recipe={"v": 1}) as stage:
            self.write(stage, self.order.get("number", 0))
        if self.order.get("foreign"):
            (self.root / self.order.get("local", "local") / "set" / "prepare.py").write_text("mine")
        return "made"

    def put_below(self):
        self.make()
        self.store.promote("set")
        self.store.evict("set")
        return "below"

    def promote(self):
        self.wait_for("go")
        return [o.action for o in self.store.promote("set", replace=True)]

    def restore(self):
        self.wait_for("go")
        files = self.order.get("files")
        got = self.store.restore("set", files=files)
        return self.check(got, files or tuple(FILES))

    def evict_local(self):
        return self.store.evict("set")

    def restore_again_and_again(self):
        reads = 0
        while not (self.root / "done").exists() or not reads:
            got = self.store.restore("set")
            self.check(got)
            head = self.store.tiers[0].locate("set").head
            self.store.tiers[0].backend.remove("set", head)
            reads += 1
        return reads

    def replace_below(self):
        """Replace the lower tier's copy again and again, from a first tier of another node."""
        for number in range(1, self.order["times"] + 1):
            with self.store.create("set", recipe={"v": 1}) as stage:
                self.write(stage, number)
            self.store.promote("set")
        (self.root / "done").touch()
        return "done"

    # -- on two mounts of one file system --------------------------------------------------------

    def make_and_promote(self):
        self.make()
        self.store.promote("set")
        return self.order["number"]

    def make_own(self):
        self.order["number"] = os.getpid()
        return self.make()

    def make_file(self):
        with self.store.create_file("logs/one", recipe={"v": 1}) as stage:
            stage.file.write_bytes(content(self.order["number"], "one"))
        return self.order["number"]

    def replace_file(self):
        for number in range(1, self.order["times"] + 1):
            self.order["number"] = number
            self.make_file()
        (self.root / "done").touch()
        return self.order["times"]

    def replace_and_promote(self):
        """Replace again and again, promote each where that is ordered, and say that it is over.

        The first, the second and the last generation stay until somebody has read them: on a busy
        machine nobody may come by between two replacements.
        """
        last = self.order["times"]
        for number in range(1, last + 1):
            if number <= 2:
                self.wait_for(f"seen-{number - 1}")
            with self.store.create("set", recipe={"v": 1}) as stage:
                self.write(stage, number)
            if self.order["forget"]:
                self.store.promote("set")
        self.wait_for(f"seen-{last}")
        (self.root / "done").touch()
        return last

    def read_what_comes(self):
        """Read until it is over: whole generations, each restored anew where that is ordered."""
        seen = []
        reads = changed = 0
        while not (self.root / "done").exists() or not reads:
            try:
                with self.store.restore(self.order.get("name", "set")) as got:
                    number = self.check(got, self.order.get("files") or tuple(FILES))
            except ArtifactChanged:
                changed += 1  # replaced in place, or by path: said so, nothing mixed
                time.sleep(self.order["pause"])
                continue
            reads += 1
            if not seen or seen[-1] != number:
                seen.append(number)
                (self.root / f"seen-{number}").touch()
            if self.order["forget"]:
                tier = self.store.tiers[0]
                tier.backend.remove("set", tier.locate("set").head)
            time.sleep(self.order["pause"])
        return {"reads": reads, "seen": seen, "changed": changed}

    def verify(self):
        return {v.tier: v.ok for v in self.store.verify("set")}

    def missing(self):
        try:
            self.store.restore("set")
        except ArtifactNotFound:
            return True
        return False


def run(order):
    """Do what is ordered, with the faults that are ordered."""
    with ExitStack() as stack:
        if order.get("no_flock"):
            stack.enter_context(faults.no_flock())
        if order.get("no_exchange"):
            stack.enter_context(faults.no_exchange())
        return getattr(Work(order), order["function"])()


def main():
    sys.stdout.write(json.dumps(run(json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
