"""``kill -9`` at every point at which an operation changes something, on mounted places and on S3.

After each kill an independent reader of the format finds no half generation, and the old one whole
until the new one is; a reader of the store finds the same; the next run succeeds and moves only
what is missing. ``TIEREDSTORE_TEST_CRASH_ALL=1`` kills at every point; by default only each third
is taken (each fifth of restores from S3, whose points are those of restores from a folder).
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

pytestmark = pytest.mark.timeout(600)  # seconds; a sweep is hundreds of runs
ALL = os.environ.get("TIEREDSTORE_TEST_CRASH_ALL") == "1"
EACH = 3


MOUNTED = (
    "create",
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
KEYED = ("s3-promote", "s3-promote-replace", "s3-restore", "s3-evict-lower")


@pytest.fixture
def sweep(scenarios, harness, reading, world):
    def made(scenario, child, bucket=None):
        stride = 1 if ALL else max(scenario.stride, EACH)
        return harness.Sweep(replace(scenario, stride=stride), child, reading, world, bucket)

    return made


@pytest.mark.parametrize("name", MOUNTED)
def test_killed_at_every_point_on_a_file_system(name, scenarios, sweep, child):
    assert sweep(scenarios[name], child).run() >= (8 if ALL else 3)


@pytest.mark.parametrize("name", KEYED)
def test_killed_at_every_point_on_a_place_without_rename(name, scenarios, sweep, s3_child, bucket):
    assert sweep(scenarios[name], s3_child, bucket).run() >= (4 if ALL else 2)
