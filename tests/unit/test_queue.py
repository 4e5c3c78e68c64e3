"""Promotes that wait: kept, shared, tried again, never swallowed, and never done twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

import tieredstore
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import (
    ArtifactNotFound,
    EvictRefused,
    TierUnavailable,
    Unsupported,
)
from tieredstore.store import TieredStore
from tieredstore.tiers import queued
from tieredstore.tiers.queued import Queued
from tieredstore.tiers.tier import Tier
from tieredstore.verbs import flushing


@pytest.fixture
def store(world, create, files):
    made = world.store("first", "volume", "second")
    create(made, "set", files, {"v": 1})
    return made


def queue_of(world):
    folder = world.path("first") / ".tieredstore/queue"
    return sorted(folder.iterdir()) if folder.exists() else []


def actions(flushed):
    return [(each.name, each.tier, each.action) for each in flushed]


def test_what_waits_is_promoted_by_a_flush_and_waits_no_more(world, store):
    waiting = store.queue_promote("set")
    assert [(q.name, q.tier, q.tries) for q in waiting] == [
        ("set", "volume", 0),
        ("set", "second", 0),
    ]
    assert store.queued() == waiting == store.queued("set")
    assert [w.state for w in store.locate("set")] == ["whole", "absent", "absent"]
    assert actions(store.flush()) == [("set", "volume", "copied"), ("set", "second", "copied")]
    assert [w.state for w in store.locate("set")] == ["whole"] * 3
    assert store.queued() == []
    assert store.flush() == []
    assert queue_of(world) == []


def test_the_same_promote_waits_once(store):
    assert store.queue_promote("set", "volume") == store.queue_promote("set", ["volume", "volume"])
    assert len(store.queued()) == 1
    store.queue_promote("set", "volume", replace=True)
    assert len(store.queued()) == 2
    assert actions(store.flush()) == [("set", "volume", "copied")]
    assert store.queued() == []


def test_what_waits_outlives_its_process(world, store):
    code = (
        "import sys\n"
        "from tieredstore.backends.local import LocalBackend\n"
        "from tieredstore.store import TieredStore\n"
        "from tieredstore.tiers.tier import Tier\n"
        "import os, signal\n"
        "tiers = [Tier('first', LocalBackend(sys.argv[1])),"
        " Tier('second', LocalBackend(sys.argv[2]), durable=True)]\n"
        "TieredStore(tiers).queue_promote('set')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    paths = [str(world.path("first")), str(world.path("second"))]
    assert subprocess.run([sys.executable, "-c", code, *paths], check=False).returncode == -9
    assert actions(store.flush()) == [("set", "second", "copied")]


def test_what_is_not_there_or_cannot_go_there_is_not_queued(world, store):
    with pytest.raises(ArtifactNotFound, match="not in the first tier 'first'"):
        store.queue_promote("nothing")
    with pytest.raises(Unsupported, match="'first' is the first tier"):
        store.queue_promote("set", "first")
    with pytest.raises(tieredstore.ConfigError, match="no tier 'moon'"):
        store.queue_promote("set", "moon")
    closed = world.store("first", world.tier("volume", read_only=True))
    with pytest.raises(Unsupported, match="'volume' cannot be written"):
        closed.queue_promote("set", "volume")
    assert closed.queue_promote("set") == []
    assert store.queued() == []


def test_what_fails_goes_on_waiting_with_its_reason_and_is_left_alone_for_a_while(
    world, store, monkeypatch
):
    (world.path("second")).write_text("no folder")
    store.queue_promote("set")
    found = store.flush()
    assert actions(found) == [("set", "volume", "copied"), ("set", "second", "failed")]
    (waiting,) = store.queued()
    assert (waiting.tier, waiting.tries) == ("second", 1)
    assert waiting.reason == found[1].detail
    assert "second" in waiting.reason
    assert 50 < waiting.after - time.time() < 70
    world.path("second").unlink()
    assert actions(store.flush()) == [("set", "second", "later")], "not tried yet"
    assert actions(store.flush(["set"])) == [("set", "second", "copied")], "asked for by name"
    assert store.queued() == []


def test_each_failure_doubles_the_time_up_to_an_hour(world, store):
    world.path("second").write_text("no folder")
    store.queue_promote("set", "second")
    pauses = []
    for tries in range(1, 9):
        (failed,) = store.flush(["set"])
        assert failed.tries == tries
        pauses.append(round(store.queued()[0].after - time.time(), -1))
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_another_recipe_there_is_refused_and_goes_on_waiting(world, store, create):
    other = world.store(
        world.tier("first", backend=LocalBackend(str(world.path("author")))), "second"
    )
    create(other, "set", {"a": b"other"}, {"v": 2})
    other.promote("set")
    store.queue_promote("set", "second")
    assert actions(store.flush()) == [("set", "second", "refused")]
    assert "made otherwise" in store.queued()[0].reason
    store.queue_promote("set", "second", replace=True)
    assert actions(store.flush(["set"])) == [("set", "second", "copied")]
    assert store.queued() == []


def test_a_generation_that_was_replaced_is_promoted_as_it_is_now_and_said_so(store, create):
    (waiting,) = store.queue_promote("set", "volume")
    create(store, "set", {"a": b"newer"}, {"v": 1})
    (done,) = store.flush()
    now = store.locate("set")[0].head.generation
    assert done.action == "copied"
    assert done.detail == (
        f"generation {now} has taken the place of {waiting.generation}, which was queued"
    )
    assert store.locate("set")[1].head.generation == now


def test_what_is_gone_from_the_first_tier_is_said_and_not_forgotten(world, store):
    store.queue_promote("set")
    store.promote("set", "second")
    shutil.rmtree(world.path("first") / "set")
    assert actions(store.flush()) == [("set", "volume", "failed"), ("set", "second", "present")]
    (waiting,) = store.queued()
    assert "not in the first tier" in waiting.reason


def test_what_waits_is_not_evicted(world, store):
    store.promote("set", "second")
    store.queue_promote("set", "volume")
    with pytest.raises(EvictRefused, match="waits to be promoted to volume; tieredstore flush"):
        store.evict("set")
    with pytest.raises(EvictRefused):
        store.evict("set")
    store.flush()
    assert store.evict("set") > 0


def test_an_entry_that_cannot_be_read_is_shown_and_stays_and_keeps_the_copy(world, store):
    store.queue_promote("set", "volume")
    (file,) = queue_of(world)
    file.write_bytes(b"{")
    (waiting,) = store.queued()
    assert waiting.name == ""
    assert waiting.reason.startswith("the entry cannot be read: ")
    (failed,) = store.flush()
    assert (failed.action, failed.failed) == ("failed", True)
    assert file.name in failed.detail
    store.promote("set")
    with pytest.raises(EvictRefused, match="cannot be read"):
        store.evict("set")
    assert queue_of(world) == [file]
    assert store.unqueue("set") == 1
    assert queue_of(world) == []


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../up"},
        {"name": 7},
        {"tier": None},
        {"tries": "3"},
        {"replace": 1},
        {"since": float("nan")},
        {"after": 1e300},
    ],
)
def test_entries_are_checked(change):
    body = json.loads(Queued("set", "volume", "g", since=1.0).emit())
    assert Queued.parse(json.dumps(body).encode(), "f").name == "set"
    assert Queued.parse(json.dumps(body | change).encode(), "f").name == ""


def test_a_link_in_the_place_of_the_queue_is_not_followed(world, store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    area = world.path("first") / ".tieredstore"
    (area / "queue").symlink_to(outside)
    with pytest.raises(OSError, match="link"):
        store.queue_promote("set")
    assert list(outside.iterdir()) == []


def test_taken_out_of_the_queue(store):
    store.queue_promote("set")
    assert store.unqueue("set", "second") == 1
    assert [q.tier for q in store.queued()] == ["volume"]
    assert store.unqueue("set") == 1
    assert store.unqueue("set") == 0
    assert store.flush() == []


def test_what_is_removed_for_good_waits_no_more(store):
    store.promote("set", "second")
    store.queue_promote("set", "volume")
    store.remove("set")
    assert store.queued() == []


def test_a_tier_that_the_configuration_has_no_more_is_said(world, store):
    store.queue_promote("set", "second")
    fewer = world.store("first", "volume")
    (failed,) = fewer.flush()
    assert failed.action == "failed"
    assert "no tier 'second'" in failed.detail
    assert actions(store.flush(["set"])) == [("set", "second", "copied")]


def test_a_first_tier_that_cannot_be_written_takes_nothing(world, store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(queued.small, "put_lasting", full)
    with pytest.raises(TierUnavailable, match="cannot be written: No space left"):
        store.queue_promote("set")


def test_several_flushes_share_the_work_and_do_nothing_twice(world, create):
    store = world.store("first", "second")
    names = [f"set{n}" for n in range(12)]
    for name in names:
        create(store, name, {"a": os.urandom(3000)})
        store.queue_promote(name)
    done, lock = [], threading.Lock()

    def work():
        own = TieredStore([world.tier("first"), world.tier("second")])
        for each in own.flush():
            with lock:
                done.append(each)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    copied = [each.name for each in done if each.action == "copied"]
    assert sorted(copied) == sorted(names)
    assert {each.action for each in done} <= {"copied", "taken"}
    assert store.queued() == []


def test_interrupted_a_flush_keeps_what_waits(world, store):
    class Interrupt(tieredstore.Reporter):
        def started(self, verb, name, size):
            raise KeyboardInterrupt

    waiting = store.queue_promote("set")
    with pytest.raises(KeyboardInterrupt):
        TieredStore(store.tiers, Interrupt()).flush()
    assert store.queued() == waiting
    assert actions(store.flush()) == [("set", "volume", "copied"), ("set", "second", "copied")]


def test_a_promote_that_failed_in_ensure_can_wait(world):
    store = world.store("first", "second")
    world.path("second").write_text("no folder")
    with pytest.raises(tieredstore.PromoteFailed):
        store.ensure("set", lambda stage: (stage.path / "a").write_bytes(b"made"))
    store.queue_promote("set")
    world.path("second").unlink()
    assert actions(store.flush()) == [("set", "second", "copied")]


def test_nothing_of_the_queue_is_litter(world, store):
    store.queue_promote("set")
    assert all(tier.litter == () for tier in store.litter(grace=0))
    store.collect(grace=0)
    assert len(store.queued()) == 2
    assert flushing.LATER == "later"


def test_a_tier_of_its_own_backend_is_asked_by_name_only(tmp_path, create):
    first, far = (LocalBackend(str(tmp_path / name)) for name in ("first", "far"))
    store = TieredStore([Tier("first", first), Tier("far", far)])
    create(store, "set", {"a": b"1"})
    assert store.queue_promote("set") == [], "no tier is durable"
    store.queue_promote("set", "far")
    assert actions(store.flush()) == [("set", "far", "copied")]
