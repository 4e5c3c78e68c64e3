"""Disks that are full, read-only, forbidden, or do not answer.

Each gives one clear error of the library's own, or the next tier serves; nothing is lost, nothing
half-written is seen, and the process can end while a tier still hangs.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tieredstore.backends.local import LocalBackend
from tieredstore.errors import (
    ArtifactNotFound,
    PromoteFailed,
    TieredStoreError,
    TierUnavailable,
)
from tieredstore.store import TieredStore
from tieredstore.testing import faults
from tieredstore.tiers.tier import Tier

FILES = {"a": b"a" * 1_500_000, "sub/b": b"b" * 10, "c": b"c" * 70_000}
OLD = {"a": b"o" * 1_000_000, "sub/b": b"o" * 10, "c": b"o" * 70_000}


def store_at(root, *below, **options):
    tiers = [Tier("local", LocalBackend(str(root / "local")), **options)]
    tiers += [Tier(name, LocalBackend(str(root / name)), durable=True) for name in below]
    return TieredStore(tiers)


class OwnTrouble(Exception):
    """The block that builds could not write: its own error, raised as it is."""


def make(store, files=FILES):
    with store.create("set", recipe={"v": len(files["a"])}) as stage:
        try:
            for file, data in files.items():
                (stage.path / file).parent.mkdir(exist_ok=True)
                (stage.path / file).write_bytes(data)
        except OSError as error:
            raise OwnTrouble from error


def content(got):
    found = {}
    with got:
        for file in FILES:
            with got.open(file) as opened:
                found[file] = opened.read()
    return found


# -- every system call fails in turn -----------------------------------------------------------

CODES = pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES], ids=errno.errorcode.get
)


def operation(name, store):
    if name == "create":
        return lambda: make(store)
    return lambda: getattr(store, name)("set")


def met_without_fault(tmp_path, name):
    store = world(tmp_path / "dry", name)
    with faults.Points(faults.kill_before) as points:
        operation(name, store)()
    return len(points.met)


def world(root, name):
    """A store in which the operation is about to be done, old data in the way where it may be."""
    store = store_at(root, "vol")
    if name == "create":
        make(store, OLD)
        return store
    make(store)
    if name == "restore":
        store.promote("set")
        store.evict("set")
    return store


@CODES
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from-then-on"])
@pytest.mark.parametrize("name", ["create", "promote", "restore"])
def test_a_call_that_fails_at_any_point(name, lasting, code, fast_path):
    count = met_without_fault(fast_path, name)
    failures = []
    for at in range(1, count + 1):
        root = fast_path / f"{at}"
        store = world(root, name)
        with faults.Points(faults.failing(code), at, 1 << 30 if lasting else 0):
            try:
                operation(name, store)()
            except OwnTrouble:
                pass
            except TieredStoreError as error:
                failures.append(error)
        whole_everywhere(store, name)
        operation(name, store)()
        assert content(store.restore("set")) == FILES
    assert len(failures) >= count // 4
    assert all(isinstance(error, OSError) for error in failures), failures
    assert not any("\n" in str(error) for error in failures)


def whole_everywhere(store, name):
    for tier in store.tiers:
        located = tier.locate("set")
        assert located.state in {"whole", "absent"}, (tier.name, located)
    if name == "create":
        assert content(store.restore("set")) in (OLD, FILES)
    elif name == "promote":
        assert store.tiers[0].locate("set").state == "whole"
    else:
        assert store.tiers[1].locate("set").state == "whole"


@pytest.fixture
def fast_path(tmp_path):
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(dir=memory))
    yield folder
    shutil.rmtree(folder)


# -- real mounts -------------------------------------------------------------------------------


@pytest.fixture
def mount(tmp_path):
    """Mounts small file systems, and takes them away again."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mounted = []

    def mount(name, *arguments):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("limit", ["size=2560k", "nr_inodes=40"])
def test_a_volume_that_fills_up_while_it_is_promoted_to(tmp_path, mount, limit):
    mount("vol", "-t", "tmpfs", "-o", limit, "none")
    store = store_at(tmp_path, "vol")
    make(store, OLD)
    store.promote("set")
    if limit.startswith("nr"):
        fill_inodes(tmp_path / "vol")
    make(store)
    with pytest.raises(PromoteFailed, match=r"vol.*(No space left|no room)") as caught:
        store.promote("set", replace=True)
    assert "\n" not in str(caught.value)
    assert [v.ok for v in store.verify("set")] == [True, True]
    assert store.locate("set")[1].recipe.options == {"v": len(OLD["a"])}
    fresh = store_at(tmp_path / "other", "vol")
    fresh = TieredStore([fresh.tiers[0], store.tiers[1]])
    assert content(fresh.restore("set")) == OLD


def fill_inodes(folder):
    for number in range(1000):
        try:
            (folder / f"filler{number}").touch()
        except OSError:
            return


def test_a_first_tier_that_fills_up_while_it_is_restored_to(tmp_path, mount):
    store = store_at(tmp_path, "vol")
    make(store)
    store.promote("set")
    (tmp_path / "small").mkdir()
    mount("small/local", "-t", "tmpfs", "-o", "size=512k", "none")
    small = TieredStore([store_at(tmp_path / "small").tiers[0], store.tiers[1]])
    with pytest.raises(TierUnavailable, match=r"no room in tier 'local'.* for set: 1.1 MB missing"):
        small.restore("set")
    assert small.locate("set")[0].state == "absent"
    assert store.locate("set")[1].state == "whole"


def test_a_read_only_first_tier_serves_hits_and_refuses_the_rest(tmp_path, mount):
    store = store_at(tmp_path, "vol")
    make(store)
    store.promote("set")
    local = tmp_path / "local"
    mount("local", "--bind", str(local))
    subprocess.run(["mount", "-o", "remount,ro,bind", str(local)], check=True)
    assert content(store.restore("set")) == FILES
    assert content(store.restore("set", files=["c"])) == FILES
    assert [o.action for o in store.promote("set")] == ["present"]
    with pytest.raises(TierUnavailable, match="'local' cannot be written: Read-only"):
        make(store, OLD)
    with pytest.raises(TieredStoreError, match="Read-only"):
        store.evict("set")
    assert content(store.restore("set")) == FILES


def test_a_read_only_volume_restores_and_takes_no_promote(tmp_path, mount):
    store = store_at(tmp_path, "vol")
    make(store)
    store.promote("set")
    store.evict("set")
    vol = tmp_path / "vol"
    mount("vol", "--bind", str(vol))
    subprocess.run(["mount", "-o", "remount,ro,bind", str(vol)], check=True)
    assert content(store.restore("set")) == FILES
    make(store, OLD)
    with pytest.raises(PromoteFailed, match=r"vol.*Read-only"):
        store.promote("set", replace=True)
    assert [v.ok for v in store.verify("set")] == [True, True]


# -- forbidden ---------------------------------------------------------------------------------

AS_NOBODY = """
import json, os, shutil, sys
import filelock  # what is loaded late may lie where nobody else may read
from pathlib import Path
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import TieredStoreError
from tieredstore.store import TieredStore
from tieredstore.tiers.tier import Tier
os.setgroups([]); os.setgid(65534); os.setuid(65534)
root = sys.argv[1]
store = TieredStore([
    Tier("local", LocalBackend(root + "/local")),
    Tier("closed", LocalBackend(root + "/closed"), durable=True),
    Tier("vol", LocalBackend(root + "/vol"), durable=True),
])
said = {}
def attempt(what, call):
    try:
        said[what] = ["done", str(call())]
    except TieredStoreError as error:
        said[what] = [type(error).__name__, str(error)]
attempt("restore", lambda: store.restore("set").source)
attempt("hit", lambda: len(store.restore("open").open("a").read()))
attempt("promote", lambda: store.promote("open"))
attempt("evict", lambda: store.evict("open"))
def build():
    with store.create("open") as stage:
        (stage.path / "a").write_text("new")
attempt("create", build)
print(json.dumps(said))
"""


def test_places_that_deny_access(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    store = store_at(tmp_path, "vol")
    make(store)
    store.promote("set")
    store.evict("set")
    with store.create("open") as stage:
        (stage.path / "a").write_bytes(b"12345")
    (tmp_path / "closed").mkdir(mode=0o700)
    for above in [tmp_path, *tmp_path.parents]:
        if above.owner() == "root" and above not in {Path("/"), Path("/tmp")}:
            above.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["hit"] == ["done", "5"]
    assert said["restore"][0] == "TierUnavailable"
    assert "'local' cannot be written: Permission denied" in said["restore"][1]
    assert said["promote"][0] == "PromoteFailed"
    assert said["promote"][1].count("Permission denied") == 2
    assert said["create"][0] == "TierUnavailable"
    assert "Permission denied" in said["create"][1]
    assert said["evict"][0] == "EvictRefused"
    assert all("\n" not in text for _, text in said.values())
    assert content(store.restore("set")) == FILES


# -- a tier that does not answer ---------------------------------------------------------------


@pytest.mark.parametrize("call", ["read_head", "open", "readinto", "begin"])
def test_the_next_tier_serves_where_one_hangs(tmp_path, call):
    store = store_at(tmp_path, "near", "far")
    make(store)
    store.promote("set")
    store.evict("set")
    released = threading.Event()
    near = faults.FaultyBackend(store.tiers[1].backend, faults.hanging(released, frozenset({call})))
    hanging = TieredStore(
        [store.tiers[0], Tier("near", near, durable=True, deadline=1.0), store.tiers[2]]
    )
    since = time.monotonic()
    try:
        got = hanging.restore("set")
        if call != "begin":
            assert got.source == "far" or got.skipped["near"].endswith("no answer within 1 s")
        assert content(got) == FILES
        make(hanging, OLD)
        if call in {"read_head", "begin"}:
            with pytest.raises(PromoteFailed, match=r"near.*no answer within 1 s"):
                hanging.promote("set", replace=True)
            assert store.verify("set", ["far"])[0].ok
            assert store.locate("set")[2].recipe.options == {"v": len(OLD["a"])}
    finally:
        released.set()
    assert time.monotonic() - since < 20


HANGS = """
import sys, threading
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import ArtifactNotFound
from tieredstore.store import TieredStore
from tieredstore.testing import faults
from tieredstore.tiers.tier import Tier
root = sys.argv[1]
vol = faults.FaultyBackend(LocalBackend(root + "/vol"), faults.hanging(threading.Event()))
store = TieredStore([Tier("local", LocalBackend(root + "/local")), Tier("vol", vol, deadline=0.5)])
try:
    store.restore("set")
except ArtifactNotFound as error:
    print(error)
"""


def test_the_process_ends_while_a_tier_hangs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HANGS, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert "tier 'vol': no answer within 0.5 s" in done.stdout
    assert done.stderr == ""


# -- a tier that lies --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie", [faults.truncating(1000), faults.bit_flipping(5)], ids=["truncated", "flipped"]
)
def test_bytes_that_lie_are_never_served(tmp_path, lie):
    store = store_at(tmp_path, "near", "far")
    make(store)
    store.promote("set")
    store.evict("set")
    near = faults.FaultyBackend(store.tiers[1].backend, on_read=lie)
    lying = TieredStore([store.tiers[0], Tier("near", near), store.tiers[2]])
    assert content(lying.restore("set")) == FILES
    alone = TieredStore([store_at(tmp_path / "alone").tiers[0], Tier("near", near)])
    with pytest.raises(ArtifactNotFound):
        alone.restore("set")


def test_a_tier_that_fails_now_and_then_is_left_for_the_next_and_kept(tmp_path):
    store = store_at(tmp_path, "near", "far")
    make(store)
    store.promote("set")
    store.evict("set")
    near = faults.FaultyBackend(store.tiers[1].backend, faults.flaky(5))
    flaky = TieredStore([store.tiers[0], Tier("near", near), store.tiers[2]])
    assert content(flaky.restore("set")) == FILES
    assert store.locate("set")[1].state == "whole", "a copy that could not be read is not damaged"


def test_short_writes_are_continued(tmp_path):
    store = store_at(tmp_path, "vol")
    with faults.Points(faults.short, 1, 1 << 30):
        make(store)
        store.promote("set")
    assert [v.ok for v in store.verify("set")] == [True, True]


STOPPED = """
import json, sys
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import ArtifactNotFound
from tieredstore.store import TieredStore
from tieredstore.tiers.tier import Tier
root, url, options = sys.argv[1:]
s3 = Tier("s3", FsspecBackend(url, json.loads(options)), durable=True, deadline=5.0)
store = TieredStore([Tier("local", LocalBackend(root + "/local")), s3])
with store.create("set", recipe={"v": 1}) as stage:
    (stage.path / "a").write_text("a")
store.promote("set")
store.evict("set")
print("evicted", flush=True)
sys.stdin.readline()
try:
    store.restore("set")
except ArtifactNotFound as error:
    print(error)
"""


def test_the_process_ends_while_a_server_is_stopped(tmp_path, moto):
    arguments = [str(tmp_path), moto.make_bucket("stopped"), json.dumps(moto.options)]
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "evicted\n"
        os.kill(moto.process.pid, signal.SIGSTOP)
        out, err = process.communicate("go\n", timeout=30)
    finally:
        os.kill(moto.process.pid, signal.SIGCONT)
        process.kill()
        process.wait()
    assert "tier 's3': no answer within 5 s" in out
    assert process.returncode == 0
    assert err == ""
