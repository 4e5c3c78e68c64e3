"""`promote` to several tiers: at once, each by itself, told in their order."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from tieredstore import PromoteFailed
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.backends.local import LocalBackend
from tieredstore.testing import faults
from tieredstore.tiers.tier import Tier

RECIPE = {"preparer": "test"}


class Steps:
    """What each target does when it is begun with; they have to be there at the same time."""

    def __init__(self, count):
        self.barrier = threading.Barrier(count)

    def __call__(self, call):
        if call == "begin":
            self.barrier.wait(10)


def targets(world, count, on_call):
    return [
        Tier(
            f"t{n}",
            faults.FaultyBackend(LocalBackend(str(world.root / f"t{n}")), on_call),
            durable=True,
            deadline=5.0,
        )
        for n in range(count)
    ]


def test_several_tiers_are_promoted_to_at_the_same_time(world, create, files):
    tiers = targets(world, 3, Steps(3))
    store = world.store("first", *tiers)
    create(store, "name", files, RECIPE)
    outcomes = store.promote("name")  # each waits for the others before it begins
    assert [(o.tier, o.action) for o in outcomes] == [(f"t{n}", "copied") for n in range(3)]
    assert all(v.ok for v in store.verify("name"))


def test_no_more_than_four_at_the_same_time(world, create, files):
    lock, now, most = threading.Lock(), set(), []

    def on_call(call):
        if call == "begin":
            with lock:
                now.add(threading.get_ident())
                most.append(len(now))
            time.sleep(0.05)
            with lock:
                now.discard(threading.get_ident())

    store = world.store("first", *targets(world, 7, on_call))
    create(store, "name", files, RECIPE)
    assert [o.tier for o in store.promote("name")] == [f"t{n}" for n in range(7)]
    assert 1 < max(most) <= 4


def test_outcomes_and_what_is_told_stand_in_the_order_of_the_targets(world, create, files):
    slow = replace(
        world.tier("second"),
        backend=faults.FaultyBackend(LocalBackend(str(world.path("second"))), faults.slow(0.05)),
    )
    store = world.store("first", "volume", slow, "remote")
    create(store, "name", files, RECIPE)
    for order in (["second", "remote", "volume"], ["volume", "volume", "second"]):
        world.told.calls.clear()
        outcomes = store.promote("name", to=order)
        expected = list(dict.fromkeys(order))
        assert [o.tier for o in outcomes] == expected
        assert [tier for _, tier, *_ in world.told.of("promoted")] == expected


def test_one_that_hangs_delays_the_others_by_nothing(world, create, files):
    released, begun = threading.Event(), time.monotonic()
    done: dict[str, float] = {}

    class Watched(FsspecBackend):
        def put(self, key, data, expected):
            super().put(key, data, expected)
            done["remote"] = time.monotonic() - begun

    hangs = LocalBackend(str(world.path("second")))
    hanging = faults.FaultyBackend(hangs, faults.hanging(released, frozenset({"begin"})))
    store = world.store(
        "first",
        Tier("second", hanging, durable=True, deadline=2.0),
        Tier("remote", Watched(world.remote), durable=True),
        "volume",
    )
    create(store, "name", files, RECIPE)
    with pytest.raises(PromoteFailed) as caught:
        store.promote("name")
    assert time.monotonic() - begun < 30
    released.set()
    assert done["remote"] < 2
    assert [(o.tier, o.action) for o in caught.value.outcomes] == [
        ("second", "failed"),
        ("remote", "copied"),
        ("volume", "copied"),
    ]
    assert caught.value.outcomes[0].detail == "tier 'second': no answer within 2 s"
    assert all(v.ok for v in store.verify("name", ["remote", "volume"]))


def test_a_write_that_hangs_is_given_up_too(world, create, files):
    released = threading.Event()

    class Stuck(LocalBackend):
        def begin(self, folder, head):
            staging = super().begin(folder, head)
            create = staging.create

            def stuck(file):
                if file.size:
                    released.wait()
                return create(file)

            staging.create = stuck
            return staging

    stuck = Tier("second", Stuck(str(world.path("second"))), durable=True, deadline=0.5)
    store = world.store("first", stuck, "volume")
    create(store, "name", files, RECIPE)
    begun = time.monotonic()
    with pytest.raises(PromoteFailed, match=r"second: no answer within 0\.5 s"):
        store.promote("name")
    assert time.monotonic() - begun < 30
    released.set()
    assert store.locate("name")[1].state == "absent"
    assert store.locate("name")[2].state == "whole"


@pytest.mark.parametrize("asked", ["sub/val.bin", "train.bin"])
def test_what_a_partial_copy_lacks_is_taken_from_below(world, create, files, asked):
    source, target = world.tier("remote"), world.tier("second")
    create(world.store("first", source), "name", files, RECIPE)
    world.store("first", source).promote("name")
    fresh = replace(world.tier("first"), backend=LocalBackend(str(world.root / "fresh")))
    store = world.store(fresh, source, target)
    store.restore("name", files=[asked])
    [outcome] = store.promote("name", to=["second"])
    assert outcome.action == "copied"
    assert all(v.ok for v in store.verify("name"))
