"""One verb after the other, told to end at random moments; forked from one that has loaded all.

Half of the moments are a time, by which threads are met at work; the others are one of the main
thread's calls, by which what takes no time is met as well.

The order is one line of JSON, the answer another: what each process ended with, and what was left.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from functools import partial
from pathlib import Path

import numpy as np  # noqa: F401 - loaded once, not by each process
from filelock import FileLock, SoftFileLease  # noqa: F401 - likewise

import datasets_prep.cli
import tieredstore.cli
import tieredstore.putting
from datasets_prep import tokenizers  # noqa: F401 - likewise
from tieredstore import open_store, terminable

CONFIG = """
[[tier]]
name = "first"
backend = "local"
path = "first"
layout = "{name}"

[[tier]]
name = "vol"
backend = "runpod"
path = "vol"
layout = "{name}"
durable = true
"""
SIZE = 1_500_000
MOMENTS = {"call", "c_return"}  # where the interpreter looks for signals
TEXT = "To be, or not to be, that is the question:\n" * 4000


class Place:
    """Two tiers, an input, and how a verb is run, ended and looked at."""

    def __init__(self, root, verb):
        self.root, self.verb = root, verb
        self.config = root / "tieredstore.toml"
        self.area = {tier: root / tier / ".tieredstore" for tier in ("first", "vol")}
        lease = self.area["vol"] / "lease"
        lease.mkdir(parents=True)
        (lease / "length.json").write_text('{"seconds": 60}')  # who did not let go would be seen
        self.config.write_text(CONFIG)
        (root / "in").mkdir()
        for name in ("a", "b", "c"):
            (root / "in" / name).write_bytes(random.Random(name).randbytes(SIZE))
        (root / "input.txt").write_text(TEXT)

    # -- processes ------------------------------------------------------------------------------

    def fork(self, work):
        """Begin a process; it is about to work when this returns."""
        reading, writing = os.pipe()
        child = os.fork()
        if child:
            os.close(writing)
            os.read(reading, 1)
            os.close(reading)
            return child
        said = os.open(self.root / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.write(writing, b"x")
        code = 1
        try:
            code = work() or 0
        except SystemExit as end:
            code = end.code
        except KeyboardInterrupt:  # as a script ends in a shell
            code = 130
        except BaseException:  # noqa: BLE001 - the answer shows it
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def end(self, child):
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def do(self, work):
        """Do something in a process of its own, to its end."""
        code = self.end(self.fork(work))
        if code:
            raise RuntimeError(f"{self.verb}: {code}: {(self.root / 'said').read_text()}")

    def command(self, *args):
        return lambda: tieredstore.cli.run([*args, "--config", str(self.config)])

    # -- what is left ---------------------------------------------------------------------------

    def left(self):
        """Stages, leases, notes and reservations; parts are there to be resumed."""
        patterns = {
            "first": ["stage/*", "lease/*.note", "evict/*", "space/*", "reservations/*", "swap/*"],
            "vol": ["stage/*", "lease/*.lock", "lease/*.note", "evict/*", "space/*", "swap/*"],
        }
        found = [
            str(path.relative_to(self.root))
            for tier, ones in patterns.items()
            for one in ones
            for path in self.area[tier].glob(one)
        ]
        return [f for f in found if "/mark-" not in f and not f.endswith((".json", ".tmp"))]


class Verb:
    """A verb: what has to be there for it, the verb itself, and what must hold when it is done."""

    def __init__(self, place):
        self.place = place
        place.do(place.command("put", "set", str(place.root / "in")))
        place.do(place.command("promote", "set"))

    def before(self):
        pass

    def before_again(self):
        pass

    def run(self):
        return self.place.command(self.place.verb, "set")()

    def holds(self):
        store = open_store(self.place.config)
        assert all(v.ok for v in store.verify("set"))
        with store.restore("set") as got:
            for name in ("a", "b", "c"):
                assert (got.path / name).read_bytes() == (
                    self.place.root / "in" / name
                ).read_bytes()


class Put(Verb):
    def run(self):
        return self.place.command("put", "set", str(self.place.root / "in"))()


class Restore(Verb):
    def before(self):
        shutil.rmtree(self.place.root / "first/set", ignore_errors=True)


class Promote(Verb):
    def before(self):
        shutil.rmtree(self.place.root / "vol/set", ignore_errors=True)


class Evict(Verb):
    def before(self):
        self.place.do(self.place.command("restore", "set"))

    before_again = before  # it may be gone already


class Gc(Verb):
    def before(self):
        for number in range(60):
            stage = self.place.area["first"] / f"stage/20260101t000000-{number:016x}/files"
            stage.mkdir(parents=True, exist_ok=True)
            (stage / "a").write_text("left over")

    def run(self):
        return self.place.command("gc", "--older-than", "0s")()


class Ensure(Verb):
    def before(self):
        for tier in ("first", "vol"):
            shutil.rmtree(self.place.root / tier / "made", ignore_errors=True)

    def build(self, stage):
        for number in range(12):
            stage.progress(number, 12)
            (stage.path / f"{number}").write_bytes(bytes(200_000))
            time.sleep(0.01)

    def run(self):
        with terminable():
            open_store(self.place.config).ensure("made", self.build)


class Prepare(Verb):
    def run(self):
        source = ["--source", str(self.place.root / "input.txt"), "--tokenizer", "char"]
        config = ["--config", str(self.place.config)]
        return datasets_prep.cli.run(["prepare", "shakespeare", "--force", *source, *config])

    def holds(self):
        store = open_store(self.place.config)
        assert all(v.ok for v in store.verify("shakespeare"))


class Flush(Verb):
    def before(self):
        shutil.rmtree(self.place.root / "vol/set", ignore_errors=True)
        self.place.do(self.place.command("promote", "set", "--queue"))

    def run(self):
        return self.place.command("flush", "set")()

    def holds(self):
        assert open_store(self.place.config).queued() == []
        super().holds()


VERBS = {
    "put": Put,
    "restore": Restore,
    "promote": Promote,
    "verify": Verb,
    "evict": Evict,
    "gc": Gc,
    "ensure": Ensure,
    "prepare": Prepare,
    "flush": Flush,
}


def clean_run(place, verb):
    verb.before()
    began = time.monotonic()
    place.do(verb.run)
    return time.monotonic() - began


def all_calls(place, verb):
    """How many calls the main thread makes."""
    count, file = itertools.count(), place.root / "calls"

    def look(_frame, event, _argument):
        if event in MOMENTS:
            next(count)

    def run():
        sys.setprofile(look)
        code = verb.run()
        sys.setprofile(None)
        file.write_text(str(next(count)))
        return code

    verb.before()
    place.do(run)
    return int(file.read_text())


def signalled_at(number, how, verb):
    """Run it; the process tells itself to end at that call."""
    left = itertools.count(number, -1)

    def look(_frame, event, _argument):
        if event in MOMENTS and not next(left):
            sys.setprofile(None)
            os.kill(os.getpid(), how)

    sys.setprofile(look)
    return verb.run()


def signalled_after(seconds, how, place, verb):
    """Begin it, and tell it to end after so long."""
    child = place.fork(verb.run)
    time.sleep(seconds)
    os.kill(child, how)
    return child


def main():
    order = json.loads(sys.argv[1])
    root = Path(order["root"])
    os.chdir(root)
    chance = random.Random(order["verb"])
    place = Place(root, order["verb"])
    verb = VERBS[order["verb"]](place)
    takes = min(clean_run(place, verb) for _ in range(2))
    calls = all_calls(place, verb)
    rounds = []
    for number in range(order["times"]):
        how = signal.SIGINT if number % 8 in {3, 6} else signal.SIGTERM
        verb.before()
        if number % 2:
            child = signalled_after(chance.uniform(0, 1.1) * takes, how, place, verb)
        else:
            child = place.fork(partial(signalled_at, chance.randrange(calls), how, verb))
        since = time.monotonic()
        code = place.end(child)
        ended = time.monotonic() - since
        said = (root / "said").read_text()
        left = place.left() if order["verb"] != "gc" else []
        verb.before_again()
        place.do(verb.run)
        if number % 5 == 0 or left:
            place.do(verb.holds)
        rounds.append({"how": how, "code": code, "left": left, "said": said, "ended": ended})
    place.do(verb.holds)
    sys.stdout.write(json.dumps({"takes": takes, "rounds": rounds}))


if __name__ == "__main__":
    main()
