"""A restore that has to evict first, killed at one step after the other; each in a fork of its own.

Run with a folder and a number: each so-many-th step. The answer is one line of JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from tieredstore.backends.local import LocalBackend
from tieredstore.limits import Space
from tieredstore.store import TieredStore
from tieredstore.testing import faults
from tieredstore.tiers.tier import Tier

MIB = 1 << 20
SIZE = MIB - 50_000  # two of them fit


def store_at(root):
    local = Tier("local", LocalBackend(str(root / "local")), space=Space(max_size=2 * MIB))
    return TieredStore([local, Tier("vol", LocalBackend(str(root / "vol")), durable=True)])


def prepared(root):
    with_all = TieredStore([store_at(root).tiers[1]])
    for name in "abc":
        with with_all.create(name) as stage:
            (stage.path / "data").write_bytes(name.encode() * SIZE)
    for name in "ab":
        store_at(root).restore(name).close()


def killed_at(root, step):
    pid = os.fork()
    if not pid:
        with faults.Points(faults.kill_before, step):
            store_at(root).restore("c").close()
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def problems(root):
    """What is not as it has to be after the kill, and after the next restore."""
    store = store_at(root)
    found = [f"{name}: {v}" for name in "abc" for v in store.verify(name) if v.damaged]
    found += [name for name in "abc" if store.locate(name)[1].state != "whole"]
    with store.restore("c") as got, got.open("data") as file:
        if file.read() != b"c" * SIZE:
            found.append("other bytes than were published")
    if store.used().size > 2 * MIB:
        found.append(f"{store.used()}")
    store.collect(["local"], 0.0)  # what the killed one has left is known, and counts nowhere
    mount = store.tiers[0].backend.mount
    return found + os.listdir(mount.area_path("space")) + os.listdir(mount.area_path("evict"))


def main():
    base, each = Path(sys.argv[1]), int(sys.argv[2])
    prepared(base / "begin")
    shutil.copytree(base / "begin", base / "dry")
    with faults.Points(faults.kill_before) as points:
        store_at(base / "dry").restore("c").close()
    killed, bad = 0, []
    for step in range(1, len(points.met) + 1, each):
        root = base / str(step)
        shutil.copytree(base / "begin", root)
        killed += killed_at(root, step) != 0
        bad += [f"{step}, {points.met[step - 1]}: {problem}" for problem in problems(root)]
        shutil.rmtree(root)
    sys.stdout.write(json.dumps({"steps": len(points.met), "killed": killed, "bad": bad}))


if __name__ == "__main__":
    main()
