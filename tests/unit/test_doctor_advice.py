"""What `doctor` advises for what it found: each rule alone, and nothing where all is well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tieredstore.doctor.advice import advice
from tieredstore.doctor.finding import BAD, NOTE, Check, Examined, Finding, Place

PLACE = Place("far", "LocalBackend", "folder", mounted=True)


def said(place=PLACE, surroundings=None, machine=(), **found):
    findings = tuple(Finding(k.replace("_", " "), "", value=v) for k, v in found.items())
    return advice(machine, [Examined(place, findings)], surroundings or {})


def test_where_all_is_well_nothing_is_advised():
    good = dict.fromkeys(("flock", "exchange", "case"), True)
    assert said(**good, latency=0.001, space=0.5, clock=0.4, reachable="ext4") == []
    assert said() == []


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"flock": False}, 'flock does not exclude on this mount: use backend = "scratch"'),
        ({"flock": True, "flock across nodes": False}, "flock does not exclude between nodes"),
        ({"conditional writes": False}, "heads are compared just before they are put"),
        ({"exchange": False}, "a replacement takes two steps"),
        ({"clock": 3780.0}, "its clock is 63 min ahead"),
        ({"clock across nodes": -3780.0}, "the other node's clock is 63 min behind"),
        ({"latency": 40.0}, "deadline = 30 is short where one answer takes 40 s"),
        ({"latency": 2.0}, "set deadline = 80"),
        ({"space": 0.96}, "96% full, and min_free is not set"),
        ({"inodes": 0.99}, "99% of its inodes are used"),
        ({"stale attributes": 21.0}, "up to 21 s late"),
        ({"case": False}, "upper from lower case"),
        ({"longest name": 143}, "more than 143 bytes"),
    ],
)
def test_one_finding_one_line(found, expected):
    [line] = said(**found)
    assert line.startswith("tier 'far': ")
    assert expected in line


def test_what_does_not_apply_is_not_said():
    soft = replace(PLACE, kind="ScratchBackend")
    assert said(soft, flock=False) == []
    assert said(replace(PLACE, read_only=True), space=0.99) == []
    assert "evict" in said(replace(PLACE, keeps_free=True), space=0.99)[0]
    assert said(reachable="nfs4") == []


def test_a_first_tier_on_a_network_mount_is_to_move():
    first = replace(PLACE, first=True)
    [line] = said(first, {"SLURM_TMPDIR": "x", "TMPDIR": "y"}, reachable="nfs4")
    assert line == "tier 'far': the first tier is on a network mount; put it on $SLURM_TMPDIR"
    [line] = said(first, reachable="fuse.sshfs")
    assert line.endswith("put it on a local disk")


def test_what_cannot_be_used_comes_first():
    bad = Finding("bucket", "refused: NoSuchBucket", "make the bucket", BAD)
    one = Examined(replace(PLACE, tier="one"), (Finding("flock", "", value=False),))
    two = Examined(replace(PLACE, tier="two"), (bad,))
    assert not two.usable
    first, second = advice((), [one, two], {})
    assert first == "tier 'two': cannot be used: bucket: refused: NoSuchBucket; make the bucket"
    assert "'one'" in second
    few = Finding("open files", "256", "", NOTE, 256)
    assert "ulimit -n 4096" in said(machine=(few,))[0]


def test_a_check_that_fails_is_a_finding():
    def fails():
        raise OSError(5, "Input/output error", "file")

    [found] = Check("rename", fails).findings()
    assert (found.check, found.state, found.meaning) == (
        "rename",
        NOTE,
        "Input/output error: file",
    )
