"""S3 that answers every tenth request with an error, half of a body, or nothing.

Each verb does its work all the same or raises one clear error; nothing wrong is handed out, and
what was promised is there when the server is well again.
"""

from __future__ import annotations

import os
import shutil
import time

import pytest

from tieredstore.backends.local import LocalBackend
from tieredstore.backends.s3 import S3Backend
from tieredstore.errors import TieredStoreError
from tieredstore.store import TieredStore
from tieredstore.tiers.tier import Tier

SEEDS = int(os.environ.get("TIEREDSTORE_TEST_FLAKY", "1"))
FILES = {**{f"small/{n}": os.urandom(3000) for n in range(20)}, "large": os.urandom(20 << 20)}
VERBS = ("promote", "verify", "status", "evict", "restore", "ensure", "collect")
DEADLINE = 20.0


class Short(S3Backend):
    lease_length = 2.0  # seconds for which a lease stands that could not be let go


@pytest.fixture
def flaky(moto, load_server, monkeypatch):
    """Makes stores over one bucket behind a flaky proxy, and one that goes past it."""
    for key, value in moto.environment.items():
        monkeypatch.setenv(key, value)
    started = []

    def made(seed):
        proxy = load_server("flaky").FlakyProxy(moto.url, seed)
        started.append(proxy)
        bucket = moto.make_bucket(f"flaky-{time.monotonic_ns()}")
        return proxy, bucket

    yield made
    for proxy in started:
        proxy.stop()


def store_of(folder, bucket, url):
    s3 = Tier("s3", Short(bucket, url), durable=True, deadline=DEADLINE)
    return TieredStore([Tier("local", LocalBackend(str(folder))), s3])


def build(stage):
    for file, data in FILES.items():
        (stage.path / file).parent.mkdir(exist_ok=True)
        (stage.path / file).write_bytes(data)


def content(got):
    found = {}
    with got:
        for file in FILES:
            with got.open(file) as opened:
                found[file] = opened.read()
    return found


def do(store, verb):
    if verb == "ensure":
        return store.ensure("set", build, {"v": 1})
    if verb in {"status", "collect"}:
        return getattr(store, verb)()
    return getattr(store, verb)("set")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_tenth_request_fails(flaky, moto, tmp_path, seed):
    proxy, bucket = flaky(seed)
    well = store_of(tmp_path / "local", bucket, moto.url)
    with well.create("set", {"v": 1}) as stage:
        build(stage)
    proxy.share = 0.1
    failed = []
    for verb in VERBS:
        store = store_of(tmp_path / "local", bucket, proxy.url)
        since = time.monotonic()
        try:
            done = do(store, verb)
        except TieredStoreError as error:
            failed.append((verb, str(error)))
        else:
            if verb in {"restore", "ensure"}:
                assert content(done) == FILES
        took = time.monotonic() - since
        assert took < 5 * DEADLINE, f"{verb} took {took:.0f} s: {failed}"
        assert well.locate("set")[0].state == "whole" or well.locate("set")[1].state == "whole"
    assert not any("\n" in text for _, text in failed), failed
    assert len(failed) <= 1, failed  # almost all of it is tried again and done
    assert sum(proxy.met[way] for way in proxy.met if way) >= 3, proxy.met
    well.promote("set")
    assert [v.ok for v in well.verify("set")] == [True, True]
    shutil.rmtree(tmp_path / "local")
    assert content(well.restore("set")) == FILES
