"""What is left over in a bucket, found and dropped: killed promotes, replaced generations."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from tieredstore import PromoteFailed, Tier, TieredStore, local_tier
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.backends.s3 import S3Backend
from tieredstore.backends.s3.upload import PIECE
from tieredstore.cli import run
from tieredstore.errors import Unsupported
from tieredstore.manifest.artifact import HEAD

LARGE = random.Random(6).randbytes(3 * PIECE + 4321)  # four parts
FILES = {"aa-small.bin": b"small", "train.bin": LARGE}
GRACE = 1.0  # seconds; times of S3 are whole ones
_numbers = itertools.count()


@pytest.fixture(params=["moto", "ceph"])
def server(request, monkeypatch):
    server = request.getfixturevalue(request.param)
    for key, value in server.environment.items():
        monkeypatch.setenv(key, value)
    return server


@pytest.fixture
def bucket(server):
    return server.make_bucket(f"gc-{next(_numbers)}")


@pytest.fixture
def store(tmp_path, server, bucket, monkeypatch):
    monkeypatch.setattr(S3Backend, "lease_length", 1.0)
    return store_on(tmp_path / "pod", bucket, server)


def store_on(folder, bucket, server):
    tiers = [local_tier(folder), Tier("s3", S3Backend(bucket, server.url), durable=True)]
    return TieredStore(tiers)


def made(store, name, files):
    with store.create(name, recipe={"of": name}) as stage:
        for path, data in files.items():
            (stage.path / path).write_bytes(data)


def keys(store):
    found = (f.path for f in store.tier("s3").backend.list(""))
    return [path for path in found if not path.startswith(".tieredstore/")]


def uploads(store):
    return list(store.tier("s3").backend.uploads.below(""))


def grown_old():
    time.sleep(GRACE + 1.5)


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
S3Backend.lease_length = 1.0
S3Backend.parallel = 1
from tieredstore.backends.s3 import backend as s3
s3.S3Staging.parallel = 1
tiers = [local_tier(sys.argv[1]), Tier("s3", S3Backend(sys.argv[2], sys.argv[3]), durable=True)]
TieredStore(tiers, Kill()).promote("corpus")
"""


@pytest.fixture
def killed(tmp_path, server, bucket, store):
    """A promote of a large file that was killed when two of its parts were there."""
    made(store, "corpus", FILES)
    command = [sys.executable, "-c", PROMOTE, str(tmp_path / "pod"), bucket, server.url]
    command += [str(2 * PIECE + 100)]
    done = subprocess.run(command, env=os.environ, timeout=60, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(uploads(store)) == 1
    return store


def test_what_a_killed_promote_has_left_is_found_and_dropped(killed):
    store = killed
    made(store, "other", {"a": b"kept"})
    store.promote("other")
    kept = set(keys(store)) - {k for k in keys(store) if k.startswith("corpus/")}
    (looked,) = store.litter(["s3"], grace=3600)
    assert (looked.tier, looked.litter, looked.failed) == ("s3", (), "")
    grown_old()
    (looked,) = store.litter(["s3"], grace=GRACE)
    size = {left.what: left.size for left in looked.litter}
    assert size["upload"] >= 2 * PIECE
    (done,) = store.collect(["s3"], grace=GRACE)
    assert done.dropped == done.litter == looked.litter
    assert done.freed == sum(left.size for left in looked.litter)
    assert uploads(store) == []
    assert set(keys(store)) == kept
    assert all(v.ok for v in store.verify("other"))
    store.promote("corpus")
    assert all(v.ok for v in store.verify("corpus"))


def test_a_promote_that_goes_on_while_it_is_collected_ends_whole(killed):
    store, stop = killed, threading.Event()
    grown_old()
    collected = []

    def collect():
        while not stop.is_set():
            collected.extend(store.collect(["s3"], grace=GRACE))

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for _ in range(5):
            with suppress(PromoteFailed):  # its upload was ended under it
                store.promote("corpus")
                break
    finally:
        stop.set()
        thread.join(30)
    assert [done.failed for done in collected if done.failed] == []
    assert all(v.ok for v in store.verify("corpus"))


def test_an_upload_that_is_given_up_leaves_no_parts(store, server):
    made(store, "corpus", FILES)
    path = store.restore("corpus").path / "train.bin"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(PromoteFailed, match="differ"):
        store.promote("corpus")
    assert uploads(store) == []


# -- the command --------------------------------------------------------------------------------


@pytest.fixture
def configured(tmp_path, moto, monkeypatch):
    """A folder with a configuration, and a bucket with a replaced generation."""
    for key, value in moto.environment.items():
        monkeypatch.setenv(key, value)
    bucket = moto.make_bucket(f"gc-{next(_numbers)}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tieredstore.toml").write_text(
        '[[tier]]\nname = "local"\nbackend = "local"\npath = "pod"\n'
        f'[[tier]]\nname = "s3"\nbackend = "s3"\nurl = "{bucket}/datasets"\n'
        f'endpoint_url = "{moto.url}"\ndurable = true\n'
        '[[tier]]\nname = "far"\nbackend = "fsspec"\nurl = "memory://gc-far"\nread_only = true\n'
        '[[tier]]\nname = "web"\nbackend = "http"\nurl = "http://127.0.0.1:9/data"\n'
    )
    store = store_on(tmp_path / "pod", f"{bucket}/datasets", moto)
    for data in (b"old", b"new"):
        made(store, "name", {"a": data})
        store.promote("name", replace=True)
    return store


def test_the_command_shows_and_drops(configured, capsys):
    grown_old()
    assert run(["gc"]) == 0
    assert capsys.readouterr().out == "nothing left over in local, s3\n"
    assert run(["gc", "--tier", "s3", "--older-than", "1s", "--dry-run"]) == 0
    row, closing = capsys.readouterr().out.splitlines()
    assert row.split("\t")[:2] == ["s3", "generation"]
    assert closing.startswith("1 left over in s3, ")
    assert len(keys(configured)) == 5
    assert run(["gc", "--tier", "s3", "--older-than", "1s"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == row
    assert shown[1].startswith("dropped 1 of 1 in s3, ")
    assert len(keys(configured)) == 3
    assert sum(key.endswith(HEAD) for key in keys(configured)) == 1
    assert configured.verify("name")[1].ok


def test_the_command_says_the_same_as_json(configured, capsys):
    grown_old()
    assert run(["gc", "--tier", "s3", "--older-than", "1s", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    ((tier,), skipped) = document["tiers"], document["skipped"]
    ((left,), freed) = tier["litter"], tier["freed"]
    assert (tier["tier"], tier["failed"], skipped) == ("s3", "", {})
    assert (left["what"], left["dropped"], left["size"]) == ("generation", True, freed)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--older-than", "soon"], 2, "'soon' is no time, expected one such as"),
        (["--tier", "web"], 1, "tier 'web' cannot tell what is left over in it"),
        (["--tier", "far"], 1, "tier 'far' is read-only"),
        (["--tier", "none"], 2, "no tier 'none'"),
    ],
)
def test_wrong_use_is_one_line(configured, arguments, code, said):
    command = [sys.executable, "-m", "tieredstore.cli", "gc", *arguments]
    done = subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_tier_that_fails_is_said_and_is_a_failure(configured, capsys, tmp_path):
    text = (tmp_path / "tieredstore.toml").read_text()
    down = text.replace('[[tier]]\nname = "far"', '[[tier]]\nname = "x"')
    (tmp_path / "tieredstore.toml").write_text(
        down.replace('"memory://gc-far"\nread_only = true', '"nothing-has-this-protocol://x"')
    )
    assert run(["gc"]) == 1
    out, error = capsys.readouterr()
    assert out == "nothing left over in local, s3\n"
    assert "tier 'x' skipped" in error
    assert "not collected to the end: x" in error


def test_a_place_that_says_no_times_is_left_out_unless_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("tieredstore.backends.fsspec._WHEN", ())
    timeless = Tier("timeless", FsspecBackend("memory://timeless"), durable=True)
    store = TieredStore([local_tier(tmp_path), timeless])
    assert [found.tier for found in store.litter()] == ["local"]
    with pytest.raises(Unsupported, match="does not say when its keys were written"):
        store.collect(["timeless"])


def test_through_fsspec_too(tmp_path, moto):
    place = FsspecBackend(f"{moto.make_bucket(f'gc-{next(_numbers)}')}/some/prefix", moto.options)
    store = TieredStore([local_tier(tmp_path), Tier("s3", place, durable=True)])
    for data in (b"old", b"new"):
        made(store, "name", {"a": data})
        store.promote("name", replace=True)
    grown_old()
    (done,) = store.collect(["s3"], grace=GRACE)
    assert [left.path.split("/")[0] for left in done.dropped] == ["name"]
    assert len(keys(store)) == 3
    assert store.verify("name")[1].ok


def test_only_the_places_clock_counts(configured):
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed (apt-get install faketime)")
    before = keys(configured)
    command = ["faketime", "-f", "+9d", sys.executable, "-m", "tieredstore.cli", "gc"]
    environment = {**os.environ, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    done = subprocess.run(command, env=environment, timeout=60, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"nothing left over in local, s3\n"), done.stderr
    assert keys(configured) == before
