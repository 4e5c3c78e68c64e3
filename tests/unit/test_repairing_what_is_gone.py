"""Repair where a damaged copy is gone between the look and the mending: nothing is left to do."""

from __future__ import annotations

import pytest

from tieredstore import TieredStore, local_tier
from tieredstore.backends.runpod import RunPodBackend
from tieredstore.errors import RepairFailed
from tieredstore.tiers.tier import Tier
from tieredstore.verbs.repairing import repair


@pytest.fixture
def store(tmp_path):
    (tmp_path / "volume").mkdir()
    volume = Tier("volume", RunPodBackend(str(tmp_path / "volume")), durable=True)
    store = TieredStore([local_tier(tmp_path / "first"), volume])
    with store.create("set") as stage:
        (stage.path / "a.bin").write_bytes(b"a" * 5000)
    store.promote("set")
    (tmp_path / "first" / "set" / "a.bin").write_bytes(b"b" * 5000)
    return store


def test_a_copy_that_was_dropped_meanwhile_is_left_alone(store):
    found = store.verify_all(["set"])
    store.evict("set")
    [first, volume] = repair(store._chain, found)["set"]
    assert (first.state, first.repair) == ("absent", None)  # gone, and not said to be mended
    assert volume.ok


def test_a_tier_that_is_gone_meanwhile_is_said_to_be(store, tmp_path):
    (tmp_path / "volume" / "set" / "a.bin").write_bytes(b"c" * 5000)
    found = store.verify_all(["set"], ["volume"])
    (tmp_path / "volume").rename(tmp_path / "away")
    (tmp_path / "volume").write_bytes(b"")
    with pytest.raises(RepairFailed, match="set"):
        repair(store._chain, found)
