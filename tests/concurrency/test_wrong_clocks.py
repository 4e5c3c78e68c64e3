"""Two processes, one of which has a clock that is an hour off: leases, pins and collecting."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

NODE = """
import select, sys, time
time.sleep = lambda s: select.select([], [], [], s)  # libfaketime fails sleeps until a moment
from tieredstore.backends.local import LocalBackend
from tieredstore.backends.runpod import RunPodBackend
from tieredstore.errors import EvictRefused, LeaseTimeout
from tieredstore.store import TieredStore
from tieredstore.tiers.tier import Tier
root, verb = sys.argv[1:]
vol = RunPodBackend(root + "/vol")
store = TieredStore([Tier("local", LocalBackend(root + "/local")), Tier("vol", vol, durable=True)])
def say(what):
    print(what, flush=True)
def hold():
    with vol.lease("key", 5, print):
        say("held")
        sys.stdin.readline()
    say("let go")
def take():
    try:
        with vol.lease("key", 2.0, lambda _: None):
            say("taken")
    except LeaseTimeout:
        say("refused")
def stage():
    with store.create("other", {"v": 2}) as stage:
        (stage.path / "a").write_bytes(b"a")
        say("staged")
        sys.stdin.readline()
    say(store.restore("other").open("a").read().decode())
def collect():
    store.collect()
    say("collected")
def pin():
    store.pin("set", 600.0)
    say("pinned")
def evict():
    try:
        store.evict("set")
        say("evicted")
    except EvictRefused as error:
        say("refused" if "pinned" in str(error) else str(error))
globals()[verb]()
"""
OFFSETS = ["+1h", "-1h"]


@pytest.fixture
def node(tmp_path):
    """Start a process that does one thing, with the right clock or another."""
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed (apt-get install faketime)")
    (tmp_path / "vol").mkdir()
    started = []

    def start(verb, offset=""):
        clock = ["faketime", "-f", offset] if offset else []
        # How long something takes, and what the file server says of its files, is right.
        kept = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
        process = subprocess.Popen(
            [*clock, sys.executable, "-c", NODE, str(tmp_path), verb],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **kept},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


def said(process):
    return process.stdout.readline().strip()


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("wrong", ["holder", "contender"])
def test_a_lease_is_not_taken_over(node, offset, wrong):
    holder = node("hold", offset if wrong == "holder" else "")
    assert said(holder) == "held"
    contender = node("take", offset if wrong == "contender" else "")
    assert said(contender) == "refused"
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert said(holder) == "let go"
    assert said(node("take", offset)) == "taken"


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("wrong", ["builder", "collector"])
def test_what_is_being_built_is_not_collected(node, offset, wrong):
    builder = node("stage", offset if wrong == "builder" else "")
    assert said(builder) == "staged"
    assert said(node("collect", offset if wrong == "collector" else "")) == "collected"
    builder.stdin.write("\n")
    builder.stdin.flush()
    assert said(builder) == "a"


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("wrong", ["who pins", "who evicts"])
def test_a_pin_of_ten_minutes_stands(node, tmp_path, offset, wrong):
    from tieredstore.backends.local import LocalBackend
    from tieredstore.store import TieredStore
    from tieredstore.tiers.tier import Tier

    tiers = [Tier(n, LocalBackend(str(tmp_path / n)), durable=n == "vol") for n in ("local", "vol")]
    store = TieredStore(tiers)
    with store.create("set") as stage:
        (stage.path / "a").write_bytes(b"a")
    store.promote("set")
    assert said(node("pin", offset if wrong == "who pins" else "")) == "pinned"
    assert said(node("evict", offset if wrong == "who evicts" else "")) == "refused"
