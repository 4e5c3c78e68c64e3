"""Told to end at random moments: every verb ends in order, leaves no lease, and goes on later.

``TIEREDSTORE_TEST_SIGNALS`` is how often each verb is told to.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TIMES = int(os.environ.get("TIEREDSTORE_TEST_SIGNALS", "8"))
WORKER = Path(__file__).with_name("signalled.py")
VERBS = ["put", "restore", "promote", "verify", "evict", "gc", "ensure", "prepare", "flush"]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


@pytest.mark.timeout(120 + 5 * TIMES)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_is_told_to_end_leaves_nothing_and_is_done_by_the_next_run(tmp_path, verb):
    order = json.dumps({"root": str(tmp_path), "verb": verb, "times": TIMES})
    done = subprocess.run(
        [sys.executable, str(WORKER), order], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    interrupted = 0
    for one in found["rounds"]:
        how = signal.Signals(one["how"])
        # Before the command began to listen, or when it had ended, the signal does what it does.
        assert one["code"] in {0, CODES[how], -how}, one
        assert one["left"] == [], one
        assert one["ended"] < 10, one
        if one["code"] == CODES[how]:
            interrupted += 1
            if verb != "ensure":
                assert f"{WORDS[how]}; run the command again to go on" in one["said"], one
            assert "Traceback" not in one["said"], one
    assert interrupted >= TIMES / 4, found


def start(code, *args):
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


FINALIZING = """
import os, time
from tieredstore import terminable
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])

class Slow:
    def __del__(self):
        print("here", flush=True)
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            pass

with terminable():
    slow = Slow()
    del slow
    time.sleep(20)
"""


CALLED_BACK = """
import time, weakref
from tieredstore import terminable

class Thing:
    pass

def late(reference):
    print("here", flush=True)
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        pass

with terminable():
    thing = Thing()
    reference = weakref.ref(thing, late)
    del thing
    time.sleep(20)
"""


@pytest.mark.parametrize("how", CODES)
@pytest.mark.parametrize("script", [FINALIZING] * 8 + [CALLED_BACK])
def test_a_signal_that_comes_while_something_is_finalized_is_not_lost(script, how):
    """What a handler raises there, or in what the interpreter calls then, is printed and forgotten.

    On one processor a signal that comes again after that, once, fell between the interpreter's
    last look for signals and the sleep in one of three runs: it was heard when that was over.
    """
    process = start(script)
    assert process.stdout.readline() == "here\n"
    since = time.monotonic()
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - since < 15
    assert process.returncode in {CODES[how], -how}
    assert "Exception ignored" not in err


ONLY_FINALIZING = """
import os, signal, time
from tieredstore import Terminated, terminable

class Slow:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

try:
    with terminable():
        Slow()
except Terminated:
    print("heard")
"""


def test_a_signal_that_comes_while_the_last_thing_is_finalized_is_heard_with_the_block():
    process = start(ONLY_FINALIZING)
    assert process.communicate(timeout=30) == ("heard\n", "")


LEAVING = """
import contextlib, sys, time
from tieredstore import Terminated, terminable

class Held:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        print("here", flush=True)
        until = time.monotonic() + float(sys.argv[1])
        while time.monotonic() < until:
            pass
        print("let go", flush=True)

try:
    with terminable(), Held():
        pass
except (Terminated, KeyboardInterrupt):
    print("told", flush=True)
"""


@pytest.mark.parametrize("how", CODES)
def test_what_is_being_let_go_is_let_go_first(how):
    process = start(LEAVING, "0.3")
    assert process.stdout.readline() == "here\n"
    process.send_signal(how)
    assert process.communicate(timeout=30) == ("let go\ntold\n", "")


@pytest.mark.parametrize("how", CODES)
def test_nobody_waits_for_long_until_something_is_let_go(how):
    process = start(LEAVING, "60")
    assert process.stdout.readline() == "here\n"
    process.send_signal(how)
    assert process.communicate(timeout=30) == ("told\n", "")


@pytest.mark.parametrize("how", CODES)
def test_a_second_signal_while_something_is_let_go_ends_the_process_at_once(how):
    process = start(LEAVING, "60")
    assert process.stdout.readline() == "here\n"
    for _ in range(100):
        process.send_signal(how)
        time.sleep(0.005)
        if process.poll() is not None:
            break
    process.communicate(timeout=30)
    assert process.returncode == -how


SLOW_TO_END = """
import time
from tieredstore import terminable
with terminable():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("ending", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(first, second):
    process = start(SLOW_TO_END)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(first)
    assert process.stdout.readline() == "ending\n"
    since = time.monotonic()
    process.send_signal(second)
    process.communicate(timeout=30)
    assert process.returncode == -second
    assert time.monotonic() - since < 5


IN_ORDER = """
import sys, time
from tieredstore import Terminated, local_tier, terminable
from tieredstore.store import TieredStore
store = TieredStore([local_tier(sys.argv[1])])
with terminable(), store.create("set") as stage:
    (stage.path / "a").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_script_that_is_told_to_end_drops_its_stage(tmp_path, how, code):
    process = start(IN_ORDER, str(tmp_path))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert list((tmp_path / ".tieredstore/stage").iterdir()) == []
    assert ("Traceback" in err) == (how == signal.SIGINT)


HANGS = """
import sys, threading, time
import tieredstore.cli
threading.Thread(target=time.sleep, args=(60,)).start()  # as a client's, in a place that hangs
sys.argv[1:] = ["status", "--config", sys.argv[1]]
raise SystemExit(tieredstore.cli.run())
"""


def test_a_thread_that_hangs_keeps_no_command_from_its_end(tmp_path):
    config = tmp_path / "tieredstore.toml"
    config.write_text('[[tier]]\nname = "first"\nbackend = "local"\npath = "first"\n')
    since = time.monotonic()
    process = start(HANGS, str(config))
    out, err = process.communicate(timeout=50)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("no artifacts in first")
    assert time.monotonic() - since < 40
