"""Packed copies that are read by range, are damaged, or were left half-way."""

from __future__ import annotations

import random
import subprocess
import sys
import threading

import fsspec
import pytest

from tieredstore import PromoteFailed, Tier
from tieredstore.manifest import shards as shards_module
from tieredstore.manifest.artifact import SHARDS
from tieredstore.manifest.shards import shard_name
from tieredstore.moving import packing as packing_module
from tieredstore.testing.faults import FaultyBackend, honest, steady

# -- how it is read -----------------------------------------------------------------------------


class Reads:
    """Notes each read of a place, and may change what was read."""

    def __init__(self, backend, change=honest):
        self.reads = []
        self.change = change
        self.lock = threading.Lock()
        self.backend = FaultyBackend(backend, steady, self._on_read)

    def _on_read(self, offset, buffer, got):
        with self.lock:
            self.reads.append((offset, got))
            return self.change(offset, buffer, got)

    @property
    def bytes(self):
        return sum(got for _, got in self.reads)


def test_neighbours_come_by_one_request_and_others_stay_where_they_are(kit, tmp_path, published):
    whole = Reads(published)
    kit.store_on(tmp_path / "one", kit.far(whole.backend)).restore("set")
    assert len(whole.reads) < 40 < len(kit.FILES)
    some = Reads(published)
    wanted = ["d0/0000", "d3/0150"]
    got = kit.store_on(tmp_path / "two", kit.far(some.backend)).restore("set", files=wanted)
    assert kit.contents(got.path) == {path: kit.FILES[path] for path in wanted}
    head = published.read_head("set").head
    manifest = head.records_size + head.shards.size
    assert some.bytes < manifest + sum(len(kit.FILES[path]) for path in wanted) + 2000


def test_one_bad_block_on_the_wire_is_fetched_again_by_itself(kit, tmp_path, published):
    def once(offset, buffer, got):
        if got > 100_000 and not done:  # files that came together
            done.append(offset)
            for at in range(got // 2, got // 2 + 2048, 256):  # headers are no longer than that
                buffer[at] ^= 1
        return got

    done = []
    reads = Reads(published, once)
    told = kit.Told()
    got = kit.store_on(tmp_path / "one", kit.far(reads.backend), reporter=told).restore("set")
    assert done
    assert kit.contents(got.path) == kit.FILES
    assert not got.skipped
    assert not told.damage
    clean = Reads(published)
    kit.store_on(tmp_path / "two", kit.far(clean.backend)).restore("set")
    assert 0 < reads.bytes - clean.bytes < 100_000


def test_answers_that_end_early_are_asked_for_again(kit, tmp_path, published):
    def short(offset, buffer, got):
        if got > 100_000:
            return got // 2
        return got

    reads = Reads(published, short)
    got = kit.store_on(tmp_path / "one", kit.far(reads.backend)).restore(
        "set", files=sorted(kit.FILES)[:50]
    )
    assert kit.contents(got.path) == {path: kit.FILES[path] for path in sorted(kit.FILES)[:50]}


# -- damage -------------------------------------------------------------------------------------


def test_verify_finds_a_flipped_byte_in_a_shard(kit, tmp_path, published):
    kit.flip(published, "d4/0004")
    [_, verified] = kit.store_on(tmp_path / "published", kit.far(published)).verify("set")
    assert not verified.ok
    [problem] = verified.problems
    assert "d4/0004: bytes 0 to" in problem
    assert ".tieredstore.shards-0000" in problem


def test_verify_finds_shards_that_are_gone_longer_or_without_index(kit, tmp_path, published):
    fs = fsspec.filesystem("memory")
    store = kit.store_on(tmp_path / "published", kit.far(published))
    [first, *_] = sorted(fs.glob(f"{published.place}/set/*/*.tar"))
    [index] = fs.glob(f"{published.place}/set/*/{SHARDS}")
    for key, data in ((first, fs.cat_file(first) + b"more"), (first, None), (index, b"{}")):
        good = fs.cat_file(key)
        fs.rm_file(key)
        if data is not None:
            fs.pipe_file(key, data)
        assert not store.verify("set")[1].ok
        fs.pipe_file(key, good)
    assert store.verify("set")[1].ok


@pytest.mark.parametrize("damage", ["byte", "shard", "index"])
def test_what_a_shard_has_wrong_comes_from_the_next_tier(kit, tmp_path, published, damage):
    below = kit.memory()
    tiers = [kit.far(published), Tier("below", below, durable=True)]
    kit.store_on(tmp_path / "published", *tiers).promote("set")
    fs = fsspec.filesystem("memory")
    if damage == "byte":
        kit.flip(published, "d1/0008")
    else:
        name = SHARDS if damage == "index" else shard_name(0)
        [key] = fs.glob(f"{published.place}/set/*/{name}")
        fs.rm_file(key)
    told = kit.Told()
    got = kit.store_on(tmp_path / "fresh", *tiers, reporter=told).restore("set")
    assert kit.contents(got.path) == kit.FILES
    assert [tier for tier, _ in told.damage] == ["far"]
    assert published.read_head("set") is None  # set aside
    kit.store_on(tmp_path / "fresh", *tiers).promote("set")
    assert kit.restored(tmp_path / "again", kit.far(published)) == kit.FILES


def test_a_damaged_source_is_noticed_before_anything_is_published(kit, tmp_path):
    backend = kit.memory()
    store = kit.store_on(tmp_path / "one", kit.far(backend))
    kit.create(store, kit.FILES)
    path = tmp_path / "one" / "set" / "d2/0002"
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)
    with pytest.raises(PromoteFailed, match="d2/0002"):
        store.promote("set")
    assert backend.read_head("set") is None


# -- stopped in the middle ----------------------------------------------------------------------

_CHILD = """
import sys
from tieredstore import Tier, TieredStore
from tieredstore.moving import packing
from tieredstore.manifest import shards
from tieredstore.backends.local import LocalBackend
from tieredstore.backends.s3 import S3Backend
from tieredstore.testing.faults import FaultyKeyed, Points, kill_before
shards.MANY, shards.LARGE, packing.SHARD = {many}, {large}, {shard}
far = FaultyKeyed(S3Backend({url!r}, {endpoint!r}), Points(kill_before, first={at}))
tiers = [Tier("first", LocalBackend({folder!r})), Tier("far", far, durable=True, pack="auto")]
TieredStore(tiers).promote("set")
"""


def test_a_killed_promote_sends_only_the_shards_that_are_missing(kit, tmp_path, s3, moto):
    store = kit.store_on(tmp_path / "one", kit.far(s3()))
    kit.create(store, kit.FILES)
    child = _CHILD.format(
        many=100,
        large=kit.LARGE,
        shard=kit.SHARD,
        url=s3().place,
        endpoint=moto.url,
        folder=str(tmp_path / "one"),
        at=5,
    )
    done = subprocess.run([sys.executable, "-c", child], check=False, timeout=60)
    assert done.returncode == -9
    assert s3().read_head("set") is None
    left = {f.path for f in s3().list("set")}
    assert left
    [outcome] = store.promote("set")
    assert 0 < outcome.size < kit.SIZE
    assert kit.restored(tmp_path / "two", kit.far(s3())) == kit.FILES


def test_parts_of_a_shard_are_gone_on_with(kit, tmp_path, s3, monkeypatch):
    monkeypatch.setattr(packing_module, "SHARD", 64 << 20)
    monkeypatch.setattr(shards_module, "LARGE", 2 << 20)
    chance = random.Random(3)
    files = {f"{n:03d}": chance.randbytes(200_000) for n in range(200)}
    backend = s3()
    store = kit.store_on(tmp_path / "one", kit.far(backend))
    kit.create(store, files)
    real, sent = backend.uploads.send, []

    def send(path, upload, number, data):
        if number == 2:
            raise OSError(5, "Input/output error")
        return real(path, upload, number, data)

    monkeypatch.setattr(backend.uploads, "send", send)
    with pytest.raises(PromoteFailed):
        store.promote("set")
    fresh = s3()
    real = fresh.uploads.send

    def note(path, upload, number, data):
        sent.append(number)
        return real(path, upload, number, data)

    monkeypatch.setattr(fresh.uploads, "send", note)
    kit.store_on(tmp_path / "one", kit.far(fresh)).promote("set")
    assert 2 in sent
    assert len(sent) < 3
    assert kit.restored(tmp_path / "two", kit.far(s3())) == files
