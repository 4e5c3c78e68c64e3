"""``kill -9`` at every point at which an operation changes something, on mounted places and on S3.

After each kill an independent reader of the format finds no half generation, and the old one whole
until the new one is; a reader of the store finds the same; the next run succeeds and moves only
what is missing. ``TIEREDSTORE_TEST_CRASH_ALL=1`` kills at every point also where by default only
each fifth is taken (restores from S3, whose points are those of restores from a folder).
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

pytestmark = pytest.mark.timeout(600)  # seconds; a sweep is hundreds of runs
ALL = os.environ.get("TIEREDSTORE_TEST_CRASH_ALL") == "1"


def scenarios(harness_module):
    scenario, whole = harness_module.Scenario, harness_module.WHOLE_FILES
    none = ("absent",)
    return {
        s.name: s
        for s in (
            scenario("create", "nothing", "create_new", ("absent", "new"), none),
            scenario("replace", "create_old", "create_new", ("old", "new"), none),
            scenario(
                "replace-no-exchange",
                "create_old",
                "create_new",
                ("old", "new"),
                none,
                no_exchange=True,
            ),
            scenario(
                "replace-in-place",
                "create_old_beside_foreign",
                "create_new",
                ("old", "new"),
                none,
                hides=True,
            ),
            scenario(
                "replace-single-file",
                "create_file_old",
                "create_file_new",
                ("old", "new"),
                none,
                hides=True,
                single=True,
            ),
            scenario("promote", "create_new", "promote", ("new",), ("absent", "new"), to="below"),
            scenario(
                "promote-replace",
                "old_below_new_here",
                "promote",
                ("new",),
                ("old", "new"),
                to="below",
            ),
            scenario("restore", "new_below", "restore", ("absent", "new"), ("new",), to="local"),
            scenario(
                "restore-some",
                "new_below_some_here",
                "restore_some",
                ("new",),
                ("new",),
                partial=True,
                to="local",
            ),
            scenario("fill", "nothing", "fill", ("absent", "new"), ("absent", "new"), fills=True),
            scenario("evict", "new_everywhere", "evict", ("new", "absent"), ("new",)),
            scenario(
                "evict-in-place",
                "new_everywhere_beside_foreign",
                "evict",
                ("new", "absent"),
                ("new",),
                hides=True,
            ),
            scenario(
                "s3-promote", "create_new", "promote", ("new",), ("absent", "new"), s3=True, to="s3"
            ),
            scenario(
                "s3-promote-replace",
                "old_below_new_here",
                "promote",
                ("new",),
                ("old", "new"),
                s3=True,
                to="s3",
            ),
            scenario(
                "s3-restore",
                "new_below",
                "restore",
                ("absent", "new"),
                ("new",),
                s3=True,
                to="local",
                unit=whole,
                stride=5,
            ),
            scenario(
                "s3-evict-lower",
                "new_everywhere",
                "evict_lower",
                ("new",),
                ("new", "absent"),
                s3=True,
            ),
        )
    }


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


@pytest.mark.parametrize("name", MOUNTED)
def test_killed_at_every_point_on_a_file_system(name, harness, reading, child, world):
    sweep = harness.Sweep(scenarios(harness)[name], child, reading, world)
    assert sweep.run() >= 8


@pytest.mark.parametrize("name", KEYED)
def test_killed_at_every_point_on_a_place_without_rename(
    name, harness, reading, s3_child, world, bucket
):
    scenario = scenarios(harness)[name]
    if ALL:
        scenario = replace(scenario, stride=1)
    sweep = harness.Sweep(scenario, s3_child, reading, world, bucket)
    assert sweep.run() >= 4
