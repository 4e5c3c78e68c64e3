"""Power is lost at every step of an operation, and what was not synced is gone, or torn.

What is left is worked out from a trace by ``powerloss.py``. An independent reader of the format
finds no half generation in it, and what an operation promised by returning is whole; the store
finds the same, and its next run succeeds. A control leaves every sync out: the same states then
have to show losses, or these tests could not fail.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

pytestmark = pytest.mark.timeout(600)

SCENARIOS = (
    "create",
    "create-and-promote",
    "replace",
    "replace-no-exchange",
    "replace-in-place",
    "replace-single-file",
    "promote",
    "promote-replace",
    "restore",
    "restore-some",
    "fill",
    "evict",
    "evict-in-place",
)


@pytest.fixture
def outage(reading, child, world, load_server, load):
    lossyfs = load_server("lossyfs")
    if lossyfs.missing():
        pytest.skip(lossyfs.missing())
    module, powerloss = load("outage"), load("powerloss")

    def made(scenario, traced="yes"):
        return module.Outage(
            scenario, child, reading, world, powerloss=powerloss, lossyfs=lossyfs, traced=traced
        )

    return made


@pytest.mark.parametrize("name", SCENARIOS)
def test_power_lost_at_every_step(name, scenarios, outage):
    scenario = scenarios[name]
    assert outage(replace(scenario, to="")).run() >= 30


@pytest.mark.parametrize("name", ["create", "promote", "fill"])
def test_without_syncs_the_same_states_show_losses(name, scenarios, outage):
    scenario = scenarios[name]
    with pytest.raises(AssertionError):
        outage(replace(scenario, to=""), traced="no syncs").run()


@pytest.fixture
def disk(load, tmp_path):
    """A disk with ``a/old`` on it, and what is left of it when power is lost now."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_bytes(b"old")
    powerloss = load("powerloss")
    disk = powerloss.Disk(tmp_path)  # the root is number 1, a is 2, a/old is 3
    chance = random.Random(1)

    def left(how="strict"):
        powerloss.lose(disk, how, chance, tmp_path / "left")
        files = (p for p in (tmp_path / "left").rglob("*") if p.is_file())
        return {str(p.relative_to(tmp_path / "left")): p.read_bytes() for p in files}

    return disk, left


def test_a_name_is_safe_after_its_folder_was_synced_and_bytes_after_their_file_was(disk):
    disk, left = disk
    disk.follow("make", 2, "new", 4, "file", 0o600)
    disk.follow("write", 4, 0, b"new")
    assert left("strict") == {"a/old": b"old"}
    assert left("names") == {"a/old": b"old", "a/new": b""}
    disk.follow("fsync", 4)
    assert left("strict") == {"a/old": b"old"}
    disk.follow("fsync", 2)
    assert left("strict") == {"a/old": b"old", "a/new": b"new"}


def test_a_rename_is_one_step_and_is_lost_where_no_folder_was_synced(disk):
    disk, left = disk
    disk.follow("make", 2, "b", 4, "folder", 0o700)
    disk.follow("rename", 2, "old", 4, "moved")
    assert left() == {"a/old": b"old"}
    disk.follow("fsync", 4)  # keeps the rename; that b lies in a, nobody has synced
    assert left() == {}
    disk.follow("syncfs", 2)
    assert left() == {"a/b/moved": b"old"}


def test_a_write_is_torn_at_a_page(disk):
    disk, left = disk
    disk.follow("write", 3, 0, b"n" * 8 * 4096)
    torn = [left("torn")["a/old"] for _ in range(20)]
    pages = {data[at : at + 4096] for data in torn for at in range(0, len(data), 4096)}
    assert pages == {b"n" * 4096, b"\0" * 4096, b"old" + bytes(4093), b"old"}
