"""The last free bytes of a tier: however many want them at once, they are given out once.

On small file systems of their own, with locks that work and with locks that lie.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tieredstore.backends.local import LocalBackend
from tieredstore.store import TieredStore
from tieredstore.tiers.tier import Tier

WORK = Path(__file__).with_name("space.py")
LOCKS = pytest.mark.parametrize("no_flock", [False, True], ids=["flock", "no-flock"])
MIB = 1 << 20
ROUNDS = int(os.environ.get("TIEREDSTORE_TEST_SPACE", "1"))


def content(name, size):
    return (name.encode() * (size // len(name) + 1))[:size]


class Small:
    """A first tier on a small file system, and a durable tier with artifacts."""

    def __init__(self, root):
        self.root = root
        self.vol = Tier("vol", LocalBackend(str(root / "vol")), durable=True)
        self.local = Tier("local", LocalBackend(str(root / "local")))

    def have(self, names, size):
        for name in names:
            with TieredStore([self.vol]).create(name) as stage:
                (stage.path / "data").write_bytes(content(name, size))

    def empty(self):
        """Take away what was restored, each of it whole."""
        store = TieredStore([self.local, self.vol])
        for name in [name for name in store.names() if self.local.locate(name).head]:
            assert all(found.ok for found in store.verify(name))
            found = self.local.locate(name)
            self.local.backend.remove(found.folder, found.head)

    def crowd(self, work, names, **order):
        order = {"root": str(self.root), "work": work, "names": names, **order}
        done = subprocess.run(
            [sys.executable, str(WORK), json.dumps(order)],
            stdout=subprocess.PIPE,
            text=True,
            timeout=100,
            check=True,
        )
        return json.loads(done.stdout)

    def own(self, area):
        folder = self.root / "local" / ".tieredstore" / area
        return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def small(root):
    """A small tmpfs; its size is asked for."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    local = root / "local"
    local.mkdir()

    def made(size):
        options = f"size={size}"
        kind = ["mount", "-t", "tmpfs", "-o", options, "none", str(local)]
        done = subprocess.run(kind, capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
        return Small(root)

    yield made
    subprocess.run(["umount", "-l", str(local)], capture_output=True, check=False)


@LOCKS
def test_two_restores_never_both_take_the_last_bytes(small, no_flock):
    place = small(8 * MIB)
    place.have(["one", "two"], 5 * MIB)
    for _ in range(ROUNDS):
        done = place.crowd("restore", ["one", "two"], no_flock=no_flock)
        answers = sorted(answer.partition(":")[0] for answer in done["answers"])
        assert answers == ["no room", "restored"], done
        assert any("MB missing" in answer for answer in done["answers"])
        assert place.own("space") == []
        assert place.own("part") == []  # refused before a byte was moved
        place.empty()


@LOCKS
@pytest.mark.parametrize("limits", [{"max_size": 10 * MIB}, {"min_free": 14 * MIB}], ids=str)
def test_sixteen_keep_to_the_limits_while_they_evict_for_each_other(small, limits, no_flock):
    place = small(24 * MIB)
    names = [f"set{n:02}" for n in range(16)]
    place.have(names, 2 * MIB - 70_000)
    for _ in range(ROUNDS):
        done = place.crowd("restore", names, no_flock=no_flock, **limits)
        kinds = [answer.partition(":")[0] for answer in done["answers"]]
        assert set(kinds) <= {"restored", "no room"}, done["answers"]
        assert kinds.count("restored") >= 5
        assert done["free"] >= limits.get("min_free", 0)
        assert done["used"] <= limits.get("max_size", 24 * MIB) + MIB  # heads, leases and the like
        assert place.own("space") == []
    place.empty()


@LOCKS
def test_sixteen_that_restore_the_same_need_room_for_one(small, no_flock):
    place = small(8 * MIB)
    place.have(["set"], 5 * MIB)
    for _ in range(ROUNDS):
        done = place.crowd("restore", ["set"] * 16, no_flock=no_flock)
        assert set(done["answers"]) == {"restored"}, "\n".join(done["answers"])
        assert done["used"] <= 6 * MIB
        place.empty()


@LOCKS
def test_what_a_killed_process_had_reserved_is_free_at_once(small, no_flock):
    place = small(8 * MIB)
    place.have(["set"], 5 * MIB)
    killed = place.crowd("die_holding", ["other"], size=6 * MIB, no_flock=no_flock)
    assert killed["codes"] == [9]
    assert len(place.own("space")) == 1
    done = place.crowd("restore", ["set"], no_flock=no_flock)
    assert done["answers"] == ["restored"]
    assert place.own("space") == []
