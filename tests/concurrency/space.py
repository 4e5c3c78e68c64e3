"""Many processes that want room in one small tier at once, and one that watches how full it gets.

Run with an order in JSON; the answer is one line of JSON. The processes are forks, so that they
begin within a millisecond of each other.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tieredstore.backends.local import LocalBackend
from tieredstore.errors import NoSpace
from tieredstore.limits import Space
from tieredstore.space.room import Need, room
from tieredstore.space.usage import Bytes
from tieredstore.store import TieredStore
from tieredstore.testing import faults
from tieredstore.tiers.tier import Tier

MIB = 1 << 20


def store_of(order):
    root = Path(order["root"])
    space = Space(order.get("max_size"), order.get("min_free"))
    local = Tier("local", LocalBackend(str(root / "local")), space=space)
    return TieredStore([local, Tier("vol", LocalBackend(str(root / "vol")), durable=True)])


# -- what each of the processes does -----------------------------------------------------------


def restore(order, name):
    """Restore; whole or refused, and nothing in between."""
    try:
        got = store_of(order).restore(name)
    except NoSpace as error:
        return f"no room: {error}"
    got.close()  # what is held open takes its room of the disk, also when it has been evicted
    return "restored"


def die_holding(order, name):
    """Reserve all that is there, and be killed."""
    store = store_of(order)
    need = Need("part/20260101t000000-0123456789abcdef", Bytes(order["size"], order["size"]))
    with room(store._chain, store.tiers[0], name, need):
        faults.die()


# -- and what is seen meanwhile ----------------------------------------------------------------


class Watch:
    """What a file system of its own says of itself: nothing else lies on it than the tier."""

    def __init__(self, root):
        self.place = root / "local"
        self.free, self.used = 1 << 62, 0

    def look(self):
        found = os.statvfs(self.place)
        self.free = min(self.free, found.f_bavail * found.f_frsize)
        self.used = max(self.used, (found.f_blocks - found.f_bfree) * found.f_frsize)


def forked(work, order, name):
    """One process; its number, and where its answer can be read."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    os.close(reading)
    answer = "failed"
    try:
        while time.time() < order["at"]:
            time.sleep(0.0005)
        answer = work(order, name)
    except BaseException as error:  # noqa: BLE001 - shown by the test
        answer = f"failed: {type(error).__name__}: {error}"
    os.write(writing, answer.encode()[:3000])
    os._exit(0)


def crowd(order):
    """All at once; what each of them answered, and the extremes that were seen."""
    order["at"] = time.time() + 0.05
    work = globals()[order["work"]]
    started = [forked(work, order, name) for name in order["names"]]
    watch, left, codes = Watch(Path(order["root"])), {pid for pid, _ in started}, []
    while left:
        watch.look()
        pid, code = os.waitpid(-1, os.WNOHANG)
        if pid:
            left.discard(pid)
            codes.append(code)
    answers = []
    for _, reading in started:
        with os.fdopen(reading) as file:
            answers.append(file.read())
    return {"answers": answers, "free": watch.free, "used": watch.used, "codes": codes}


def main():
    order = json.loads(sys.argv[1])
    with ExitStack() as stack:
        if order.get("no_flock"):
            stack.enter_context(faults.no_flock())
        sys.stdout.write(json.dumps(crowd(order)))


if __name__ == "__main__":
    main()
