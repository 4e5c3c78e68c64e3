"""Repair: damage of every kind in every kind of place is mended by its bad blocks alone."""

from __future__ import annotations

import json
import os
import random
import threading
import uuid
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from tieredstore import RepairFailed, Tier, TieredStore
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.backends.local import LocalBackend
from tieredstore.backends.runpod import RunPodBackend
from tieredstore.manifest import shards as shards_module
from tieredstore.manifest.artifact import HEAD, RECORDS, canonical, digest128
from tieredstore.manifest.records import BLOCK
from tieredstore.moving import packing as packing_module
from tieredstore.testing.faults import FaultyBackend, steady
from tieredstore.testing.samples import Sample, publish, read_artifact
from tieredstore.verbs.repairing import Mending

LARGE = random.Random(7).randbytes(3 * BLOCK + 4321)
FILES = {"train.bin": LARGE, "sub/val.bin": b"val" * 9, "empty": b"", "ünï": b"{}"}
SIZE = sum(map(len, FILES.values()))


class Folder:
    """The objects of a mounted place."""

    def __init__(self, root, kind=LocalBackend):
        self.root = Path(root)
        self.root.mkdir()
        self.backend = kind(str(root))

    def keys(self):
        below = ((self.root / "set").rglob("*")) if (self.root / "set").is_dir() else []
        return sorted(str(p.relative_to(self.root)) for p in below if p.is_file())

    def get(self, key):
        return (self.root / key).read_bytes()

    def put(self, key, data):
        (self.root / key).write_bytes(data)

    def drop(self, key):
        (self.root / key).unlink()


class Memory:
    """The objects of ``memory://``."""

    def __init__(self):
        self.backend = FsspecBackend(f"memory://{uuid.uuid4().hex}")
        self.fs, self.root = fsspec.filesystem("memory"), self.backend._root

    def keys(self):
        return sorted(p.removeprefix(f"{self.root}/") for p in self.fs.find(f"{self.root}/set"))

    def get(self, key):
        return self.fs.cat_file(f"{self.root}/{key}")

    def put(self, key, data):
        self.fs.pipe_file(f"{self.root}/{key}", data)

    def drop(self, key):
        self.fs.rm_file(f"{self.root}/{key}")


PLACES = ("folder", "memory", "packed")
ALL = (*PLACES, "volume")


@pytest.fixture(params=PLACES)
def place(request, tmp_path, monkeypatch):
    """A place that holds the artifact beside the first tier, in a store of the two."""
    monkeypatch.setattr(shards_module, "MANY", 2)
    monkeypatch.setattr(shards_module, "LARGE", 2 * BLOCK)
    monkeypatch.setattr(packing_module, "SHARD", 1 << 20)
    if request.param == "folder":
        return Folder(tmp_path / "far")
    return Folder(tmp_path / "far", RunPodBackend) if request.param == "volume" else Memory()


class Counted:
    """A first tier that counts what is read of it, and calls something before a read."""

    def __init__(self, root):
        self.bytes, self.before = 0, None
        self._lock = threading.Lock()
        self.backend = LocalBackend(str(root))
        source = self.backend.source

        def counting(folder, head):
            return FaultyBackend(self.backend, steady, self._read).source(folder, head)

        self.backend.source, self._plain = counting, source

    def _read(self, offset, buffer, got):
        with self._lock:
            self.bytes += got
            before, self.before = self.before, None
        if before is not None:
            before()
        return got


@pytest.fixture
def made(request, tmp_path, place):
    """The store with the artifact in both tiers, and what counts reads of the first."""
    counted = Counted(tmp_path / "first")
    pack = "auto" if "packed" in request.node.callspec.id.split("-") else "never"
    far = Tier("far", place.backend, durable=True, pack=pack)
    store = TieredStore([Tier("first", counted.backend), far])
    with store.create("set", recipe={"v": 1}) as stage:
        for path, data in FILES.items():
            (stage.path / path).parent.mkdir(exist_ok=True)
            (stage.path / path).write_bytes(data)
    store.promote("set")
    counted.bytes = 0
    return store, counted


def key_of(place, ending):
    [found] = [key for key in place.keys() if key.endswith(ending)]  # noqa: SIM118
    return found


def flip(place, key, at):
    data = bytearray(place.get(key))
    data[at] ^= 1 << (at % 8)
    place.put(key, bytes(data))


def contents(tmp_path, place):
    """What a store that has only this place restores."""
    first = Tier("first", LocalBackend(str(tmp_path / uuid.uuid4().hex)))
    got = TieredStore([first, Tier("far", place.backend)]).restore("set")
    return {path: (got.path / path).read_bytes() for path in FILES}


def repaired(store):
    """Repair, and the far copy's outcome; the copy is whole afterwards."""
    [_, far] = store.repair()["set"]
    assert far.ok, far
    assert far.repair.action == "repaired"
    assert [v.ok for v in store.verify("set")] == [True, True]
    return far


# -- what is wrong ------------------------------------------------------------------------------


def test_of_a_large_file_only_the_wrong_block_is_taken(tmp_path, place, made):
    store, counted = made
    flip(place, key_of(place, "train.bin"), BLOCK + 77)
    far = repaired(store)
    assert (far.bad, far.repair.taken, far.repair.kept) == (
        ("train.bin",),
        BLOCK,
        len(LARGE) - BLOCK,
    )
    assert counted.bytes - 2 * SIZE == BLOCK  # two verifies read the first tier once each
    assert contents(tmp_path, place) == FILES


DAMAGE = {
    "short": lambda place, key: place.put(key, place.get(key)[: BLOCK + 5]),
    "long": lambda place, key: place.put(key, place.get(key) + b"more"),
    "missing": lambda place, key: place.drop(key),
    "empty": lambda place, key: place.put(key, b""),
    "zeros": lambda place, key: place.put(key, bytes(len(place.get(key)))),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_file_of_the_wrong_length_or_none_at_all_is_mended(tmp_path, place, made, how):
    store, counted = made
    DAMAGE[how](place, key_of(place, "train.bin"))
    far = repaired(store)
    taken = {"short": len(LARGE) - BLOCK, "long": 0}.get(how, len(LARGE))
    assert (far.repair.taken, counted.bytes - 2 * SIZE) == (taken, taken)
    assert contents(tmp_path, place) == FILES


@pytest.mark.parametrize("at", [5, -1])
@pytest.mark.parametrize("ending", [RECORDS, HEAD])
def test_a_manifest_comes_from_the_same_generation_elsewhere(tmp_path, place, made, ending, at):
    store, counted = made
    before = {key: place.get(key) for key in place.keys()}  # noqa: SIM118
    flip(place, key_of(place, ending), at % len(place.get(key_of(place, ending))))
    flip(place, key_of(place, "train.bin"), 3 * BLOCK)
    far = repaired(store)
    assert far.repair.taken == 4321
    assert counted.bytes <= 2 * SIZE + 4321
    after = {key: place.get(key) for key in place.keys()}  # noqa: SIM118
    assert {k: v for k, v in after.items() if not k.endswith(HEAD)} == {
        k: v for k, v in before.items() if not k.endswith(HEAD)
    }
    assert contents(tmp_path, place) == FILES


def test_a_manifest_alone_costs_no_data(place, made):
    store, counted = made
    for ending in (HEAD, RECORDS):
        flip(place, key_of(place, ending), 9)
        assert repaired(store).repair.taken == 0
    assert counted.bytes == 4 * SIZE


def test_head_and_records_at_once_are_known_by_the_name_in_what_is_left(tmp_path, place, made):
    store, _ = made
    flip(place, key_of(place, HEAD), -2 % len(place.get(key_of(place, HEAD))))
    place.drop(key_of(place, RECORDS))
    repaired(store)
    assert contents(tmp_path, place) == FILES


def test_or_by_the_rest_of_it(tmp_path, place, made):
    store, _ = made
    head = key_of(place, HEAD)
    for key in place.keys():  # noqa: SIM118
        if "/.tieredstore" in key:
            flip(place, key, 7)
    flip(place, head, place.get(head).index(b"generation") + 20)
    repaired(store)
    assert contents(tmp_path, place) == FILES


def test_two_damaged_copies_mend_each_other(tmp_path, place, made):
    store, _ = made
    flip(place, key_of(place, "train.bin"), 10)
    near = Folder.__new__(Folder)
    near.root = tmp_path / "first"
    flip(near, "set/train.bin", 2 * BLOCK)
    [first, far] = store.repair()["set"]
    assert [v.repair.taken for v in (first, far)] == [BLOCK, BLOCK]
    assert [v.ok for v in store.verify("set")] == [True, True]


# -- packed copies --------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["packed"], indirect=True)
@pytest.mark.parametrize("what", ["member", "index", "shard gone", "index gone", "all of it"])
def test_a_shard_is_put_again(tmp_path, place, made, what):
    store, _ = made
    shard, index = key_of(place, "shards-00000.tar"), key_of(place, ".tieredstore.shards")
    before = {key: place.get(key) for key in (shard, index)}
    at = before[shard].index(FILES["sub/val.bin"])
    for wrong in [what] if what != "all of it" else ["member", "index", "train"]:
        if wrong == "member":
            flip(place, shard, at + 1)
        elif wrong == "train":
            flip(place, key_of(place, "train.bin"), 0)
        elif wrong == "index":
            flip(place, index, 40)
        else:
            place.drop(shard if wrong == "shard gone" else index)
    far = repaired(store)
    assert {key: place.get(key) for key in before} == before
    assert far.repair.taken <= BLOCK + sum(len(d) for p, d in FILES.items() if p != "train.bin")
    assert contents(tmp_path, place) == FILES


# -- what is not mended ---------------------------------------------------------------------------


def test_without_a_good_copy_one_error_says_file_block_tier_and_what_to_do(tmp_path, place, made):
    store, _ = made
    flip(place, key_of(place, "train.bin"), BLOCK)
    (tmp_path / "first" / "set" / "train.bin").write_bytes(b"gone")
    before = {key: place.get(key) for key in place.keys()}  # noqa: SIM118
    with pytest.raises(RepairFailed) as caught:
        store.repair(["set"])
    text = str(caught.value)
    assert f"bytes {BLOCK} to {2 * BLOCK} differ" in text
    for word in ("set: ", "train.bin", "'far'", "'first'", "make the artifact again"):
        assert word in text
    assert "\n" not in text
    assert [v.repair.action for v in caught.value.verified["set"]] == ["failed", "failed"]
    assert {key: place.get(key) for key in place.keys()} == before  # noqa: SIM118


def test_another_generation_is_no_good_copy(tmp_path, place, made):
    store, _ = made
    with store.create("set", recipe={"v": 1}) as stage:
        for path, data in FILES.items():
            (stage.path / path).parent.mkdir(exist_ok=True)
            (stage.path / path).write_bytes(data)
    flip(place, key_of(place, HEAD), 9)
    with pytest.raises(RepairFailed, match="no other tier has the head of this generation"):
        store.repair(["set"], ["far"])


def test_a_read_only_tier_is_verified_and_left_as_it_is(place, made):
    store, _ = made
    closed = TieredStore([store.tiers[0], replace(store.tiers[1], read_only=True)])
    flip(place, key_of(place, "train.bin"), 0)
    [first, far] = closed.repair()["set"]
    assert first.ok
    assert (far.ok, far.damaged, far.repair.action) == (False, True, "read-only")
    assert "read-only" in far.repair.detail
    assert not store.verify("set", ["far"])[0].ok


def test_a_head_that_only_another_release_can_read_is_no_damage(place, made):
    store, _ = made
    body = json.loads(place.get(key_of(place, HEAD)))
    body.pop("check")
    body["format"] = 2
    body["check"] = digest128(canonical(body))
    place.put(key_of(place, HEAD), json.dumps(body).encode())
    with pytest.raises(RepairFailed, match="format 2"):
        store.repair()
    assert json.loads(place.get(key_of(place, HEAD))) == body


def test_copies_that_were_set_aside_are_not_touched(tmp_path, place, made):
    store, _ = made
    far = store.tiers[1]
    found = far.locate("set")
    far.backend.set_aside(found.folder, found.head)
    store.promote("set")
    kept = sorted(f.path for f in _aside(place))
    flip(place, key_of(place, "train.bin"), 1)
    repaired(store)
    assert sorted(f.path for f in _aside(place)) == kept


def _aside(place):
    if isinstance(place, Folder):
        root = place.root / ".tieredstore" / "damaged"
        found = [p for p in root.rglob("*") if p.is_file()]
        return [type("Found", (), {"path": f"{p}{p.stat().st_mtime_ns}"}) for p in found]
    return list(place.backend.list(".tieredstore/damaged"))


# -- beside others --------------------------------------------------------------------------------


def test_an_artifact_that_is_replaced_meanwhile_stays_replaced(tmp_path, place, made):
    store, counted = made
    flip(place, key_of(place, "train.bin"), BLOCK)
    [bad] = store.verify("set", ["far"])
    new = Sample.of({"new": b"new"})
    # The first block that the repair takes. By no lease: its publisher may not have seen it.
    counted.before = lambda: publish(place.backend, "set", new)
    Mending(store._chain, "set", store.tiers[1]).run(bad)
    assert place.backend.read_head("set").head.generation == new.generation
    assert read_artifact(place.backend, "set") == new.files
    assert store.verify("set", ["far"])[0].ok
    if isinstance(place, Folder):
        assert sorted(os.listdir(place.root / "set")) == [HEAD, RECORDS, "new"]


def test_an_artifact_that_is_removed_meanwhile_stays_removed(place, made):
    store, _ = made
    flip(place, key_of(place, "train.bin"), BLOCK)
    [bad] = store.verify("set", ["far"])
    where = store.tiers[1].locate("set")
    place.backend.remove(where.folder, where.head)
    gone = Mending(store._chain, "set", store.tiers[1]).run(bad)
    assert (gone.ok, gone.damaged, gone.state, gone.repair) == (False, False, "absent", None)
    assert place.backend.read_head("set") is None


@pytest.mark.parametrize("place", ALL, indirect=True)
def test_several_repairs_at_once_are_one(tmp_path, place, made):
    store, _ = made
    rng = random.Random(3)
    for _ in range(3):
        flip(place, key_of(place, "train.bin"), rng.randrange(len(LARGE)))
        errors = []

        def mend(errors=errors):
            try:
                store.repair()
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

        threads = [threading.Thread(target=mend) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert [v.ok for v in store.verify("set")] == [True, True]
    assert contents(tmp_path, place) == FILES


def test_a_reader_sees_the_damaged_file_or_the_whole_one(place, made):
    store, _ = made
    key = key_of(place, "train.bin")
    flip(place, key, BLOCK)
    damaged, seen, stop = place.get(key), set(), threading.Event()

    def read():
        while not stop.is_set():
            seen.add({damaged: "damaged", LARGE: "whole"}.get(place.get(key), "torn"))

    reader = threading.Thread(target=read)
    reader.start()
    repaired(store)
    stop.set()
    reader.join()
    seen.add({LARGE: "whole"}.get(place.get(key), "torn"))
    assert "whole" in seen
    assert "torn" not in seen


@pytest.mark.parametrize("place", ["folder"], indirect=True)
@pytest.mark.parametrize("ending", ["json", "records", ""])
def test_a_single_file_with_its_manifest_beside_it(tmp_path, place, made, ending):
    store, _ = made
    with store.create_file("logs/one.jsonl", recipe={"v": 1}) as stage:
        stage.file.write_bytes(LARGE)
    store.promote("logs/one.jsonl")
    (place.root / "logs" / "neighbour").write_bytes(b"not ours")
    name = f".tieredstore.one.jsonl.{ending}" if ending else "one.jsonl"
    flip(place, f"logs/{name}", 7)
    [_, far] = store.repair(["logs/one.jsonl"])["logs/one.jsonl"]
    assert far.repair.action == "repaired"
    assert all(v.ok for v in store.verify("logs/one.jsonl"))
    assert (place.root / "logs" / "neighbour").read_bytes() == b"not ours"


@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_of_a_partial_copy_only_its_own_files_are_mended(tmp_path, place, made):
    store, _ = made
    near = TieredStore([Tier("near", LocalBackend(str(tmp_path / "near"))), store.tiers[1]])
    near.restore("set", files=["train.bin", "empty"])
    path = tmp_path / "near" / "set"
    for name in ("train.bin", HEAD):
        data = bytearray((path / name).read_bytes())
        data[9] ^= 1
        (path / name).write_bytes(data)
        [own, _] = near.repair()["set"]
        assert own.repair.action == "repaired"
        files = sorted(p.name for p in path.rglob("*") if p.is_file())
        assert files == [HEAD, ".tieredstore.partial", RECORDS, "empty", "train.bin"]
        assert near.restore("set", files=["train.bin"]).source == "near"
    assert near.restore("set").path == path
    assert near.verify("set")[0].ok


@pytest.mark.parametrize("place", ["folder"], indirect=True)
def test_what_others_keep_in_the_folder_stays(place, made):
    store, _ = made
    (place.root / "set" / "prepare.py").write_bytes(b"theirs")
    for name in ("train.bin", HEAD, RECORDS):
        flip(place, f"set/{name}", 3)
        repaired(store)
    assert (place.root / "set" / "prepare.py").read_bytes() == b"theirs"
