"""Limits of a tier: what goes first, what never goes, and what is refused before bytes move."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

import tieredstore
from tieredstore import EvictRefused, NoSpace
from tieredstore.limits import Space
from tieredstore.mounted import small
from tieredstore.space.reservations import AREA

MIB = 1 << 20
DAY = 86400
ANOTHER = "0123456789ab.4711.99"  # a machine that is not this one, see alive.py


@pytest.fixture
def limited(world):
    """A store whose first tier may hold three artifacts of a MiB."""

    def made(*others, **space):
        chosen = Space(**(space or {"max_size": 3 * MIB}))
        return world.store(world.tier("first", space=chosen), *(others or ("volume",)))

    return made


def make(store, name, *, promoted=True):
    with store.create(name) as stage:
        (stage.path / "data").write_bytes(os.urandom(MIB))
    if promoted:
        store.promote(name)


def used(world, name, ago):
    """Set when an artifact was last used."""
    head = world.path("first") / name / ".tieredstore.json"
    os.utime(head, (time.time() - ago, head.stat().st_mtime))


def here(store):
    tier = store.tiers[0]
    return sorted(name for name in store.names() if tier.locate(name).head is not None)


# -- what goes first ---------------------------------------------------------------------------


def test_what_was_used_least_recently_goes_first_and_no_more_than_needed(world, limited):
    store = limited()
    for name in "abc":
        make(store, name)
    for name, ago in (("a", 2 * DAY), ("b", 9 * DAY), ("c", 5 * DAY)):
        used(world, name, ago)
    make(store, "d")
    assert here(store) == ["a", "c", "d"]
    assert world.told.of("evicted") == [("b", "first", MIB)]
    store.restore("b").close()
    assert here(store) == ["a", "b", "d"]
    assert [one.name for one in store.evictable(free=3 * MIB).gone] == ["a", "d", "b"]


def test_a_hit_is_a_use_and_a_look_is_none(world, limited):
    store = limited()
    for name in "ab":
        make(store, name)
        used(world, name, 2 * DAY)
    before = [one.used for one in store.evictable().gone]
    for look in (store.status, store.names, lambda: store.locate("a"), store.pins):
        look()
    store.evictable(free=3 * MIB)
    assert [one.used for one in store.evictable().gone] == before
    store.restore("a").close()
    assert [one.name for one in store.evictable().gone] == ["b", "a"]


def test_nothing_goes_where_all_of_it_would_not_be_enough(world, limited):
    store = limited()
    for name in "ab":
        make(store, name)
    store.pin("a", 60)
    with pytest.raises(NoSpace, match=r"max_size is 3\.1 MB.*kept: a: pinned until") as caught:
        with store.create("large") as stage:
            stage.reserve(3 * MIB)
    assert caught.value.missing == 2 * MIB
    assert caught.value.needed >= 3 * MIB
    assert here(store) == ["a", "b"]
    assert small_files(world) == []


# -- what never goes ---------------------------------------------------------------------------


def small_files(world):
    return list(small.names(world.tier("first").backend.mount, AREA))


@contextmanager
def pinned(store, world):
    store.pin("a", 60)
    yield
    assert store.unpin("a") == 1


@contextmanager
def leased(store, world):
    with store.tiers[0].backend.lease("a.promote", None, lambda _: None):
        yield


@contextmanager
def leased_below(store, world):
    with store.tiers[1].backend.lease("a.promote", None, lambda _: None):
        yield


@contextmanager
def held(store, world):
    with store.restore("a"):
        used(world, "a", 9 * DAY)
        yield


@contextmanager
def damaged(store, world):
    path = world.path("volume") / "a" / "data"
    data = bytearray(path.read_bytes())
    data[MIB // 2] ^= 1
    path.write_bytes(data)
    yield


@contextmanager
def partial(store, world):
    (world.path("volume") / "a" / ".tieredstore.partial").touch()
    yield


@contextmanager
def gone(store, world):
    found = store.tiers[1].locate("a")
    store.tiers[1].backend.remove(found.folder, found.head)
    yield


@contextmanager
def replaced(store, world):
    other = tieredstore.TieredStore([tieredstore.local_tier(world.path("other")), store.tiers[1]])
    with other.create("a") as stage:
        (stage.path / "data").write_bytes(b"another")
    other.promote("a", replace=True)
    yield


@contextmanager
def being_evicted(store, world):
    from tieredstore.manifest.artifact import digest128

    note = f"{digest128(b'a')}.{ANOTHER}.{'0' * 16}"
    small.put(store.tiers[1].backend.mount, "evict", note, b"volume")
    yield
    small.remove(store.tiers[1].backend.mount, "evict", note)


KEEPS = [
    (pinned, "pinned until"),
    (leased, "leased in 'first': a promote is under way"),
    (leased_below, "leased in 'volume': a promote is under way"),
    (held, "this process has it in use"),
    (damaged, "no verified copy elsewhere"),
    (partial, "only some of its files"),
    (gone, "volume: not this generation"),
    (replaced, "volume: not this generation"),
    (being_evicted, "another process is evicting it"),
]


@pytest.mark.parametrize(("kept", "why"), KEEPS, ids=[kept.__name__ for kept, _ in KEEPS])
def test_what_has_to_stay_stays(world, limited, kept, why, monkeypatch):
    monkeypatch.setattr("tieredstore.space.room._PATIENCE", 0.0)
    store = limited()
    for name in "abc":
        make(store, name)
        used(world, name, 9 * DAY if name == "a" else DAY)
    with kept(store, world):
        with store.create("d") as stage:
            stage.reserve(MIB)
            (stage.path / "data").write_bytes(os.urandom(MIB))
        assert "a" in here(store)
        assert len(here(store)) == 3
        assert os.path.exists(world.path("first") / "a" / "data")
        for name in set(here(store)) - {"a"}:
            store.pin(name, 60)
        with pytest.raises(NoSpace) as caught:
            with store.create("e") as stage:
                stage.reserve(MIB)
        assert why in str(caught.value)
        if kept is not held:
            with pytest.raises(EvictRefused, match="not dropped from 'first'"):
                store.evict("a")
    assert "a" in here(store)


def test_two_who_drop_the_last_copies_at_once_leave_one(world, create, files):
    """Where no lease keeps them apart: each leaves a note before it relies on the other's copy."""
    first, second = world.tier("first", durable=True), world.tier("second")
    store = world.store(first, second)
    create(store, "a", files)
    store.promote("a")
    program = (
        "import sys, time\n"
        "from tieredstore import EvictRefused, Tier, TieredStore\n"
        "from tieredstore.backends.local import LocalBackend\n"
        "from tieredstore.testing import faults\n"
        "tiers = [Tier(p, LocalBackend(p), durable=True) for p in sys.argv[1:3]]\n"
        "store = TieredStore(tiers)\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "with faults.no_flock():\n"
        "    try:\n"
        "        store.evict('a', sys.argv[3]); print('gone')\n"
        "    except (EvictRefused, FileNotFoundError): print('kept')\n"
    )
    places = [str(world.path("first")), str(world.path("second"))]
    for _ in range(3):
        started = [
            subprocess.Popen(
                [sys.executable, "-c", program, *places, place],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for place in places
        ]
        for process in started:
            assert process.stdout.readline() == "ready\n"
        for process in started:
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate(timeout=60)[0].strip() for process in started]
        assert said.count("gone") <= 1, said
        assert store.verify("a")[0].ok
        store.restore("a").close()
        store.promote("a", to="second")


# -- who reserves ------------------------------------------------------------------------------


def test_a_build_of_unknown_size_evicts_when_it_ends(world, limited):
    store = limited()
    for name in "abc":
        make(store, name)
    with store.create("d") as stage:
        (stage.path / "data").write_bytes(os.urandom(2 * MIB))
    assert here(store) == ["c", "d"]
    with store.create("e") as stage:
        (stage.path / "data").write_bytes(os.urandom(4 * MIB))  # more than there can be
    assert "e" in here(store)
    assert any("more than its limits allow" in why for _, why in world.told.of("skipped"))
    with pytest.raises(NoSpace), store.create("f"):
        pass


def test_files_that_are_put_in_one_by_one_make_way_when_all_are_there(world, limited):
    store = limited()
    for name in "abc":
        make(store, name)
        used(world, name, 9 * DAY if name == "b" else DAY)
    filling = store.fill("d", ["data"])
    written = filling.temporary("data")
    written.write_bytes(os.urandom(MIB))
    filling.put("data", written)
    assert here(store) == ["a", "c", "d"]


def test_a_tier_that_is_filled_on_the_way_keeps_to_its_limits(world, create, files):
    scratch = world.tier("second", durable=False, populate=True, space=Space(max_size=100_000))
    create(world.store("volume"), "name", files)
    store = world.store("first", scratch, "volume")
    got = store.restore("name")
    assert "no room in tier 'second'" in got.skipped["second"]
    assert store.locate("name")[1].state == "absent"


def test_a_promote_that_has_no_room_fails_before_bytes_move(world, create, files):
    volume = world.tier("volume", space=Space(max_size=100_000))
    store = world.store("first", volume)
    create(store, "name", files)
    with pytest.raises(tieredstore.PromoteFailed, match="no room in tier 'volume'"):
        store.promote("name")
    assert not (world.path("volume") / ".tieredstore" / "part").exists()


def test_parts_are_not_evicted_for_each_other(world, limited):
    store = limited("volume", max_size=5 * MIB)
    for name in ("p/1", "p/2"):
        make(store, name)
    for name in "abc":
        make(store, name)
    store.compose("whole.bin", ["p/1", "p/2"])
    assert {"p/1", "p/2", "whole.bin"} <= set(here(store))
    with pytest.raises(NoSpace, match="this process has it in use"):
        store.compose("again.bin", ["p/1", "p/2", "a", "b"])


def test_a_dry_run_changes_nothing(world, limited):
    store = limited()
    for name in "abc":
        make(store, name)
        used(world, name, 2 * DAY)
    store.pin("b", 60)

    def seen():
        found = {}
        for place in ("first", "volume"):
            for path in sorted(world.path(place).rglob("*")):
                stat = path.lstat()
                found[str(path)] = (stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
                if path.name == ".tieredstore.json":
                    found[str(path)] += (stat.st_atime_ns,)
        return found

    before = seen()
    plan = store.evictable(free=2 * MIB)
    assert [one.name for one in plan.gone] == ["a", "c"]
    assert plan.missing == 0
    assert [one.kept.partition(" until")[0] for one in plan.kept] == ["pinned"]
    assert store.why_kept("a") == ""
    assert seen() == before
    done = store.evict_unused(free=2 * MIB)
    assert [one.name for one in done.gone] == ["a", "c"]
    assert here(store) == ["b"]
