"""Damage in real places is found by ``verify`` and mended by ``verify --repair``.

Random bits are flipped in every kind of object of every kind of place: data, records, heads,
indexes and shards; on mounted places, ``memory://``, S3 and the Hub.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import random
import sys
import threading
import time
import uuid
from pathlib import Path

import fsspec
import pytest

from tieredstore import RepairFailed, Reporter, Tier, TieredStore
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.backends.local import LocalBackend
from tieredstore.backends.s3 import S3Backend
from tieredstore.backends.s3.upload import PIECE
from tieredstore.manifest import shards as shards_module
from tieredstore.manifest.records import BLOCK
from tieredstore.testing.samples import Sample, publish

FLIPS = int(os.environ.get("TIEREDSTORE_TEST_FLIPS", "200"))
_numbers = itertools.count()


def files(seed=1):
    chance = random.Random(seed)
    small = {f"d{n % 3}/{n:03d}": chance.randbytes(chance.randrange(3000)) for n in range(12)}
    return small | {"large.bin": chance.randbytes(2 * BLOCK + 99), "empty": b""}


FILES = files()


class OnDisk:
    """The objects of a mounted place."""

    def __init__(self, root):
        self.root, self.backend = root, LocalBackend(str(root))

    def keys(self):
        return sorted(str(p) for p in (self.root / "set").rglob("*") if p.is_file())

    def get(self, key):
        return Path(key).read_bytes()

    def put(self, key, data):
        Path(key).write_bytes(data)


class InMemory:
    """The objects of ``memory://``."""

    def __init__(self):
        self.backend = FsspecBackend(f"memory://{uuid.uuid4().hex}")
        self.fs = fsspec.filesystem("memory")

    def keys(self):
        return sorted(self.fs.find(f"{self.backend._root}/set"))

    def get(self, key):
        return self.fs.cat_file(key)

    def put(self, key, data):
        self.fs.pipe_file(key, data)


class InS3:
    """The objects of a bucket."""

    def __init__(self, server, bucket, **options):
        options = {"endpoint_url": server.url, "region": "us-east-1", **options}
        self.backend = S3Backend(bucket, **options)
        self.direct = S3Backend(bucket, **{**options, "endpoint_url": server.url})

    def keys(self):
        return sorted(found.path for found in self.direct.list("set"))

    def get(self, key):
        return self.direct.read(key, 1 << 30)

    def put(self, key, data):
        self.direct.objects.put(key, data)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(shards_module, "MANY", 8)
    monkeypatch.setattr(shards_module, "LARGE", BLOCK)


@pytest.fixture
def on_moto(moto, monkeypatch):
    for key, value in moto.environment.items():
        monkeypatch.setenv(key, value)
    return lambda **options: InS3(moto, moto.make_bucket(f"verify-{next(_numbers)}"), **options)


def create(store, contents):
    with store.create("set", recipe={"v": 1}) as stage:
        for path, data in contents.items():
            (stage.path / path).parent.mkdir(exist_ok=True)
            (stage.path / path).write_bytes(data)
    store.promote("set")


# -- random flips ---------------------------------------------------------------------------------


@pytest.mark.timeout(600)  # seconds; ten on a quiet machine
def test_random_flips_everywhere_are_found_and_mended(tmp_path, on_moto):
    places = {
        "first": OnDisk(tmp_path / "first"),
        "second": OnDisk(tmp_path / "second"),
        "memory": InMemory(),
        "packed": InMemory(),
        "s3": on_moto(),
    }
    tiers = [
        Tier(
            name,
            place.backend,
            durable=name != "first",
            pack="auto" if name == "packed" else "never",
            adopt=False,
        )
        for name, place in places.items()
    ]
    store = TieredStore(tiers)
    create(store, FILES)
    before = {name: {k: p.get(k) for k in p.keys()} for name, p in places.items()}  # noqa: SIM118
    seed = int(os.environ.get("TIEREDSTORE_TEST_SEED", "0")) or random.randrange(1 << 30)
    chance, done = random.Random(seed), 0
    while done < FLIPS:
        seen = set()
        hit = dict.fromkeys(chance.sample(list(places), chance.randrange(1, 5)), 0)
        for name in hit:
            for _ in range(chance.randrange(1, 40)):
                hit[name] += flip(chance, places[name], seen)
        done += sum(hit.values())
        mended = {v.tier for v in store.repair(["set"])["set"] if v.repair is not None}
        assert mended == set(hit), seed
        for name, place in places.items():
            now = {k: place.get(k) for k in place.keys()}  # noqa: SIM118
            assert now.keys() == before[name].keys(), (seed, name)
            assert {k for k in now if now[k] != before[name][k]} <= heads(now), (seed, name)
    assert all(v.ok for v in store.verify("set")), seed
    fresh = TieredStore([Tier("fresh", LocalBackend(str(tmp_path / "fresh"))), *tiers[1:]])
    got = fresh.restore("set")
    assert {path: (got.path / path).read_bytes() for path in FILES} == FILES


def flip(chance, place, seen):
    """One bit of one object: data, records, head, index or shard; 1 where there was one to flip.

    Bytes of a tar archive that belong to no file are nobody's, see `verify`.
    """
    keys = [key for key in place.keys() if place.get(key)]  # noqa: SIM118
    own = [key for key in keys if "/.tieredstore" in key]
    key = chance.choice(own if chance.random() < 0.2 else keys)
    data = bytearray(place.get(key))
    at = chance.choice(_ours(data)) if key.endswith(".tar") else chance.randrange(len(data))
    bit = chance.randrange(8)
    mine = (id(place), key)
    many = len([one for one in seen if one[:2] == mine])
    if (*mine, at, bit) in seen or (key in heads([key]) and many >= 8):
        return 0  # it would be right again; or nobody could say whose head it was
    seen.add((*mine, at, bit))
    data[at] ^= 1 << bit
    place.put(key, bytes(data))
    return 1


def _ours(archive):
    """Some positions of an archive at which files' bytes lie."""
    found = [(archive.find(data[:64]), len(data)) for data in FILES.values() if len(data) > 99]
    return [at + size // 2 for at, size in found if at >= 0]


def heads(keys):
    """Heads may be spelt anew; what they say is compared with the manifest."""
    return {key for key in keys if key.endswith("/.tieredstore.json")}


# -- S3 -----------------------------------------------------------------------------------------


def test_of_a_file_of_many_parts_only_the_wrong_blocks_pass_the_wire(
    tmp_path, ceph, make_proxy, monkeypatch
):
    for key, value in ceph.environment.items():
        monkeypatch.setenv(key, value)
    bucket, other = (ceph.make_bucket(f"verify-{next(_numbers)}") for _ in range(2))
    proxy = make_proxy(ceph.port)
    damaged = InS3(ceph, bucket)
    source = InS3(ceph, other)
    through = S3Backend(other, endpoint_url=f"http://127.0.0.1:{proxy.port}", region="us-east-1")
    contents = {"large.bin": random.Random(2).randbytes(3 * PIECE + 4321), "small": b"s"}
    first = OnDisk(tmp_path / "first")
    tiers = [
        Tier("first", first.backend),
        Tier("damaged", damaged.backend, durable=True),
        Tier("source", source.backend, durable=True),
    ]
    store = TieredStore(tiers)
    create(store, contents)
    store.evict("set")
    [key] = [key for key in damaged.keys() if key.endswith("large.bin")]  # noqa: SIM118
    data = bytearray(damaged.get(key))
    for at in (5, PIECE + 7, PIECE + BLOCK + 8):
        data[at] ^= 1
    damaged.put(key, bytes(data))
    [bad] = store.verify("set", ["damaged"])
    assert (len(bad.problems), bad.bad) == (3, ("large.bin",))
    store = TieredStore([*tiers[:2], Tier("source", through, durable=True)])
    sent = proxy.down.sent
    [mended] = store.repair(["set"], ["damaged"])["set"]
    assert mended.repair.taken == 3 * BLOCK
    assert mended.repair.kept == len(data) - 3 * BLOCK
    passed = proxy.down.sent - sent
    assert 3 * BLOCK <= passed < 3 * BLOCK + 65536
    assert damaged.get(key) == contents["large.bin"]
    assert store.verify("set", ["damaged"])[0].ok


def test_a_server_that_goes_down_in_the_middle_is_not_taken_for_damage(tmp_path, ceph, monkeypatch):
    for key, value in ceph.environment.items():
        monkeypatch.setenv(key, value)
    bucket = ceph.make_bucket(f"verify-{next(_numbers)}")
    place = InS3(ceph, bucket)
    tier = Tier("s3", place.backend, durable=True, deadline=5)
    store = TieredStore([Tier("first", LocalBackend(str(tmp_path / "first"))), tier])
    create(store, {f"{n:02d}": bytes([n]) * BLOCK for n in range(24)})

    class Kill(Reporter):
        def advanced(self, size):
            ceph.kill_gateway()

    begun = time.monotonic()
    [far] = TieredStore(store.tiers, Kill()).verify("set", ["s3"])
    assert (far.ok, far.damaged, far.state) == (False, False, "unreachable")
    assert time.monotonic() - begun < 60


# -- the Hub --------------------------------------------------------------------------------------


def test_the_hub_is_promoted_to_again(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    path = Path(__file__).parents[1] / "servers" / "hub.py"
    spec = importlib.util.spec_from_file_location("verify_hub", path)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from tieredstore.backends.hf import HubBackend

    hub = module.Hub()
    hub.start()
    try:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        backend = HubBackend("hf://datasets/me/prepared", timeout=10, retry_for=10)
        first = Tier("first", LocalBackend(str(tmp_path / "first")))
        store = TieredStore([first, Tier("hub", backend, durable=True)])
        contents = {"train.bin": FILES["large.bin"], "small": b"small"}
        create(store, contents)
        for name in ("small", "train.bin", ".tieredstore.records", ".tieredstore.json"):
            data = bytearray(hub.read("me/prepared", f"set/{name}"))
            data[-3] ^= 1
            hub.put("me/prepared", f"set/{name}", bytes(data))
            assert store.verify("set")[1].damaged, name
            [_, far] = store.repair()["set"]
            assert far.repair.action == "repaired", name
            assert all(v.ok for v in store.verify("set")), name
        assert {n: hub.read("me/prepared", f"set/{n}") for n in contents} == contents
    finally:
        hub.stop()


# -- all artifacts --------------------------------------------------------------------------------


class Told(Reporter):
    def __init__(self):
        self.begun, self.ended, self.moved, self.lock = [], 0, 0, threading.Lock()

    def started(self, verb, name, size):
        self.begun.append((verb, name, size))

    def advanced(self, size):
        with self.lock:
            self.moved += size

    def finished(self, verb, name, path):
        self.ended += 1


def test_all_artifacts_in_all_tiers_with_one_progress(tmp_path):
    told = Told()
    tiers = [Tier("first", LocalBackend(str(tmp_path / "first")))]
    tiers += [
        Tier(name, LocalBackend(str(tmp_path / name)), durable=True) for name in ("second", "third")
    ]
    for tier in tiers:
        for name in ("one", "two", "deep/three"):
            publish(
                tier.backend, name, Sample({"file": name.encode() * 999}, None, f"gen-{name[:3]}-1")
            )
    store = TieredStore(tiers, told)
    found = store.verify_all()
    assert {name: [v.ok for v in copies] for name, copies in found.items()} == {
        name: [True] * 3 for name in ("deep/three", "one", "two")
    }
    whole = 3 * 999 * len("onetwodeep/three")
    assert (told.begun, told.ended, told.moved) == ([("verify", "3 artifacts", whole)], 1, whole)
    (tmp_path / "second" / "two" / "file").write_bytes(b"x" * 10)
    assert [v.ok for v in store.verify_all(["two"], ["second", "third"])["two"]] == [False, True]
    mended = store.repair()
    assert [v.repair and v.repair.action for v in mended["two"]] == [None, "repaired", None]


def test_what_cannot_be_mended_does_not_keep_the_rest_from_it(tmp_path):
    tiers = [Tier("first", LocalBackend(str(tmp_path / "first")))]
    tiers.append(Tier("second", LocalBackend(str(tmp_path / "second")), durable=True))
    store = TieredStore(tiers)
    for name in ("one", "two", "three"):
        with store.create(name) as stage:
            (stage.path / "file").write_bytes(name.encode() * 999)
        store.promote(name)
        (tmp_path / "second" / name / "file").write_bytes(b"damaged")
    (tmp_path / "first" / "two" / "file").unlink()
    with pytest.raises(RepairFailed, match="two: the copy in tier 'first'") as caught:
        store.repair()
    actions = {
        n: [v.repair and v.repair.action for v in c] for n, c in caught.value.verified.items()
    }
    assert actions == {
        "one": [None, "repaired"],
        "three": [None, "repaired"],
        "two": ["failed", "failed"],
    }
    assert [v.ok for v in store.verify("three")] == [True, True]
