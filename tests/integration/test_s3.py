"""Promoting to and restoring from a real S3 server, Ceph's gateway, that breaks on the way."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from tieredstore import Reporter, Tier, TieredStore, local_tier
from tieredstore.backends.local import LocalBackend
from tieredstore.backends.s3 import S3Backend
from tieredstore.backends.s3.upload import PIECE
from tieredstore.errors import ArtifactNotFound, PromoteFailed, TieredStoreError

LARGE = random.Random(5).randbytes(5 * PIECE + 4321)  # six parts
FILES = {"train.bin": LARGE, "sub/val.bin": b"val", "empty": b"", "meta.json": b"{}"}
SIZE = sum(map(len, FILES.values()))
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _credentials(ceph, monkeypatch):
    monkeypatch.setattr(S3Backend, "lease_length", 2.0)
    for key, value in ceph.environment.items():
        monkeypatch.setenv(key, value)


@pytest.fixture
def bucket(ceph):
    return ceph.make_bucket(f"s3-breaks-{next(_numbers)}")


@pytest.fixture
def proxy(ceph, make_proxy):
    return make_proxy(ceph.port)


class Notes(Reporter):
    def __init__(self, at=0, then=None):
        self.said, self.moved, self.at, self.then = [], 0, at, then
        self.lock = threading.Lock()

    def skipped(self, tier, why):
        self.said.append(why)

    def corrupt(self, tier, what):
        self.said.append(what)

    def advanced(self, size):
        with self.lock:
            self.moved += size
            then, self.then = (self.then, None) if self.moved > self.at else (None, self.then)
        if then:
            then()


def store_on(folder, bucket, server, reporter=None):
    tiers = [local_tier(folder), Tier("s3", S3Backend(bucket, server.url), durable=True)]
    return TieredStore(tiers, reporter)


def made(store, name="corpus", files=FILES):
    with store.create(name, recipe={"of": name}) as stage:
        for path, data in files.items():
            (stage.path / path).parent.mkdir(parents=True, exist_ok=True)
            (stage.path / path).write_bytes(data)
    return store


def contents(got, files=FILES):
    return {path: (got.path / path).read_bytes() for path in files}


def parts_left(bucket, server):
    return list(S3Backend(bucket, server.url).uploads.below(""))


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    assert "<" not in text
    assert "ceph-secret" not in text
    return text


def test_there_and_back(tmp_path, bucket, ceph):
    made(store_on(tmp_path / "pod", bucket, ceph)).promote("corpus")
    got = store_on(tmp_path / "cluster", bucket, ceph).restore("corpus")
    assert got.source == "s3"
    assert contents(got) == FILES
    assert parts_left(bucket, ceph) == []
    assert all(v.ok for v in store_on(tmp_path / "pod", bucket, ceph).verify("corpus"))


def test_blocks_and_files_are_read_by_range(tmp_path, bucket, ceph, proxy):
    made(store_on(tmp_path / "pod", bucket, ceph)).promote("corpus")
    store = store_on(tmp_path / "cluster", bucket, proxy)
    got = store.restore("corpus", files=["sub/val.bin"])
    assert (got.path / "sub/val.bin").read_bytes() == b"val"
    with store.open_stream("corpus", "train.bin") as stream:
        assert stream.read(1000) == LARGE[:1000]
    assert proxy.down.sent < 3 << 20


PROMOTE = """
import os, signal, sys
from tieredstore import Reporter, Tier, TieredStore, local_tier
from tieredstore.backends.s3 import S3Backend
class Kill(Reporter):
    moved = 0
    def advanced(self, size):
        self.moved += size
        if self.moved > int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)
S3Backend.request, S3Backend.lease_length = 1 << 20, 1.0
tiers = [local_tier(sys.argv[1]), Tier("s3", S3Backend(sys.argv[2], sys.argv[3]), durable=True)]
store = TieredStore(tiers, Kill())
getattr(store, sys.argv[5])("corpus")
"""


def killed(tmp_path, bucket, server, verb, after):
    command = [sys.executable, "-c", PROMOTE, str(tmp_path), bucket, server.url]
    command += [str(after), verb]
    run = subprocess.run(command, env=os.environ, timeout=60, capture_output=True, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr.decode()


def test_a_killed_promote_is_gone_on_with_by_its_parts(tmp_path, bucket, ceph, proxy):
    store = made(store_on(tmp_path / "pod", bucket, proxy))
    killed(tmp_path / "pod", bucket, ceph, "promote", 2 * PIECE)
    assert len(parts_left(bucket, ceph)) == 1
    assert store_on(tmp_path / "cluster", bucket, ceph).locate("corpus")[1].state == "absent"
    store.promote("corpus")
    assert proxy.up.sent < SIZE - PIECE  # at least two parts were there
    assert parts_left(bucket, ceph) == []
    assert contents(store_on(tmp_path / "cluster", bucket, ceph).restore("corpus")) == FILES


def test_a_killed_restore_is_gone_on_with(tmp_path, bucket, ceph, proxy):
    made(store_on(tmp_path / "pod", bucket, ceph)).promote("corpus")
    killed(tmp_path / "cluster", bucket, ceph, "restore", 4 * PIECE)
    got = store_on(tmp_path / "cluster", bucket, proxy).restore("corpus")
    assert contents(got) == FILES
    assert proxy.down.sent < SIZE - 2 * PIECE  # ranges of 8 MiB that were begun are fetched again


@pytest.mark.parametrize("verb", ["promote", "restore"])
def test_a_server_killed_in_the_middle_fails_in_one_line_and_is_gone_on_with(
    tmp_path, bucket, ceph, proxy, verb
):
    pod = made(store_on(tmp_path / "pod", bucket, ceph))
    if verb == "restore":
        pod.promote("corpus")
    folder = tmp_path / ("pod" if verb == "promote" else "cluster")
    broken = store_on(folder, bucket, ceph, Notes(2 * PIECE, ceph.kill_gateway))
    with pytest.raises((PromoteFailed, ArtifactNotFound)) as error:
        getattr(broken, verb)("corpus")
    assert "s3" in one_line(error)
    ceph.start_gateway()
    assert verb == "restore" or store_on(folder, bucket, ceph).locate("corpus")[1].state == "absent"
    getattr(store_on(folder, bucket, proxy), verb)("corpus")
    assert proxy.up.sent + proxy.down.sent < SIZE - PIECE // 2
    assert contents(store_on(tmp_path / "cluster", bucket, ceph).restore("corpus")) == FILES


@pytest.mark.parametrize("verb", ["promote", "restore"])
def test_a_server_started_again_soon_is_waited_for(tmp_path, bucket, ceph, verb):
    pod = made(store_on(tmp_path / "pod", bucket, ceph))
    if verb == "restore":
        pod.promote("corpus")

    def restart():
        ceph.kill_gateway()
        threading.Thread(target=ceph.start_gateway).start()

    folder = tmp_path / ("pod" if verb == "promote" else "cluster")
    store = store_on(folder, bucket, ceph, Notes(2 * PIECE, restart))
    getattr(store, verb)("corpus")
    assert contents(store_on(tmp_path / "cluster", bucket, ceph).restore("corpus")) == FILES


def test_connections_that_break_now_and_then_cost_only_their_range(tmp_path, bucket, ceph, proxy):
    made(store_on(tmp_path / "pod", bucket, ceph)).promote("corpus")
    proxy.down.fail("reset", after=3 << 20, times=4)
    got = store_on(tmp_path / "cluster", bucket, proxy).restore("corpus")
    assert contents(got) == FILES
    assert proxy.down.times == 0


def test_an_upload_given_up_leaves_no_parts(tmp_path, bucket, ceph):
    def give_up():
        raise RuntimeError("given up")

    made(store_on(tmp_path / "pod", bucket, ceph))
    store = store_on(tmp_path / "pod", bucket, ceph, Notes(2 * PIECE, give_up))
    with pytest.raises(RuntimeError, match="given up"):
        store.promote("corpus")
    assert parts_left(bucket, ceph) == []


def test_a_damaged_object_is_never_served(tmp_path, bucket, ceph):
    pod = made(store_on(tmp_path / "pod", bucket, ceph))
    pod.promote("corpus")
    backend = S3Backend(bucket, ceph.url)
    head = backend.read_head("corpus").head
    damaged = bytearray(LARGE)
    damaged[3 * PIECE] ^= 1
    backend.objects.put(backend.data_path("corpus", head, "train.bin"), bytes(damaged))
    fresh = store_on(tmp_path / "cluster", bucket, ceph)
    with pytest.raises(ArtifactNotFound, match="differ from the manifest"):
        fresh.restore("corpus")
    assert backend.read_head("corpus") is None
    pod.promote("corpus")
    assert contents(fresh.restore("corpus")) == FILES


def test_an_object_overwritten_while_it_is_read_is_noticed(bucket, ceph):
    backend = S3Backend(bucket, ceph.url)
    backend.objects.put("file", b"one " * 1000)
    buffer = memoryview(bytearray(8))
    with backend.source("", None).open("file") as reader:
        assert reader.readinto(0, buffer) == 8
        backend.objects.put("file", b"two " * 1000)
        with pytest.raises(TieredStoreError, match="changed while it was read"):
            reader.readinto(8, buffer)


def test_of_two_that_promote_different_things_one_is_told(tmp_path, bucket, ceph):
    for pod in ("one", "two"):
        made(store_on(tmp_path / pod, bucket, ceph), files={"a": pod.encode()})
    results = []

    def promote(pod):
        try:
            results.append(store_on(tmp_path / pod, bucket, ceph).promote("corpus")[0].action)
        except TieredStoreError as error:
            results.append(str(error))

    threads = [threading.Thread(target=promote, args=(pod,)) for pod in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    got = store_on(tmp_path / "cluster", bucket, ceph).restore("corpus")
    assert (got.path / "a").read_bytes() in {b"one", b"two"}
    assert "copied" in results


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "access denied"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no AWS credentials found"),
    ],
)
def test_wrong_and_missing_credentials_are_said_in_one_line(
    tmp_path, bucket, ceph, monkeypatch, change, expected
):
    for key, value in change.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ArtifactNotFound) as error:
        store_on(tmp_path, bucket, ceph).restore("corpus")
    text = one_line(error)
    assert text.count(expected) == 1
    assert "External" not in text
    assert "wrong-secret" not in text


def test_a_missing_bucket_is_said(tmp_path, ceph):
    with pytest.raises(ArtifactNotFound, match="no such bucket"):
        store_on(tmp_path, "s3://is-not-there", ceph).restore("corpus")


def test_what_the_server_makes_of_conditions_is_remembered(bucket, ceph, proxy):
    backend = S3Backend(bucket, ceph.url)
    found = backend.heads.conditions()
    assert (found.create, found.replace) == (True, "plain")  # this gateway's quirk
    before = proxy.up.sent
    since = time.monotonic()
    assert S3Backend(bucket, proxy.url).heads.conditions() == found
    assert proxy.up.sent - before < 2000  # one question
    assert time.monotonic() - since < 15


def test_a_generation_that_replaces_another_is_whole(tmp_path, bucket, ceph):
    pod = made(store_on(tmp_path / "pod", bucket, ceph), files={"a": b"one", "b": b"two"})
    pod.promote("corpus")
    made(pod, files={"a": b"three"})
    pod.promote("corpus")
    got = store_on(tmp_path / "cluster", bucket, ceph).restore("corpus")
    assert {p.name for p in got.path.iterdir() if not p.name.startswith(".")} == {"a"}
    assert isinstance(pod.tiers[0].backend, LocalBackend)
