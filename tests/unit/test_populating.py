"""`populate`: a restore from far away leaves a copy in the tiers on its way, or says why not."""

from __future__ import annotations

import errno
import shutil
import threading
import time

import pytest

import tieredstore
from tieredstore import ArtifactNotFound
from tieredstore.backends.local import LocalBackend
from tieredstore.testing import faults

RECIPE = {"preparer": "test", "subset": 1.0}
MORE = {"train.bin": b"other bytes", "sub/val.bin": b"other", "empty": b""}


@pytest.fixture
def scratch(world):
    """The tier that is filled on the way."""
    return world.tier("second", durable=False, populate=True)


@pytest.fixture
def far(world, create, files):
    """An artifact that only the tier ``remote`` has."""
    put(world, create, files)


def put(world, create, files, recipe=RECIPE):
    """Publish to ``remote`` as another node does, with a first tier of its own."""
    node = tieredstore.TieredStore(
        [tieredstore.local_tier(world.root / "author"), world.tier("remote")]
    )
    create(node, "name", files, recipe)
    node.promote("name", replace=True)
    shutil.rmtree(world.root / "author")


def states(store):
    return {where.tier.name: where.state for where in store.locate("name")}


def forget(world):
    shutil.rmtree(world.path("first"))
    world.told.calls.clear()


def test_the_next_node_is_served_by_the_tier_that_was_filled(world, far, scratch, files, contents):
    store = world.store("first", scratch, "remote")
    got = store.restore("name")
    assert (got.source, dict(got.skipped)) == ("remote", {})
    assert all(v.ok for v in store.verify("name"))
    assert contents(world.path("second") / "name") == files
    forget(world)
    assert store.restore("name").source == "second"
    assert contents(got.path) == files
    assert not world.told.of("skipped")


def test_every_tier_before_the_source_is_filled_and_none_after_it(world, far, scratch):
    volume = world.tier("volume", populate=True)
    below = world.tier("first", populate=True)
    below = tieredstore.Tier("below", LocalBackend(str(world.root / "below")), populate=True)
    store = world.store("first", scratch, volume, "remote", below)
    store.restore("name")
    assert states(store) == {
        "first": "whole",
        "second": "whole",
        "volume": "whole",
        "remote": "whole",
        "below": "absent",
    }


def test_a_tier_without_populate_is_left_as_it_is(world, far):
    store = world.store("first", "second", "remote")
    store.restore("name")
    assert states(store)["second"] == "absent"


def test_a_hit_and_a_near_copy_fill_nothing(world, far, scratch):
    world.store("first", "remote").restore("name")
    store = world.store("first", scratch, "remote")
    assert store.restore("name").source == "first"
    assert states(store)["second"] == "absent"


# -- some of the files -------------------------------------------------------------------------


def test_some_files_are_found_near_by_whoever_asks_for_the_same(world, far, scratch, contents):
    store = world.store("first", scratch, "remote")
    assert store.restore("name", files=["sub/val.bin"]).source == "remote"
    assert contents(world.path("second") / "name") == {"sub/val.bin": b"val"}
    forget(world)
    got = store.restore("name", files=["sub/val.bin", "sub/val.bin"])
    assert (got.source, dict(got.skipped)) == ("second", {})
    assert states(store)["second"] == "partial"


def test_further_files_are_added_to_what_is_near(world, far, scratch, files, contents):
    store = world.store("first", scratch, "remote")
    store.restore("name", files=["sub/val.bin"])
    forget(world)
    got = store.restore("name", files=["empty", "sub/val.bin"])
    assert (got.source, dict(got.skipped)) == ("remote", {})
    assert contents(world.path("second") / "name") == {"sub/val.bin": b"val", "empty": b""}
    forget(world)
    got = store.restore("name")
    assert contents(got.path) == files
    assert states(store)["second"] == "whole"
    assert store.verify("name", ["second"])[0].ok
    assert not world.told.of("corrupt")


def test_what_a_partial_copy_has_is_not_fetched_from_afar(world, far, scratch, files):
    store = world.store("first", scratch, "remote")
    store.restore("name", files=["train.bin"])
    forget(world)
    store.restore("name")
    assert {(f, s) for f, s, t in world.told.of("copied") if t == "second"} == {
        ("sub/val.bin", "remote"),
        ("empty", "remote"),
    }
    assert {s for _, s, t in world.told.of("copied") if t == "first"} == {"second"}


def test_two_partial_copies_make_a_whole_one(world, far, scratch, files, contents):
    volume = world.tier("volume", durable=False, populate=True)
    world.store("first", scratch, "remote").restore("name", files=["train.bin"])
    forget(world)
    world.store("first", volume, "remote").restore("name", files=["empty", "sub/val.bin"])
    forget(world)
    got = world.store("first", scratch, volume).restore("name")
    assert contents(got.path) == files
    assert states(world.store("first", scratch, volume))["second"] == "whole"


def test_a_partial_copy_alone_cannot_serve_the_rest_and_stays(world, far, scratch):
    world.store("first", scratch, "remote").restore("name", files=["empty"])
    forget(world)
    store = world.store("first", scratch)
    with pytest.raises(ArtifactNotFound, match="second: only some of its files"):
        store.restore("name")
    assert states(store)["second"] == "partial"
    assert not world.told.of("corrupt")
    with pytest.raises(ArtifactNotFound, match=r"only some files are there, not train\.bin"):
        store.open_stream("name", "train.bin")
    with world.store("first", scratch, "remote").open_stream("name", "train.bin") as stream:
        assert stream.read(3) == b"\x00\x01\x02"


def test_a_keyed_tier_takes_whole_artifacts(world, create, files, contents):
    node = world.store("first", "second")
    create(node, "name", files, RECIPE)
    node.promote("name")
    forget(world)
    store = world.store("first", world.tier("remote", populate=True), "second")
    got = store.restore("name", files=["empty"])
    assert "whole artifacts" in got.skipped["remote"]
    assert states(store)["remote"] == "absent"
    assert dict(store.restore("name").skipped) == {}
    assert store.verify("name", ["remote"])[0].ok


# -- what is there already ---------------------------------------------------------------------


def test_another_recipe_is_never_replaced(world, create, files, scratch, contents):
    node = world.store("first", "second")
    create(node, "name", files, {"preparer": "test", "subset": 0.5})
    node.promote("name")
    forget(world)
    put(world, create, MORE)
    store = world.store("first", scratch, "remote")
    got = store.restore("name", recipe=RECIPE)
    assert got.source == "remote"
    assert "made otherwise" in got.skipped["second"]
    assert contents(world.path("second") / "name") == files


def test_the_nearest_generation_serves_until_it_is_promoted_over(
    world, create, far, files, scratch, contents
):
    store = world.store("first", scratch, "remote")
    store.restore("name")
    put(world, create, MORE)
    forget(world)
    got = store.restore("name")
    assert (got.source, contents(got.path)) == ("second", files)
    forget(world)
    newest = world.store("first", "remote")
    newest.restore("name")
    store.promote("name", to="second")
    forget(world)
    got = store.restore("name")
    assert (got.source, contents(got.path)) == ("second", MORE)


def test_some_files_of_an_older_generation_give_way(world, create, far, scratch, contents):
    store = world.store("first", scratch, "remote")
    store.restore("name", files=["empty"])
    forget(world)
    time.sleep(1.1)  # heads know whole seconds
    put(world, create, MORE)
    got = store.restore("name")
    assert got.source == "remote"
    assert contents(world.path("second") / "name") == MORE
    assert states(store)["second"] == "whole"


def test_files_without_a_manifest_are_somebodys(world, far, contents):
    (world.path("second") / "name").mkdir(parents=True)
    (world.path("second") / "name" / "train.bin").write_bytes(b"mine")
    scratch = world.tier("second", durable=False, populate=True, adopt=False)
    got = world.store("first", scratch, "remote").restore("name")
    assert "without a manifest" in got.skipped["second"]
    assert contents(world.path("second") / "name") == {"train.bin": b"mine"}


def test_what_is_being_put_in_there_is_left_alone(world, far, scratch, tmp_path):
    other = tieredstore.TieredStore([tieredstore.local_tier(world.path("second"))])
    filling = other.fill("name", ["a", "b"])
    written = filling.temporary("a")
    written.write_bytes(b"a")
    filling.put("a", written)
    got = world.store("first", scratch, "remote").restore("name")
    assert "being put in" in got.skipped["second"]
    assert (world.path("second") / "name" / "a").read_bytes() == b"a"


def test_a_damaged_copy_is_set_aside_and_filled_anew(world, far, scratch, flip, files):
    store = world.store("first", scratch, "remote")
    store.restore("name")
    forget(world)
    flip(world.path("second") / "name" / "train.bin", 100)
    got = store.restore("name")
    assert "differ" in got.skipped["second"]
    assert all(v.ok for v in store.verify("name"))
    assert states(store)["second"] == "whole"


# -- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("some", [None, ["sub/val.bin"]])
def test_a_copy_whose_records_are_damaged_is_filled_anew(
    world, scratch, flip, files, contents, some
):
    """Nobody knows which files are its own: they stay hidden, and give way to the same ones."""
    store = world.store("first", scratch, "remote")
    store.restore("name")
    flip(world.path("second") / "name/.tieredstore.records")
    flip(world.path("second") / "name/train.bin")
    forget(world)
    got = store.restore("name", files=some)
    assert got.source == "remote"
    assert states(store)["second"] == ("whole" if some is None else "partial")
    assert contents(world.path("second") / "name") == (
        files if some is None else {"sub/val.bin": b"val", "empty": b""}
    )
    forget(world)
    assert store.restore("name", files=some).source == "second"
    assert all(v.ok for v in store.verify("name"))


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("works", range(8))
def test_a_tier_that_fails_when_it_is_asked_what_is_under_way_keeps_no_restore(
    world, scratch, flip, works, monkeypatch
):
    world.store("first", scratch, "remote").restore("name")
    flip(world.path("second") / "name/.tieredstore.records")
    forget(world)
    store = world.store("first", scratch, "remote")
    world.store("first", "second", "remote").restore("name")  # sets it aside
    assert states(store)["second"] == "pending"
    forget(world)
    look, left = type(scratch.backend.mount).pending, [True] * works

    def pending(mount, folder):
        if mount.path == str(world.path("second")) and (not left or not left.pop()):
            raise OSError(errno.EIO, "fails")
        return look(mount, folder)

    monkeypatch.setattr(type(scratch.backend.mount), "pending", pending)
    assert store.restore("name").source == "remote"


@pytest.mark.parametrize("call", ["begin", "read_head"])
def test_a_tier_that_hangs_is_named_and_the_restore_stands(world, far, files, contents, call):
    released = threading.Event()
    hanging = faults.FaultyBackend(
        LocalBackend(str(world.path("second"))), faults.hanging(released, frozenset({call}))
    )
    scratch = tieredstore.Tier("second", hanging, populate=True, deadline=0.5)
    begun = time.monotonic()
    got = world.store("first", scratch, "remote").restore("name")
    assert time.monotonic() - begun < 30
    released.set()
    assert got.source == "remote"
    assert got.skipped["second"].endswith("tier 'second': no answer within 0.5 s")
    assert contents(got.path) == files


def test_a_tier_that_cannot_be_written_is_named(world, far, files, contents):
    for policy in ({"read_only": True}, {}):
        scratch = world.tier("second", populate=True, **policy)
        if not policy:
            world.path("second").write_bytes(b"no folder")
        got = world.store("first", scratch, "remote").restore("name")
        assert contents(got.path) == files
        assert list(got.skipped) == ["second"]
        assert [tier for tier, _ in world.told.of("skipped")] == ["second"]
        forget(world)
