"""`compose`: one file of files that exist, on places that cannot put it together by themselves."""

from __future__ import annotations

import os
import random
import threading
from dataclasses import replace

import pytest

import tieredstore
from tieredstore import (
    ArtifactExists,
    ArtifactNotFound,
    ConfigError,
    CorruptData,
    HeadConflict,
    InvalidName,
    NoSuchFile,
    RecipeConflict,
    TierUnavailable,
)
from tieredstore.backend import ANY_HEAD
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.backends.local import LocalBackend
from tieredstore.manifest.records import BLOCK, ENTRY
from tieredstore.moving.fetching import Copy
from tieredstore.testing import faults
from tieredstore.testing.samples import Sample, publish, stage
from tieredstore.tiers.tier import WHOLE, Tier
from tieredstore.verbs.joined import Joined, JoinedPart

RECIPE = {"preparer": "merge", "version": "1"}
# Short blocks in the middle: after the first part, within the third, around the empty one.
DATA = [random.Random(n).randbytes(size) for n, size in enumerate([BLOCK + 7, 0, 3 * BLOCK + 1, 5])]
PARTS = ["chunks/0.bin", "chunks/1.bin", ("folder", "sub/out.bin"), "chunks/3.bin"]
MERGED = b"".join(DATA)
NAME = "corpus/merged.bin"


def chunk(store, name, data):
    with store.create_file(name) as stage:
        stage.file.write_bytes(data)


@pytest.fixture
def fill(create):
    """Put the parts into a store's first tier, and below."""

    def filled(store, *lower):
        for name, data in zip(PARTS, DATA, strict=True):
            if isinstance(name, str):
                chunk(store, name, data)
        create(store, "folder", {"sub/out.bin": DATA[2], "other": b"left out"})
        for name in ("chunks/0.bin", "chunks/1.bin", "folder", "chunks/3.bin"):
            if lower:
                store.promote(name, to=lower)
        return store

    return filled


def is_whole(store, tier, data=MERGED):
    """The merged file in a tier: streamed, verified, restored into an empty first tier."""
    with store.open_stream(NAME, "merged.bin") as stream:
        assert stream.read() == data
    [verified] = store.verify(NAME, [tier])
    return verified.ok and verified.size == len(data)


@pytest.mark.parametrize("tier", [None, "first", "volume", "remote"])
def test_parts_become_one_file(world, fill, tier):
    store = fill(world.store(), "volume", "remote")
    where = store.compose(NAME, PARTS, RECIPE, tier)
    assert (where.tier.name, where.state, where.head.kind) == (tier or "first", WHOLE, "file")
    assert where.head.recipe.same_as(tieredstore.Recipe.of(RECIPE))
    [record] = where.records().files.values()
    lengths = [b.length for b in record.blocks()]
    assert lengths == [BLOCK, 7, BLOCK, BLOCK, BLOCK, 1, 5]
    assert (record.path, record.size) == ("merged.bin", len(MERGED))
    assert is_whole(store, tier or "first")
    got = store.restore(NAME, recipe=RECIPE)
    assert got.path == world.path("first") / NAME
    assert got.path.read_bytes() == MERGED
    outcomes = store.promote(NAME, to=["volume", "remote"])
    assert {o.action for o in outcomes} <= {"copied", "present"}
    assert all(v.ok for v in store.verify(NAME))


def test_nothing_is_left_in_the_stage(world, fill):
    store = fill(world.store())
    store.compose(NAME, PARTS)
    area = world.path("first") / ".tieredstore"
    assert not [p for part in ("stage", "part") for p in (area / part).glob("*")]


def test_parts_that_are_missing_in_the_first_tier_are_restored(world, fill):
    store = fill(world.store(), "remote")
    for name in ("chunks/0.bin", "folder"):
        store.evict(name)
    store.compose(NAME, PARTS)
    assert (world.path("first") / NAME).read_bytes() == MERGED
    assert not (world.path("first") / "folder/other").exists(), "only the file that is a part"


def test_a_file_may_come_twice_and_come_from_what_is_replaced(world):
    store = world.store("first")
    chunk(store, "a", b"one")
    chunk(store, NAME, b"before,")
    store.compose(NAME, [NAME, "a", "a"])
    assert (world.path("first") / NAME).read_bytes() == b"before,oneone"


def test_nothing_but_empty_parts(world):
    store = world.store("first", "remote")
    chunk(store, "a", b"")
    store.promote("a")
    for tier in ("remote", None):
        assert store.compose(NAME, ["a", "a"], tier=tier).head.size == 0
        assert is_whole(store, tier or "first", b"")


def test_long_blocks_of_another_writer_are_taken_as_they_are(world):
    long = Sample.of({"long": random.Random(1).randbytes(3 * BLOCK)})
    store = world.store("first", "remote")
    chunk(store, "short", b"short")
    store.promote("short")
    publish(world.tier("remote").backend, "long", long)
    where = store.compose(NAME, ["short", ("long", "long"), "short"], tier="remote")
    assert len(where.records().files["merged.bin"].table) == 5 * ENTRY
    assert is_whole(store, "remote", b"short" + long.files["long"] + b"short")


def test_a_part_without_a_manifest_is_adopted(world):
    (world.path("first") / "found").mkdir(parents=True)
    (world.path("first") / "found/a").write_bytes(b"found")
    store = world.store("first")
    store.compose(NAME, ["found", ("found", "a")])
    assert is_whole(store, "first", b"foundfound")


def test_joined_files_are_read_from_anywhere(world):
    pieces = [b"", b"abc", b"", b"", b"defgh", b"i", b""]
    backend = LocalBackend(str(world.root / "joined"))
    publish(backend, "name", Sample.of({str(n): data for n, data in enumerate(pieces)}))
    records = backend.read_records("name", backend.read_head("name").head)
    copy = Copy("tier", backend, "name", backend.read_head("name").head)
    parts = [JoinedPart("name", copy, record) for record in records.files.values()]
    data = b"".join(pieces)
    with Joined(parts).open("merged") as reader:
        for offset in range(len(data) + 2):
            for length in range(len(data) + 2):
                buffer = bytearray(length)
                got = reader.readinto(offset, memoryview(buffer))
                assert buffer[:got] == data[offset : offset + length]


# -- what is refused, before anything is touched ------------------------------------------------


@pytest.fixture
def untouched(world):
    """Nothing of the merged artifact may be anywhere afterwards."""
    yield
    assert not (world.path("first") / "corpus").exists()
    assert not list(FsspecBackend(world.remote).list("corpus"))


@pytest.mark.usefixtures("untouched")
def test_a_part_that_is_not_in_that_tier(world, fill):
    store = fill(world.store(), "volume")
    store.promote("chunks/0.bin", to="remote")
    with pytest.raises(ArtifactNotFound) as error:
        store.compose(NAME, PARTS, tier="remote")
    text = str(error.value)
    assert "'remote'" in text
    assert "chunks/1.bin" in text
    assert "promote it there first" in text
    with pytest.raises(ArtifactNotFound, match="nowhere"):
        store.compose(NAME, [*PARTS, "nowhere"])
    with pytest.raises(ArtifactNotFound, match="restore it there first"):
        store.compose(NAME, ["nowhere"], tier="first")


@pytest.mark.usefixtures("untouched")
def test_a_part_that_is_another_generation_there(world, fill):
    store = fill(world.store(), "remote")
    chunk(store, "chunks/3.bin", b"newer")
    with pytest.raises(ArtifactNotFound, match=r"generation .*'first'") as error:
        store.compose(NAME, PARTS, tier="remote")
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("untouched")
def test_a_file_that_the_artifact_does_not_have(world, fill):
    store = fill(world.store(), "remote")
    for tier in (None, "remote"):
        with pytest.raises(NoSuchFile):
            store.compose(NAME, [("folder", "nothing")], tier=tier)
        with pytest.raises(NoSuchFile, match="say which"):
            store.compose(NAME, ["folder"], tier=tier)


@pytest.mark.usefixtures("untouched")
def test_what_is_no_list_of_parts(world, fill):
    store = fill(world.store(), "remote")
    for parts in ([], ["../a"], [("folder", "../a")], [("folder/", "a")]):
        with pytest.raises(InvalidName):
            store.compose(NAME, parts)
    with pytest.raises(ConfigError):
        store.compose(NAME, PARTS, tier="nowhere")
    with pytest.raises(InvalidName):
        store.compose("../x", PARTS)


@pytest.mark.parametrize("tier", [None, "remote"])
def test_a_name_inside_a_part(world, fill, tier):
    store = fill(world.store(), "remote")
    for name in ("folder/merged.bin", "chunks"):
        with pytest.raises(ArtifactExists):
            store.compose(name, PARTS, tier=tier)


@pytest.mark.usefixtures("untouched")
def test_a_tier_that_cannot_be_written(world, fill):
    fill(world.store(), "remote")
    store = world.store("first", world.tier("remote", read_only=True))
    with pytest.raises(TierUnavailable, match="cannot be written"):
        store.compose(NAME, PARTS, tier="remote")


def test_a_part_that_is_damaged_is_named(world, fill, flip):
    store = fill(world.store(), "remote")
    flip(world.path("first") / "folder/sub/out.bin", BLOCK)
    with pytest.raises(CorruptData, match=r"part 'folder', file 'sub/out.bin' is damaged"):
        store.compose(NAME, PARTS)
    assert world.told.of("corrupt")
    assert not (world.path("first") / NAME).exists()
    area = world.path("first") / ".tieredstore"
    assert not list((area / "part").glob("*"))
    store.compose(NAME, PARTS, tier="remote")
    assert is_whole(store, "remote")


# -- what others do meanwhile -------------------------------------------------------------------


def test_another_recipe_in_a_lower_tier_stays_unless_told(world, fill):
    store = fill(world.store(), "remote")
    store.compose(NAME, PARTS, RECIPE, "remote")
    with pytest.raises(RecipeConflict):
        store.compose(NAME, PARTS[:1], {"preparer": "other"}, "remote")
    assert is_whole(store, "remote")
    store.compose(NAME, PARTS[:1], {"preparer": "other"}, "remote", replace=True)
    assert is_whole(store, "remote", DATA[0])
    store.compose(NAME, PARTS, {"preparer": "other"}, "remote")
    assert is_whole(store, "remote")


class Meanwhile:
    """Another publishes just before this one does."""

    def __init__(self, backend, times):
        self.backend, self.times = backend, times

    def __call__(self, call=None):
        if call == "put" and self.times:
            self.times -= 1
            other = Sample.of({"merged.bin": b"another"}, tieredstore.Recipe())
            staging = stage(self.backend, NAME, other)
            staging.publish(other.head("file"), other.records, ANY_HEAD)


class MountedMeanwhile(LocalBackend):
    """The same on a mounted place."""

    def publish(self, *args):
        self.other("put")
        super().publish(*args)


@pytest.fixture(params=["mounted", "keyed"])
def raced(world, request):
    """A tier and who else publishes there."""
    root = str(world.root / "second")
    if request.param == "mounted":
        backend = MountedMeanwhile(root)
        backend.other = Meanwhile(LocalBackend(root), 0)
        return Tier("raced", backend, durable=True), backend.other
    other = Meanwhile(FsspecBackend(world.remote), 0)
    backend = faults.FaultyKeyed(FsspecBackend(world.remote), faults.Points(faults.short), other)
    return Tier("raced", backend, durable=True), other


@pytest.mark.parametrize("times", [1, 3, 100])
def test_who_published_meanwhile_is_looked_at_again(world, raced, times):
    tier, other = raced
    store = world.store("first", tier)
    chunk(store, "part", b"part")
    store.promote("part")
    other.times = times
    if times < 100:
        store.compose(NAME, ["part"], tier="raced")
        assert is_whole(store, "raced", b"part")
    else:
        with pytest.raises(HeadConflict, match="others kept replacing it"):
            store.compose(NAME, ["part"], tier="raced")
        assert is_whole(store, "raced", b"another")
    assert other.times == max(0, times - 20)


def test_several_at_once_leave_one_whole(world, fill):
    fill(world.store(), "remote")
    stores = [world.store() for _ in range(4)]
    orders = [PARTS, PARTS[::-1], PARTS[:2], PARTS[2:]]
    by_name = dict(zip(PARTS, DATA, strict=True))
    failed = []

    def work(store, order):
        try:
            store.compose(NAME, order)
        except Exception as error:  # noqa: BLE001 - shown below
            failed.append(error)

    threads = [
        threading.Thread(target=work, args=(s, o)) for s, o in zip(stores, orders, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    found = (world.path("first") / NAME).read_bytes()
    assert found in [b"".join(by_name[p] for p in order) for order in orders]
    assert all(v.ok for v in stores[0].verify(NAME, ["first"]))


def test_many_parts_hold_few_folders_open(world):
    store = world.store("first")
    for n in range(150):
        chunk(store, f"many/{n:03d}", b"%d" % n)
    before = len(os.listdir("/proc/self/fd"))
    seen = []

    class Look(tieredstore.Reporter):
        def copied(self, file, source, target):
            seen.append(len(os.listdir("/proc/self/fd")))

    tier = replace(store.tiers[0])
    quiet = tieredstore.TieredStore([tier], Look())
    quiet.compose(NAME, [f"many/{n:03d}" for n in range(150)])
    assert (world.path("first") / NAME).read_bytes() == b"".join(b"%d" % n for n in range(150))
    assert max(seen) - before < 100
