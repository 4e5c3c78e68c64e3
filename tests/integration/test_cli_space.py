"""`evict`, `pin` and `unpin` as they are typed, and what `status` says of a tier with limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

CONFIG = """
[[tier]]
name = "local"
backend = "local"
path = "data"
max_size = "3MB"
[[tier]]
name = "far"
backend = "local"
path = "far"
durable = true
[[tier]]
name = "memory"
backend = "fsspec"
url = "memory://far"
"""
DAY = 86400


@pytest.fixture
def run(tmp_path):
    """Runs the command in a folder with three artifacts of 900 kB, used 3, 2 and 1 days ago."""
    (tmp_path / "tieredstore.toml").write_text(CONFIG)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "tieredstore.cli", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    made = subprocess.run(
        [sys.executable, "-c", MAKE], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    for number, name in enumerate("abc"):
        head = tmp_path / "data" / name / name / ".tieredstore.json"
        os.utime(head, (time.time() - (3 - number) * DAY - 60, head.stat().st_mtime))
    return run


MAKE = """
import tieredstore
far = {"name": "far", "backend": "local", "path": "far", "durable": True}
for path, names in (("data", "abc"), ("other", "d")):
    first = {"name": "local", "backend": "local", "path": path, "layout": "{name}/{name}"}
    store = tieredstore.open_store({"tier": [first, far]})
    for name in names:
        with store.create(name) as stage:
            (stage.path / "data").write_bytes(name.encode() * 900_000)
        store.promote(name)
"""


def test_room_is_made_for_a_restore_and_told(run):
    done = run("restore", "d")
    assert done.returncode == 0, done.stderr
    assert "a: evicted from local to make room, 900.0 kB freed" in done.stderr
    assert [line.split("\t")[:3] for line in run("locate", "a").stdout.splitlines()][:2] == [
        ["a", "local", "absent"],
        ["a", "far", "whole"],
    ]


def test_status_says_how_full_a_tier_with_limits_is(run):
    assert "local: 2.7 MB used of 3.0 MB, " in run("status").stdout
    tier, far, _ = json.loads(run("status", "--json").stdout)["tiers"]
    assert (tier["max_size"], tier["used"], far["max_size"]) == (3_000_000, 2_700_000, None)
    assert tier["free"] > 0


def test_pins_are_shown_and_kept_to_and_taken_away(run):
    assert run("pin").stdout == "nothing is pinned\n"
    assert run("pin", "a", "--for", "2h").stdout.startswith("a: pinned in local until ")
    assert "it is not there yet" in run("pin", "d").stdout
    assert [row.split("\t")[0] for row in run("pin").stdout.splitlines()] == ["a", "d"]
    refused = run("evict", "a")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "not dropped from 'local': pinned until" in refused.stderr
    assert run("unpin", "a").stdout == "a: 1 pin taken away in local\n"
    assert run("evict", "a").stdout == "a: evicted from local, 900.0 kB freed\n"


def test_evict_by_last_use(run):
    assert run("pin", "b").returncode == 0
    planned = run("evict", "--free", "1.5MB", "--dry-run")
    rows = [line.split("\t") for line in planned.stdout.splitlines()]
    assert [row[0] for row in rows[:3]] == ["a", "c", "b"]
    assert [row[3].partition(" until")[0] for row in rows[:3]] == [
        "would be evicted",
        "would be evicted",
        "kept: pinned",
    ]
    assert rows[3] == ["2 would be evicted from local, 1.8 MB freed"]
    old = json.loads(run("evict", "--unused-for", "2.5d", "--json").stdout)
    assert [one["name"] for one in old["gone"]] == ["a"]
    assert {one["name"]: one["kept"] for one in old["kept"]} == {
        "b": "used since",
        "c": "used since",
    }
    short = run("evict", "--free", "3MB")
    assert short.returncode == 1
    assert "900.0 kB more would have to be freed in local" in short.stderr
    assert "b\t900000" in short.stdout


def test_a_dry_run_by_name_says_what_would_be(run):
    assert "if its other copy is whole" in run("evict", "a", "--dry-run").stdout
    assert "would be kept in far: no copy" in run("evict", "d", "--tier", "far", "--dry-run").stderr
    assert run("locate", "a").stdout.startswith("a\tlocal\twhole")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["evict"], "expected a NAME, or --free SIZE or --unused-for TIME"),
        (["evict", "a", "--free", "1GB"], "expected a NAME, or"),
        (["evict", "--free", "much"], "'much' is no size, expected a size such as 200GB"),
        (["evict", "--unused-for", "long"], "'long' is no time"),
        (["evict", "--tier", "memory", "--unused-for", "1d"], "it is not known what was used when"),
        (["pin", "a", "--for", "0"], "expected a positive number"),
        (["pin", "a", "--tier", "memory"], "keeps no pins"),
        (["unpin"], "required: NAME"),
    ],
)
def test_what_is_used_wrongly_is_said_in_one_line(tmp_path, arguments, why):
    (tmp_path / "tieredstore.toml").write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-m", "tieredstore.cli", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in {1, 2}
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
