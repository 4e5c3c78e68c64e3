"""Killed at points of every operation, then collected: only what is published is left.

`TIEREDSTORE_TEST_LEFT_OVER` says how many kills of each operation; all points are taken in turn
where it is larger than their number.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest

pytestmark = pytest.mark.timeout(600)
KILLS = int(os.environ.get("TIEREDSTORE_TEST_LEFT_OVER", "5"))
TIERS = ("local", "vol")
NAMES = (
    "create",
    "replace",
    "replace-no-exchange",
    "replace-in-place",
    "replace-single-file",
    "promote-replace",
    "restore",
    "fill",
    "evict-in-place",
    "compose",
)


@pytest.fixture
def swept(load, harness, reading, child, world):
    """A sweep of one scenario, and the look at what is left."""
    return load("left_over"), lambda scenario: harness.Sweep(scenario, child, reading, world)


def scenario_of(scenarios, name):
    if name == "compose":
        whole = ("new",)
        return replace(
            scenarios["create"], name=name, before="create_new", operation=name, local=whole
        )
    return scenarios[name]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_kill_leaves_is_collected(name, scenarios, swept):
    looking, sweep_of = swept
    sweep = sweep_of(scenario_of(scenarios, name))
    sweep.prepare()
    root, _ = sweep.fresh()
    points = len(sweep.order(root, None, sweep.scenario.operation)["points"])
    kills = collected = 0
    for at in range(1, points + 1, max(1, points // KILLS)):
        root, _ = sweep.fresh()
        if not sweep.order(root, None, sweep.scenario.operation, "before", at)["killed"]:
            continue
        where = f"{name}: killed before point {at}"
        before = {tier: published(looking, root / tier) for tier in TIERS}
        answer = sweep.order(root, None, "collect")
        assert "error" not in answer, f"{where}: {answer}"
        kills, collected = kills + 1, collected + len(answer["result"])
        for tier in TIERS:
            assert looking.left_over(root / tier) == [], f"{where}: {answer['result']}"
            assert looking.half_published(root / tier) == [], where
            assert published(looking, root / tier) >= before[tier], where
        sweep.check_seen(root, None, where)
        sweep.check_reader(root, None, where)
        again = sweep.order(root, None, sweep.scenario.operation)
        assert "error" not in again, f"{where}: {again}"
        sweep.check_end(root, None, where)
        shutil.rmtree(root)
    assert kills >= min(KILLS, 3)
    assert collected > 0


def published(looking, root):
    """The heads that are there, unless one may be under a mark."""
    return set() if looking.half_published(root) else set(looking.heads(root))
