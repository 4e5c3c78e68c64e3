"""Ensure: one builds, who waits hears of it, why it failed, and how far it is."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pytest

import tieredstore
from tieredstore import leases, notes
from tieredstore.errors import ArtifactNotFound, BuildFailed, PromoteFailed
from tieredstore.notes import MAX_NOTE, Failure, Note, Work, without_secrets
from tieredstore.reporter import Relay, Reporter, Wait
from tieredstore.tiers import holding
from tieredstore.tiers.holding import Claim


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Notes and words on waiting come soon."""
    monkeypatch.setattr(holding, "_FIRST", 0.05)
    monkeypatch.setattr(holding, "_EVERY", 0.05)
    monkeypatch.setattr(leases, "_TELL_EVERY", 0.15)


class Waits(Reporter):
    def __init__(self):
        self.said = []
        self.began = threading.Event()

    def waits(self, wait):
        self.said.append(wait)
        self.began.set()


class Calls:
    """Calls of ``ensure`` in threads, each with a store of its own, as processes would have."""

    def __init__(self, world, tiers):
        self.world, self.tiers = world, tiers
        self.results = []
        self.threads = []
        self.built = []
        self.go = threading.Event()

    def build(self, stage):
        self.built.append(time.monotonic())
        assert self.go.wait(30)
        (stage.path / "a").write_bytes(b"made")

    def begin(self, build=None, reporter=None, **options):
        tiers = [self.world.tier(t) for t in self.tiers]
        store = tieredstore.TieredStore(tiers, reporter)

        def call():
            try:
                with store.ensure("set", build or self.build, **options) as got:
                    self.results.append((got.path / "a").read_bytes())
            except (tieredstore.TieredStoreError, ValueError) as error:
                self.results.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        self.threads.append(thread)

    def end(self):
        self.go.set()
        for thread in self.threads:
            thread.join(60)
        return self.results


@pytest.fixture(params=[("first",), ("first", "volume")], ids=["one tier", "two tiers"])
def calls(world, request):
    made = Calls(world, request.param)
    yield made
    made.end()


def until(true):
    ends = time.monotonic() + 20
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


def fail_after(calls, why="the disk is made of cheese"):
    def build(stage):
        calls.built.append(time.monotonic())
        assert calls.go.wait(30)
        raise ValueError(why)

    return build


def test_who_waits_takes_what_the_builder_made(calls):
    waits = Waits()
    calls.begin()
    until(lambda: calls.built)
    for _ in range(3):
        calls.begin(reporter=waits)
    assert waits.began.wait(20)
    assert calls.end() == [b"made"] * 4
    assert len(calls.built) == 1


def test_who_waits_hears_why_the_build_failed_and_does_not_try(calls):
    calls.begin(fail_after(calls))
    until(lambda: calls.built)
    waits = [Waits() for _ in range(3)]
    for each in waits:
        calls.begin(reporter=each)
    until(lambda: all(each.began.is_set() for each in waits))
    results = calls.end()
    assert len(calls.built) == 1
    own, others = (
        [r for r in results if type(r) is ValueError],
        [r for r in results if isinstance(r, BuildFailed)],
    )
    assert (len(own), len(others)) == (1, 3)
    for error in others:
        assert error.why == "ValueError: the disk is made of cheese"
        assert (error.host, error.pid) == notes.me()
        assert str(error).startswith(f"set: built by process {error.pid} on {error.host} ")
        assert abs(error.when - time.time()) < 60


def test_a_later_call_tries_again(calls):
    calls.begin(fail_after(calls))
    calls.end()
    calls.begin()
    assert calls.end()[1:] == [b"made"]
    assert len(calls.built) == 2
    calls.begin()
    assert calls.end()[2:] == [b"made"]


def test_who_asks_for_it_tries_again_after_a_failure(calls):
    calls.begin(fail_after(calls))
    until(lambda: calls.built)
    waits = Waits()
    calls.begin(reporter=waits, retry=1)
    assert waits.began.wait(20)
    assert [type(r) for r in calls.end()] == [ValueError, bytes]
    assert len(calls.built) == 2


def test_of_many_who_try_again_there_are_no_more_attempts_than_one_more_than_was_said(calls):
    failing = fail_after(calls)
    calls.begin(failing)
    until(lambda: calls.built)
    waits = [Waits() for _ in range(5)]
    for each in waits:
        calls.begin(failing, each, retry=2)
    until(lambda: all(each.began.is_set() for each in waits))
    results = calls.end()
    assert len(calls.built) == 3
    assert [type(r) for r in results].count(BuildFailed) == 3


def test_a_failure_is_not_told_to_who_waits_for_the_attempt_after_it(calls, world):
    """The note of the failure is still there while the next attempt goes on."""
    calls.begin(fail_after(calls, "long ago"))
    calls.end()
    calls.go.clear()
    calls.begin()
    until(lambda: len(calls.built) == 2)
    waits = Waits()
    calls.begin(reporter=waits)
    assert waits.began.wait(20)
    assert calls.end()[1:] == [b"made"] * 2


def test_who_was_too_slow_to_read_of_a_failure_reads_it_in_the_next_attempts_note(world):
    store = world.store("first")
    claim = Claim(store.tier("first"), "set", "build", Reporter())
    failure = Failure("f" * 16, "node3", 7, 1, "it broke")
    with claim.held() as work:
        work.earlier = failure
        until(lambda: claim.note().work is not None)
        assert claim.note().failed == failure
    assert claim.note() == Note(None, failure), "the attempt came to no end"
    with claim.held() as work:
        work.earlier = claim.note().failed
        work.succeeded()
    assert claim.note() == Note()


def test_what_was_built_and_not_promoted_serves_those_who_waited_here(world):
    """The durable tier does not take it: the builder is told, the others have what they want."""
    calls = Calls(world, ("first", "second"))
    second = world.path("second")

    def build(stage):
        calls.build(stage)
        second.mkdir(exist_ok=True)
        (second / "set").write_bytes(b"in the way")

    calls.begin(build)
    until(lambda: calls.built)
    waits = Waits()
    calls.begin(build, waits)
    assert waits.began.wait(20)
    assert sorted(type(r).__name__ for r in calls.end()) == ["PromoteFailed", "bytes"]
    assert any(isinstance(r, PromoteFailed) for r in calls.results)
    assert len(calls.built) == 1


@contextmanager
def _interrupting(store):
    def build(stage):
        (stage.path / "a").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.ensure("set", build)
    yield


def test_an_interrupted_build_is_no_failure_and_leaves_nothing(calls, world):
    with _interrupting(world.store(*calls.tiers)):
        assert [*(world.path("first") / ".tieredstore/stage").iterdir()] == []
        assert not [*world.root.rglob("*.note")]
        assert world.store(*calls.tiers).locate("set")[0].state == "absent"
    calls.begin()
    assert calls.end() == [b"made"]


def test_what_looks_for_nothing_is_no_failure_of_the_build(calls):
    """`ArtifactNotFound` of the builder's own is raised, not taken for the artifact's absence."""

    def build(stage):
        raise ArtifactNotFound("input: in no tier")

    calls.begin(build)
    (error,) = calls.end()
    assert type(error) is ArtifactNotFound
    assert str(error) == "input: in no tier"


# -- how far it is ------------------------------------------------------------------------------


def test_who_waits_is_told_who_builds_since_when_and_how_far_it_is(calls):
    def build(stage):
        stage.progress(43, 100, "counting")
        calls.build(stage)

    calls.begin(build)
    until(lambda: calls.built)
    waits = Waits()
    calls.begin(reporter=waits)
    until(lambda: waits.said and waits.said[-1].seconds is not None)
    wait = waits.said[-1]
    calls.end()
    host, pid = notes.me()
    assert (wait.name, wait.verb, wait.holder) == ("set", "build", f"process {pid} on {host}")
    assert (wait.done, wait.total, wait.text, wait.share) == (43, 100, "counting", 0.43)
    assert 0 <= wait.seconds < 20
    clock = time.strftime("%H:%M", time.localtime(wait.since))
    assert str(wait).startswith(f"set: built by process {pid} on {host} since {clock}")
    assert str(wait).endswith(" s), 43 %, counting")


def test_a_wait_in_words():
    since = time.time() - 125
    wait = Wait("shakespeare", "build", "process 4711 on node3", 12.0, 125.0, 43, 100)
    clock = time.strftime("%H:%M:%S", time.localtime(since))
    expected = f"shakespeare: built by process 4711 on node3 since {clock} (2 min), 43 %"
    assert str(wait) == expected
    assert str(Wait("a", "restore", "another process")) == "a: restored by another process"
    assert str(Wait("a", "promote", "p", 1.0, 1.0, 5, 0)).count("%") == 0
    assert Wait("a", "build", "p", done=7, total=5).share == 1.0


def test_a_reporter_of_before_still_hears_of_waits():
    class Old(Reporter):
        def __init__(self):
            self.said = []

        def waiting(self, name, holder):
            self.said.append((name, holder))

    old = Old()
    Relay(old).waits(Wait("set", "build", "process 1 on node", 12.3))
    assert old.said == [("set", "process 1 on node, for 12 s so far")]


def test_a_relay_tells_everything(world):
    names = [n for n in vars(Reporter) if not n.startswith("_") and n != "advanced"]
    assert {"waits", "started", "promoted"} <= set(names)
    for name in names:
        count = getattr(Reporter, name).__code__.co_argcount - 1
        getattr(Relay(world.told), name)(*range(count))
        assert world.told.calls[-1] == (name, *range(count))


def test_bytes_that_move_are_counted_for_those_who_wait(world, create):
    store = world.store("first", "volume")
    create(store, "set", {"a": b"1" * 3000})
    seen = []

    class Look(Reporter):
        def finished(self, verb, name, path):
            claim = Claim(store.tier("volume"), "set", "promote", Reporter())
            until(lambda: claim.note().work is not None and claim.note().work.done)
            seen.append(claim.note().work)

    tieredstore.TieredStore(store.tiers, Look()).promote("set")
    (work,) = seen
    assert (work.verb, work.done, work.total) == ("promote", 3000, 3000)
    assert not [*world.root.rglob("*.note")]


def test_a_note_that_an_earlier_holder_left_is_not_told_of_the_present_one(world):
    tier = world.tier("volume")
    waits = Waits()
    claim = Claim(tier, "set", "build", waits)
    tier.backend.write_note("set.build", Note(Work("build", "gone", 1, 9.0, 1, 2)).emit())
    with claim.held():
        claim._wait(None, "process 5 on node5")
    assert waits.said[-1].holder == "process 5 on node5"
    assert waits.said[-1].total == 0


# -- notes --------------------------------------------------------------------------------------


def test_a_note_is_parsed_back_and_bounded():
    note = Note(
        Work("build", "node3", 4711, 1.5, 43, 100, "x"),
        Failure.of(ValueError("why\nnot " + "ä" * 9000)),
    )
    assert len(note.emit()) <= MAX_NOTE
    assert "\n" not in note.failed.message
    assert Note.parse(note.emit()) == note
    assert Note().emit() == b""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"work": 7}',
        b'{"work": {"verb": "build"}}',
        b'{"failed": {"attempt": "a", "host": "h", "pid": "x", "when": 1}}',
        b'{"work": {"verb":"b","host":"h","pid":1,"seconds":1e999,"done":1,"total":1,"text":""}}',
        b"[" * 5000,
        b"{}" + b" " * MAX_NOTE,
    ],
)
def test_what_is_no_note_says_nothing(data):
    assert Note.parse(data) == Note()


def test_a_note_cannot_steer_a_terminal():
    note = Note(Work("build", "no\x1b[2Jde", 1, text="\x07bell\n"), None)
    assert Note.parse(note.emit()).work.host == "no [2Jde"
    assert Note.parse(note.emit()).work.text == "bell"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("https://me:pass@host/x failed", "https://host/x failed"),
        ("GET https://h/a?X-Amz-Signature=12ab&t=1 gave 403", "GET https://h/a?… gave 403"),
        ("Authorization: Bearer abc.def", "Authorization: …"),
        ('{"api_key": "k-123"} refused', '{"api_key": "…"} refused'),
        ("password=hunter2; next", "password=…; next"),
        ("token hf_abcdefghijkl is wrong", "token … is wrong"),
        ("key AKIAABCDEFGHIJKLMNOP", "key …"),
        ("a plain reason: 3 of 4 files", "a plain reason: 3 of 4 files"),
    ],
)
def test_no_secret_stands_in_a_note(said, kept):
    assert without_secrets(said) == kept
