"""Pins: how long they last, by which clock, and that in doubt a copy stays pinned."""

from __future__ import annotations

import json
import os
import time

import pytest

from tieredstore import InvalidName, TierUnavailable, Unsupported
from tieredstore.mounted import small
from tieredstore.space.pins import AREA, DOUBT


@pytest.fixture
def store(world, create, files):
    store = world.store("first", "volume")
    create(store, "a", files)
    store.promote("a")
    return store


def rewritten(store, mtime=None, **changes):
    """Change what the one pin says, as if it had been made elsewhere or at another time."""
    mount = store.tiers[0].backend.mount
    [name] = small.names(mount, AREA)
    body = json.loads(small.read(mount, AREA, name, 1 << 20))
    small.put(mount, AREA, name, json.dumps({**body, **changes}).encode())
    if mtime is not None:
        os.utime(mount.area_path(AREA, name), (mtime, mtime))


ELSEWHERE = {"system": "another machine, or before this one was restarted", "seconds": 1.0}


def test_a_pin_ends_by_itself(store):
    made = store.pin("a", 0.5)
    assert store.pins() == [made]
    assert (made.tier, made.length) == ("first", 0.5)
    assert store.why_kept("a").startswith("pinned until ")
    time.sleep(0.6)
    assert store.pins() == []
    assert store.evict("a") > 0


def test_pins_of_several_each_count(store):
    store.pin("a", 60)
    store.pin("a", 3600)
    store.pin("another", 60)
    assert [one.name for one in store.pins()] == ["a", "another", "a"]
    assert store.unpin("a") == 2
    assert store.unpin("a") == 0
    assert [one.name for one in store.pins()] == ["another"]


def test_a_clock_that_is_set_ends_no_pin_of_this_machine(store):
    store.pin("a", 60)
    rewritten(store, created=time.time() - 10 * DOUBT, mtime=time.time() - 10 * DOUBT)
    assert len(store.pins()) == 1  # by the time since it was started, it has just been made


@pytest.mark.parametrize(
    ("created", "written", "stands"),
    [
        (0, 0, True),
        (-DOUBT, -DOUBT, True),  # over, unless a clock is an hour off
        (-DOUBT - 70, -DOUBT - 70, False),
        (-DOUBT - 70, 0, True),  # its author's clock was behind: its file says so
        (0, -DOUBT - 70, True),
        (10 * DOUBT, -2 * DOUBT, True),  # its author's clock is far ahead
    ],
)
def test_a_pin_of_another_machine_lasts_until_both_clocks_agree(store, created, written, stands):
    store.pin("a", 60)
    now = time.time()
    rewritten(store, created=now + created, mtime=now + written, ticking=ELSEWHERE)
    assert bool(store.pins()) == stands


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b"\xff\x00", b'{"length": 1e400}', b'{"name": "../x"}'], ids=repr
)
def test_a_pin_that_cannot_be_read_lasts_until_it_is_taken_away(store, data):
    store.pin("a", 0.01)
    mount = store.tiers[0].backend.mount
    [name] = small.names(mount, AREA)
    small.put(mount, AREA, name, data)
    assert name in store.why_kept("a")
    assert store.why_kept("b") == "absent"
    assert len(store.pins()) == 1
    assert store.unpin("b") == 0
    assert store.unpin("a") == 1
    assert store.pins() == []


def test_a_pin_that_says_another_name_than_its_file_keeps_that_of_its_file(store):
    store.pin("a", 60)
    rewritten(store, name="b")
    assert "pinned" in store.why_kept("a")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e13])
def test_no_length_is_refused(store, seconds):
    with pytest.raises(InvalidName, match="positive number"):
        store.pin("a", seconds)


def test_where_there_are_no_pins(world, store):
    with pytest.raises(Unsupported, match="keeps no pins"):
        world.store("first", "remote").pin("a", 60, "remote")
    closed = world.store(world.tier("first", read_only=True))
    with pytest.raises(TierUnavailable, match="read-only"):
        closed.pin("a", 60)
    assert closed.pins() == []
