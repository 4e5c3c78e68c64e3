"""Interrupted anywhere while a build is published: the old generation or the new one, whole."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, suppress

import pytest

from tieredstore import leases
from tieredstore.errors import ArtifactNotFound
from tieredstore.mounted import beneath
from tieredstore.reporter import Reporter
from tieredstore.testing import faults
from tieredstore.workers import together, within

OLD, NEW = {"a": b"old", "only": b"x"}, {"a": b"new" * 999, "b/c": b"y"}
CALLS = ((os, "rename"), (os, "unlink"), (os, "fsync"), (os, "rmdir"), (beneath, "syncfs"))


class Interrupts:
    """Raises ``KeyboardInterrupt`` before or after one of the calls that change a file system."""

    def __init__(self, monkeypatch, at, after):
        self.count, self.at, self.after = 0, at, after
        self.on = False
        for module, name in CALLS:
            monkeypatch.setattr(module, name, self.wrapped(getattr(module, name)))
        monkeypatch.setattr(beneath, "exchange", self.wrapped(beneath.exchange))

    def wrapped(self, real):
        def call(*args, **named):
            if not self.on:
                return real(*args, **named)
            self.count += 1
            now = self.count == self.at
            if now and not self.after:
                raise KeyboardInterrupt
            try:
                return real(*args, **named)
            finally:
                if now:
                    raise KeyboardInterrupt

        return call


def write(stage, files):
    for path, data in files.items():
        (stage.path / path).parent.mkdir(exist_ok=True)
        (stage.path / path).write_bytes(data)


def there(store):
    try:
        got = store.restore("set")
    except ArtifactNotFound:
        return None
    with got:
        files = [p for p in (*OLD, *NEW) if (got.path / p).exists()]
        return {path: (got.path / path).read_bytes() for path in files}


def stages(world):
    """The stages that are left; a mark that was not laid yet is litter of no size."""
    area = world.path("first") / ".tieredstore/stage"
    return [path for path in area.iterdir() if not path.name.startswith("mark-")]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("how", ["new", "exchange", "move-aside", "in-place"])
def test_interrupted_at_every_step_of_a_publication(world, monkeypatch, how, after):
    at = 0
    interrupted = True
    while interrupted:
        at += 1
        with ExitStack() as stack, monkeypatch.context() as patched:
            if how == "move-aside":
                stack.enter_context(faults.no_exchange())
            store = world.store(world.tier("first"))
            old = None
            if how != "new":
                with store.create("set") as stage:
                    write(stage, OLD)
                old = OLD
            if how == "in-place":
                (world.path("first") / "set" / "prepare.py").write_text("mine")
            interrupts = Interrupts(patched, at, after)
            interrupted = False
            try:
                with store.create("set") as stage:
                    write(stage, NEW)
                    interrupts.on = True
            except KeyboardInterrupt:
                interrupted = True
            interrupts.on = False
        assert there(store) in (old, NEW), (how, at)
        assert stages(world) == [], (how, at)
        with store.create("set") as stage:
            write(stage, NEW)
        assert there(store) == NEW
        head = store.locate("set")[0].head
        store.tiers[0].backend.remove("set", head)
        with suppress(FileNotFoundError):
            (world.path("first") / "set" / "prepare.py").unlink()
    assert at > 5


@pytest.mark.parametrize("how", [KeyboardInterrupt, SystemExit, ValueError])
def test_interrupted_in_the_block_a_stage_is_dropped(world, how):
    store = world.store("first")
    with pytest.raises(how), store.create("set") as stage:  # noqa: PT012 - the block is the test
        write(stage, NEW)
        raise how
    assert stages(world) == []
    assert there(store) is None


# -- threads ------------------------------------------------------------------------------------


def interrupt_once(begun):
    """Interrupt the main thread as Ctrl-C does, when the others are at work."""
    import _thread

    def later():
        assert begun.wait(30)
        time.sleep(0.1)
        _thread.interrupt_main()

    threading.Thread(target=later).start()


def test_threads_let_go_of_what_they_hold_when_the_work_is_interrupted(tmp_path):
    begun = threading.Event()

    def work():
        with leases.soft_lease(str(tmp_path), "key", 5, lambda who: None):
            begun.set()
            while True:
                time.sleep(0.01)

    interrupt_once(begun)
    since = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        together([work, lambda: within(60, lambda: time.sleep(0.5), "a nap")])
    assert time.monotonic() - since < 15
    with leases.soft_lease(str(tmp_path), "key", 0, lambda who: None):
        pass


def test_a_call_that_ends_its_thread_keeps_no_other_from_its_turn():
    done = []
    calls = [lambda: done.append(1), exit_here, lambda: done.append(3)]
    with pytest.raises(SystemExit):
        together(calls, most=1)
    assert done == [1, 3]


def exit_here():
    raise SystemExit(3)


def test_nobody_waits_for_a_thread_that_hangs(tmp_path):
    begun, end = threading.Event(), threading.Event()

    def hang():
        begun.set()
        end.wait(30)

    interrupt_once(begun)
    since = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        together([hang, hang])
    assert time.monotonic() - since < 15
    end.set()


def test_interrupted_in_a_promote_to_several_tiers_their_leases_are_free(world, create):
    """Each is promoted to in a thread of its own, which holds that tier's lease."""
    begun = threading.Event()

    class Slow(Reporter):
        def started(self, verb, name, size):
            if verb == "promote":
                begun.set()
                while True:
                    time.sleep(0.01)

    store = world.store("first", "volume", "second")
    create(store, "set", NEW)
    slow = type(store)(store.tiers, Slow())
    interrupt_once(begun)
    with pytest.raises(KeyboardInterrupt):
        slow.promote("set")
    for tier in store.tiers[1:]:
        with tier.backend.lease("set.promote", 0, lambda who: None):
            pass
    assert not [*world.root.rglob("*.note")]
    assert [o.action for o in store.promote("set")] == ["copied", "copied"]
