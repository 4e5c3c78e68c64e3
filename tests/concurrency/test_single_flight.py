"""Sixteen nodes need an artifact from S3: it is sent once, whatever becomes of who fetches it.

What leaves the server is counted in a TCP proxy before it, headers and manifest included.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tieredstore.backends.local import LocalBackend
from tieredstore.backends.s3 import S3Backend
from tieredstore.store import TieredStore
from tieredstore.tiers.tier import Tier

pytestmark = pytest.mark.timeout(300)  # on a machine that does much else
SIXTEEN = 16
MIB = 1 << 20
SIZES = {"a": 24 * MIB, **{f"b/{n}": MIB for n in range(16)}, "d": 7}
WHOLE = sum(SIZES.values())
ASKED = 20_000  # bytes that a node's questions may cost: heads, lists, records, refusals


ALL = os.environ.get("TIEREDSTORE_TEST_FLIGHTS") == "all"
WAYS = [("local", "local"), ("gluster", "runpod")]
WAYS += [("local", "runpod"), ("gluster", "local")] if ALL else []


@pytest.fixture
def shared(request, load_server):
    """A scratch as two nodes see it, and a folder for what is not shared."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    cluster, mounts = None, (folder / "disk", folder / "disk")
    try:
        (folder / "disk").mkdir()
        if request.param == "gluster":
            gluster = load_server("gluster")
            if gluster.missing():
                pytest.skip(gluster.missing())
            cluster = gluster.start(folder / "cluster")
            mounts = cluster.mounts
        yield folder, mounts
    finally:
        if cluster is not None:
            cluster.stop()
        shutil.rmtree(folder)


@pytest.fixture
def far(ceph, make_proxy, monkeypatch, request, tmp_path):
    """The artifact in S3 behind a proxy, as an author has promoted it."""
    for key, value in ceph.environment.items():
        monkeypatch.setenv(key, value)
    url = ceph.make_bucket(f"flight-{time.monotonic_ns()}")
    store = TieredStore(
        [
            Tier("author", LocalBackend(str(tmp_path / "author"))),
            Tier("s3", S3Backend(url, ceph.url), durable=True),
        ]
    )
    with store.create("set", recipe={"v": 1}) as stage:
        for file, size in SIZES.items():
            (stage.path / file).parent.mkdir(exist_ok=True)
            (stage.path / file).write_bytes(os.urandom(size))
    store.promote("set")
    proxy = make_proxy(ceph.port)
    proxy.bucket = url
    return proxy


class Nodes:
    """Sixteen processes, each with a first tier of its own."""

    def __init__(self, folder, mounts, far, kind):
        self.folder = folder
        order = {"kind": kind, "url": far.bucket, "endpoint": far.url, "files": list(SIZES)}
        order["go"] = str(folder / "go")
        orders = [
            {
                **order,
                "local": str(folder / f"node{n}"),
                "scratch": str(mounts[n % 2]),
                "answer": str(folder / f"{n}.json"),
                "pid": str(folder / f"{n}.pid"),
                "filling": str(folder / f"{n}.filling"),
            }
            for n in range(SIXTEEN)
        ]
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("flight.py"))],
            stdin=subprocess.PIPE,
            text=True,
        )
        self.process.stdin.write(json.dumps(orders))
        self.process.stdin.close()

    def kill(self, number):
        pid = int((self.folder / f"{number}.pid").read_text())
        assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1].endswith(b"flight.py")
        os.kill(pid, signal.SIGKILL)

    def filling(self):
        """Which of them has begun to fill the scratch."""
        return next((int(p.stem) for p in self.folder.glob("*.filling")), None)

    def answers(self):
        assert self.process.wait(240) == 0
        found = [self.folder / f"{n}.json" for n in range(SIXTEEN)]
        said = [json.loads(path.read_text()) for path in found if path.exists()]
        wrong = [one["error"] for one in said if "error" in one]
        assert not wrong, f"{len(wrong)} failed, the first: {wrong[0]}"
        assert all(one["sizes"] == SIZES for one in said)
        return said


@pytest.mark.parametrize(("shared", "kind"), WAYS, indirect=["shared"])
def test_sixteen_nodes_make_one_download(shared, far, kind):
    folder, mounts = shared
    before = far.down.sent
    nodes = Nodes(folder, mounts, far, kind)
    (folder / "go").touch()
    said = nodes.answers()
    sent = far.down.sent - before
    sys.stdout.write(f"sent {sent / WHOLE:.4f} of the size\n")
    assert len(said) == SIXTEEN
    assert sorted(one["source"] for one in said) == ["s3"] + ["scratch"] * (SIXTEEN - 1)
    assert [one["skipped"] for one in said] == [{}] * SIXTEEN
    assert WHOLE <= sent < WHOLE + SIXTEEN * ASKED


@pytest.mark.parametrize("shared", ["local", "gluster"] if ALL else ["gluster"], indirect=True)
def test_what_a_killed_node_has_fetched_is_not_fetched_again(shared, far):
    folder, mounts = shared
    far.down.bandwidth = 12 * MIB
    before = far.down.sent
    nodes = Nodes(folder, mounts, far, "local")
    (folder / "go").touch()
    until = time.monotonic() + 60
    while far.down.sent - before < WHOLE // 2 and time.monotonic() < until:
        time.sleep(0.01)
    nodes.kill(nodes.filling())
    part = staged(mounts[0])
    at_kill = far.down.sent - before
    said = nodes.answers()
    sent = far.down.sent - before
    sys.stdout.write(
        f"killed after {at_kill / WHOLE:.3f}, staged {part / WHOLE:.3f}, sent {sent / WHOLE:.3f}\n"
    )
    assert sorted(one["source"] for one in said) == ["s3"] + ["scratch"] * (SIXTEEN - 2)
    # Lost is what was on its way, and requests of which only some blocks had been written.
    assert sent < WHOLE + 0.6 * at_kill + SIXTEEN * ASKED


def staged(scratch):
    """Bytes of disk that the files in the stage take."""
    parts = (scratch / ".tieredstore" / "part").rglob("*")
    return sum(path.stat().st_blocks * 512 for path in parts if path.is_file())
