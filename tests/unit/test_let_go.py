"""Files that were opened for a call are closed when it returns or raises, not some time later.

The interpreter's collector of circular references is off here: what only it would close is found.
"""

from __future__ import annotations

import gc
import os

import pytest

from tieredstore import Tier, TieredStore, local_tier
from tieredstore.errors import CorruptData, TieredStoreError

TIMES = 10


@pytest.fixture(autouse=True)
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def store(tmp_path):
    backend = local_tier(tmp_path / "below").backend
    store = TieredStore([local_tier(tmp_path / "first"), Tier("below", backend, durable=True)])
    create(store)
    return store


def create(store):
    with store.create("set") as stage:
        (stage.path / "a.bin").write_bytes(os.urandom(3000))
        (stage.path / "deep").mkdir()
        (stage.path / "deep" / "b.bin").write_bytes(os.urandom(3000))


def up_and_down(store, _):
    create(store)
    store.promote("set", replace=True)
    store.evict("set")
    store.restore("set").close()
    assert all(v.ok for v in store.verify("set"))


def damaged(store, tmp_path):
    create(store)
    store.promote("set", replace=True)
    (tmp_path / "first" / "set" / "a.bin").write_bytes(b"b" * 3000)
    (tmp_path / "below" / "set" / "a.bin").write_bytes(b"b" * 3000)
    assert not any(v.ok for v in store.verify("set"))
    with pytest.raises(CorruptData), store.open_stream("set", "a.bin") as stream:
        stream.read()
    with pytest.raises(TieredStoreError):
        store.repair(["set"])
    with pytest.raises(TieredStoreError):
        store.promote("nothing")


@pytest.mark.parametrize("work", [up_and_down, damaged])
def test_a_call_leaves_no_file_open(store, tmp_path, work):
    work(store, tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(TIMES):
        work(store, tmp_path)
    assert len(os.listdir("/proc/self/fd")) < before + TIMES / 2
