"""A server that is late and lacking, as RunPod's door to a network volume is, and its preset."""

from __future__ import annotations

import itertools
import random

import pytest

from tieredstore import PromoteFailed, Reporter, Tier, TieredStore, local_tier
from tieredstore.backends.s3 import S3Backend
from tieredstore.backends.s3.access import PRESETS, preset_of
from tieredstore.backends.s3.upload import PIECE, piece
from tieredstore.errors import ConfigError, TierUnavailable

LARGE = random.Random(8).randbytes(2 * PIECE + 4321)  # three parts
FILES = {"train.bin": LARGE, "sub/val.bin": b"val", "meta.json": b"{}"}
LAG = 0.6  # seconds
_numbers = itertools.count()


@pytest.fixture
def proxy(moto, monkeypatch, load_server):
    for key, value in moto.environment.items():
        monkeypatch.setenv(key, value)
    proxy = load_server("lagging").LaggingProxy(moto.url)
    yield proxy
    proxy.stop()


@pytest.fixture
def bucket(moto):
    return moto.make_bucket(f"runpod-{next(_numbers)}")


@pytest.fixture
def store(tmp_path, proxy, bucket):
    return store_on(tmp_path / "pod", bucket, proxy)


class Notes(Reporter):
    def __init__(self):
        self.said = []

    def skipped(self, tier, why):
        self.said.append(why)

    def corrupt(self, tier, what):
        self.said.append(what)


def store_on(folder, bucket, server, preset="runpod"):
    backend = S3Backend(bucket, server.url, preset=preset)
    return TieredStore([local_tier(folder), Tier("s3", backend, durable=True)], Notes())


def made(store, files=FILES, name="corpus"):
    with store.create(name, recipe={"of": name}) as stage:
        for path, data in files.items():
            (stage.path / path).parent.mkdir(parents=True, exist_ok=True)
            (stage.path / path).write_bytes(data)
    return store


def contents(got, files=FILES):
    return {path: (got.path / path).read_bytes() for path in files}


def keys(store):
    found = (f.path for f in store.tier("s3").backend.list(""))
    return [path for path in found if not path.startswith(".tieredstore/")]


def test_there_and_back_through_everything_at_once(tmp_path, store, proxy, bucket):
    proxy.lag, proxy.listing, proxy.completing = LAG, 0.3, LAG
    made(store).promote("corpus")
    other = store_on(tmp_path / "cluster", bucket, proxy)
    assert contents(other.restore("corpus")) == FILES  # at once: it is shown when promote returns
    assert other.reporter.said == []
    new = {"train.bin": b"new", "more": b"m"}
    made(store, new).promote("corpus", replace=True)
    assert contents(store_on(tmp_path / "third", bucket, proxy).restore("corpus"), new) == new
    (done,) = store.collect(["s3"], grace=0)
    assert [left.what for left in done.dropped] == ["generation"]
    assert all(v.ok for v in store.verify("corpus"))
    store.evict("corpus")
    store.restore("corpus")
    head = store.locate("corpus")[1].head
    store.tier("s3").backend.remove("corpus", head)
    assert keys(store) == []
    assert proxy.asked["bulk"] == 0


def test_what_an_interrupted_promote_left_is_gone_on_with(store, proxy):
    proxy.lag = LAG
    made(store)
    backend, head = store.tier("s3").backend, store.locate("corpus")[0].head
    records = store.locate("corpus")[0].records()
    staging = backend.begin("corpus", head)
    small = staging.create(records.files["sub/val.bin"])
    small.write(0, memoryview(FILES["sub/val.bin"]))
    small.close()
    large = staging.create(records.files["train.bin"])
    large.write(0, memoryview(LARGE)[:PIECE])
    before = proxy.asked["part"]
    store.promote("corpus")
    assert all(v.ok for v in store.verify("corpus"))
    assert proxy.asked["part"] - before <= 4  # a list of parts, two parts, never the first again


def test_without_the_preset_deleting_fails_in_one_line(tmp_path, proxy, bucket):
    plain = made(store_on(tmp_path / "pod", bucket, proxy, preset=None))
    plain.promote("corpus")
    head = plain.locate("corpus")[1].head
    with pytest.raises(TierUnavailable, match="NotImplemented") as error:
        plain.tier("s3").backend.remove("corpus", head)
    assert "\n" not in str(error.value)


def test_without_the_preset_what_is_shown_late_counts_as_failed(tmp_path, proxy, bucket):
    proxy.lag = 60.0
    plain = made(store_on(tmp_path / "pod", bucket, proxy, preset=None), {"a": b"1"})
    with pytest.raises(PromoteFailed):
        plain.promote("corpus")


def test_without_the_preset_a_late_completion_counts_as_failed(tmp_path, proxy, bucket):
    proxy.completing = 60.0
    plain = made(store_on(tmp_path / "pod", bucket, proxy, preset=None))
    with pytest.raises(PromoteFailed, match="GatewayTimeout"):
        plain.promote("corpus")


def test_what_is_never_shown_is_said(store, proxy, monkeypatch):
    proxy.lag = 60.0
    store.tier("s3").backend.lagging = 1.0
    made(store, {"a": b"1"})
    with pytest.raises(PromoteFailed, match="was written, and is not shown after 1 s"):
        store.promote("corpus")


def test_a_damaged_object_is_not_taken_for_a_late_completion(store, proxy, monkeypatch):
    made(store).promote("corpus")
    backend, head = store.tier("s3").backend, store.locate("corpus")[1].head
    damaged = bytes(b ^ 0xFF for b in LARGE)
    backend.objects.put(backend.data_path("corpus", head, "train.bin"), damaged)
    backend.set_aside("corpus", head)
    proxy.completing = 60.0
    monkeypatch.setattr(backend.uploads, "patience", 1.0)
    with pytest.raises(PromoteFailed):
        store.promote("corpus")
    assert store.locate("corpus")[1].state == "absent"


# -- a server that ignores conditions -----------------------------------------------------------


def test_a_server_without_conditions_has_no_leases_and_serves_all_the_same(store, proxy):
    proxy.conditions = False
    backend = store.tier("s3").backend
    with pytest.raises(OSError, match="ignores conditions on writes, so it has no leases") as error:
        backend.lease("key", 1, print)
    assert "\n" not in str(error.value)
    made(store, {"a": b"1"}).promote("corpus")
    assert [why for why in store.reporter.said if "no leases" in why]
    assert store.verify("corpus")[1].ok


# -- what the preset says -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, PIECE, 10**10, 4 * 10**12])
def test_parts_stay_below_what_it_takes(size):
    assert piece(size) < 500_000_000
    assert -(-size // piece(size)) <= 10_000


def test_its_endpoint_is_known():
    known = PRESETS["runpod"]
    assert preset_of(None, "https://s3api-eur-is-1.runpod.io/") is known
    assert preset_of("runpod", "http://127.0.0.1:9000") is known
    assert preset_of(None, "https://runpod.io.example.org") is PRESETS[""]
    assert preset_of(None, "https://notrunpod.io") is PRESETS[""]
    assert preset_of(None, None) is PRESETS[""]
    with pytest.raises(ConfigError, match="preset is 'r2', expected one of 'runpod'"):
        preset_of("r2", None)
