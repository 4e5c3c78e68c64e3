"""Reservations: what is kept free for bytes on their way, for how long, and counted once."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from tieredstore import NoSpace
from tieredstore.limits import Space
from tieredstore.mounted import alive, small
from tieredstore.space.reservations import AREA, Reservations, Reserved
from tieredstore.space.usage import Bytes

MIB = 1 << 20
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


def here(store):
    tier = store.tiers[0]
    return sorted(name for name in store.names() if tier.locate(name).head is not None)


def small_files(world):
    return list(small.names(world.tier("first").backend.mount, AREA))


def test_without_limits_and_with_room_nothing_is_written(world, create, files):
    store = world.store("first", "volume")
    create(store, "name", files)
    store.promote("name")
    store.evict("name")
    store.restore("name").close()
    assert not (world.path("first") / ".tieredstore" / "space").exists()
    assert not (world.path("volume") / ".tieredstore" / "space").exists()


def reserve(store, size, owner, length=30.0):
    """A reservation as another process would leave it."""
    stage = "part/20260101t000000-0123456789abcdef"
    reserved = Reserved(stage, Bytes(size, size), Bytes(), "elsewhere", 4711, True, length)
    name = f"20260101t000000-0123456789abcdef.{owner}.{'0' * 16}"
    mount = store.tiers[0].backend.mount
    small.put(mount, AREA, name, reserved.emit())
    return mount, name, reserved


def test_what_another_has_reserved_is_not_given_out(world, limited):
    store = limited()
    make(store, "a")
    reserve(store, 2 * MIB, alive.temporary("").rpartition(".")[0])
    with pytest.raises(NoSpace, match="1 others are being written"):
        with store.create("b") as stage:
            stage.reserve(2 * MIB)
    make(store, "b")  # in the place of a
    assert here(store) == ["b"]


def test_a_reservation_of_a_process_that_is_gone_does_not_count(world, limited):
    store = limited()
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    owner = alive.temporary("").split(".")[0]
    process.wait()
    reserve(store, 3 * MIB, f"{owner}.{process.pid}.12345")
    begun = time.monotonic()
    make(store, "a")
    assert time.monotonic() - begun < 10
    assert small_files(world) == []


def test_one_of_another_machine_counts_as_long_as_it_is_refreshed(world, limited):
    store = limited()
    mount, name, reserved = reserve(store, 3 * MIB, ANOTHER, length=1.0)
    over = threading.Event()

    def refresh():
        beat = 0
        while not over.wait(0.1):
            beat += 1
            small.put(
                mount,
                AREA,
                name,
                json.dumps({**json.loads(reserved.emit()), "beat": beat}).encode(),
            )

    thread = threading.Thread(target=refresh)
    thread.start()
    try:
        with pytest.raises(NoSpace), store.create("a") as stage:
            stage.reserve(MIB)
    finally:
        over.set()
        thread.join()
    seen = Reservations(mount)
    assert list(seen.standing()) == [name]
    begun = time.monotonic()
    with store.create("a") as stage:
        stage.reserve(MIB)
        (stage.path / "data").write_bytes(bytes(MIB))
    assert 0.9 < time.monotonic() - begun < 20
    assert small_files(world) == []


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[1]", b"\xff", b'{"stage": "../../etc/x-12345678"}']
)
def test_what_is_no_reservation_counts_nothing(limited, data):
    store = limited()
    small.put(store.tiers[0].backend.mount, AREA, f"x.{ANOTHER}.{'0' * 16}", data)
    make(store, "a")
    assert here(store) == ["a"]


def test_what_is_staged_already_is_not_counted_twice(world, limited):
    store = limited()
    mount = store.tiers[0].backend.mount
    stage = "part/20260101t000000-0123456789abcdef"
    folder = world.path("first") / ".tieredstore" / stage / "wip"
    folder.mkdir(parents=True)
    (folder / "data").write_bytes(bytes(MIB))
    reserved = Reserved(stage, Bytes(3 * MIB, 3 * MIB), Bytes(0, 4096), "", 0)
    assert reserved.left(mount) == Bytes(2 * MIB, 2 * MIB + 4096)
    with open(folder / "holes", "wb") as file:
        file.truncate(5 * MIB)  # what is not written yet takes no room
    assert reserved.left(mount).size == 2 * MIB


def test_one_that_cannot_be_taken_away_at_first_is_taken_away_later(world, limited, monkeypatch):
    store, failed, remove = limited(), [], small.remove

    def failing(mount, area, name):
        if area == AREA and not failed:
            failed.append(name)
            raise OSError(errno.EIO, "Input/output error", name)
        remove(mount, area, name)

    monkeypatch.setattr(small, "remove", failing)
    make(store, "a")
    assert failed
    until = time.monotonic() + 20
    while small_files(world):
        assert time.monotonic() < until
        time.sleep(0.05)
