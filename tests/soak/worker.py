"""One of the processes of the soak: random operations on shared tiers until it is told to stop.

Its argument is one JSON object: where the tiers are, its number, the node that it runs on. Errors
that the library raises on purpose are counted and passed over, because tiers fail all the time;
anything else, and any wrong byte, is a finding, written to ``findings``. What it has promoted of
the artifact that only it writes is written to ``promised``; ``soak.py`` looks for it in the end.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

import samples  # in tests/crash

from tieredstore.backends.local import LocalBackend
from tieredstore.backends.runpod import RunPodBackend
from tieredstore.backends.s3 import S3Backend
from tieredstore.errors import PromoteFailed, TieredStoreError
from tieredstore.store import TieredStore
from tieredstore.tiers.tier import Tier

SHARED = ("shared/a", "shared/b", "shared/c")
BUILT = tuple(f"built/{n}" for n in range(4))
DEADLINE = 5.0  # seconds, of the tiers that fail
S3Backend.lease_length = 2.0


def own(number):
    """The artifact that only one worker writes."""
    return f"own/{number}"


class Worker:
    def __init__(self, order):
        self.root, self.number = Path(order["root"]), order["number"]
        self.random, self.made = random.Random(f"{order['number']} {os.getpid()}"), 0
        self.stop, self.workers = self.root / "stop", order["workers"]
        first = LocalBackend(str(self.root / f"node{order['node']}"))
        tiers = [Tier("first", first)]
        vol = RunPodBackend(str(self.root / "vol"))
        tiers.append(Tier("vol", vol, durable=True, populate=True, deadline=DEADLINE))
        if order["small"]:
            small = RunPodBackend(str(self.root / "small"))
            tiers.append(Tier("small", small, durable=True, deadline=DEADLINE))
        far = S3Backend("s3://soak/p", order["url"])
        tiers.append(Tier("far", far, durable=True, deadline=DEADLINE))
        self.store = TieredStore(tiers)
        self.names = [*SHARED, *BUILT, *(own(n) for n in range(self.workers))]

    def run(self):
        done = failed = 0
        self.count(done, failed)
        while not self.stop.exists():
            verb = self.random.choices(list(VERBS), list(VERBS.values()))[0]
            try:
                getattr(self, verb)()
            except TieredStoreError as error:
                failed += 1
                self.note("errors", verb=verb, kind=error.kind, why=str(error)[:300])
            except BaseException:  # noqa: BLE001 - whatever it is, it is a finding
                self.note("findings", verb=verb, why=traceback.format_exc())
            done += 1
            self.count(done, failed)

    def count(self, done, failed):
        (self.root / f"count-{os.getpid()}").write_text(f"{done} {failed}")

    def note(self, file, **what):
        line = json.dumps({"at": time.time(), "worker": self.number, **what})
        with open(self.root / file, "ab", buffering=0) as out:
            out.write(line.encode() + b"\n")

    def tag(self):
        self.made += 1
        return f"{self.number}.{time.monotonic_ns():020d}"

    def write(self, stage, name, tag):
        for path, data in samples.files(name, tag).items():
            (stage.path / path).parent.mkdir(parents=True, exist_ok=True)
            (stage.path / path).write_bytes(data)

    def check(self, got, name, wanted=None):
        with got:
            tag = got.recipe.options["tag"]
            for path, data in samples.files(name, tag).items():
                if wanted is None or path in wanted:
                    with got.open(path) as file:
                        assert file.read() == data, f"{name}: {path} is not of {tag}"

    # -- what it does -----------------------------------------------------------------------------

    def create(self):
        self._create(self.random.choice(SHARED), self.tag())

    def _create(self, name, tag):
        with self.store.create(name, recipe=_recipe(tag)) as stage:
            self.write(stage, name, tag)

    def create_own(self):
        """Create and promote what nobody else writes, and remember where it has arrived."""
        name, tag = own(self.number), self.tag()
        self._create(name, tag)
        self.note("promised", name=name, tag=tag, tiers=[])
        try:
            outcomes = self.store.promote(name, replace=True)
        except PromoteFailed as error:
            outcomes = error.outcomes
        there = [o.tier for o in outcomes if o.action in {"copied", "present"}]
        self.note("promised", name=name, tag=tag, tiers=there)

    def promote(self):
        self.store.promote(self.random.choice(SHARED), replace=True)

    def restore(self):
        name = self.random.choice(self.names)
        self.check(self.store.restore(name), name)

    def restore_some(self):
        name = self.random.choice(self.names)
        self.check(self.store.restore(name, files=[samples.TAG]), name, [samples.TAG])

    def stream(self):
        name = self.random.choice(self.names)
        with self.store.open_stream(name, samples.TAG) as file:
            tag = file.read().decode()
        assert samples.files(name, tag)[samples.TAG] == tag.encode()

    def ensure(self):
        name = self.random.choice(BUILT)
        tag = f"the one {name}"
        got = self.store.ensure(name, lambda stage: self.write(stage, name, tag), _recipe(tag))
        self.check(got, name)

    def evict(self):
        self.store.evict(self.random.choice(self.names), self.random.choice(self.evictable()))

    def evictable(self):
        return [t.name for t in self.store.tiers[:-1] for _ in range(1 if t.durable else 3)]

    def verify(self):
        self.store.verify(self.random.choice(self.names))

    def repair(self):
        self.store.repair([self.random.choice(self.names)])

    def collect(self):
        self.store.collect(grace=60.0)

    def names_known(self):
        self.store.names()


def _recipe(tag):
    return {"preparer": "soak", "options": {"tag": tag}}


VERBS = {
    "create": 4,
    "create_own": 4,
    "promote": 4,
    "restore": 10,
    "restore_some": 4,
    "stream": 4,
    "ensure": 4,
    "evict": 5,
    "verify": 1,
    "repair": 1,
    "collect": 0.3,
    "names_known": 0.5,
}

if __name__ == "__main__":
    samples.FOLDERS = ()  # names are the soak's own: all are folders
    samples.SINGLES = ()
    Worker(json.loads(sys.argv[1])).run()
