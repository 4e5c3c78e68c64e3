"""Many nodes at once, a scratch that they share, and a server that counts what it sends."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tieredstore.backends.local import LocalBackend
from tieredstore.store import TieredStore
from tieredstore.tiers.tier import Tier

HERE = Path(__file__).parent
SIZES = {"a": 5_000_000, "b/c": 70_000, "d": 7}
WHOLE = sum(SIZES.values())
EIGHT = 8


def from_servers(name):
    spec = importlib.util.spec_from_file_location(
        f"populate_{name}", HERE.parent / "servers" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def far(tmp_path):
    """nginx with an artifact, as an author has promoted it."""
    nginx = from_servers("nginx")
    if nginx.missing():
        pytest.skip(nginx.missing())
    publish(tmp_path / "author", tmp_path / "far")
    server = nginx.make(tmp_path / "nginx", tmp_path / "far")
    server.start()
    yield server
    server.stop()


def publish(author, far):
    store = TieredStore(
        [Tier("author", LocalBackend(str(author))), Tier("far", LocalBackend(str(far)))]
    )
    with store.create("set", recipe={"v": 1}) as stage:
        for file, size in SIZES.items():
            (stage.path / file).parent.mkdir(exist_ok=True)
            (stage.path / file).write_bytes(os.urandom(size))
    store.promote("set", to="far")


@pytest.fixture
def nodes(tmp_path):
    """Starts processes that restore, and ends those that are left."""
    started = []

    def start(**order):
        order = {"root": str(tmp_path), "verb": "restore", "node": f"node{len(started)}", **order}
        process = subprocess.Popen(
            [sys.executable, str(HERE / "populate.py"), json.dumps(order)], stdout=subprocess.PIPE
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        process.stdout.close()


def go(tmp_path, started):
    time.sleep(0.5)  # they have all been loaded
    (tmp_path / "go").touch()
    return [answer(process) for process in started]


def answer(process):
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(out)


def sent(server, files=tuple(SIZES)):
    """Bytes of an artifact's own files that the server has sent, headers of answers included."""
    return sum(size for method, _, size, path in server.said() if path[5:] in files)


@pytest.mark.parametrize("kind", ["local", "runpod"])
@pytest.mark.parametrize("files", [None, ["a", "d"]], ids=["all", "some"])
def test_eight_nodes_make_one_download(tmp_path, far, nodes, kind, files):
    (tmp_path / "scratch").mkdir()
    started = [nodes(url=far.url, kind=kind, files=files) for _ in range(EIGHT)]
    seen = go(tmp_path, started)
    assert sorted(s["source"] for s in seen) == ["scratch"] * (EIGHT - 1) + ["web"]
    assert [s["skipped"] for s in seen] == [{}] * EIGHT
    size = WHOLE if files is None else SIZES["a"] + SIZES["d"]
    assert size <= sent(far) < size * 1.01
    scratch = TieredStore([Tier("scratch", LocalBackend(str(tmp_path / "scratch")))])
    assert scratch.verify("set")[0].ok


def test_eight_nodes_without_locks_all_get_whole_results(tmp_path, far, nodes):
    started = [nodes(url=far.url, no_flock=True) for _ in range(EIGHT)]
    seen = go(tmp_path, started)
    assert all(s["size"] == SIZES["a"] for s in seen)
    assert [s["skipped"] for s in seen] == [{}] * EIGHT
    places = [tmp_path / "scratch", *(tmp_path / f"node{n}" for n in range(EIGHT))]
    for place in places:
        assert TieredStore([Tier("here", LocalBackend(str(place)))]).verify("set")[0].ok


def test_eight_processes_of_one_node_make_one_download(tmp_path, far, nodes):
    seen = go(tmp_path, [nodes(url=far.url, node="node") for _ in range(EIGHT)])
    assert sorted(s["source"] for s in seen) == ["local"] * (EIGHT - 1) + ["web"]
    assert sent(far) < WHOLE * 1.01


def test_another_takes_over_from_one_that_was_killed(tmp_path, far, nodes):
    far.stop()
    far.start("limit_rate 1m;")
    (tmp_path / "go").touch()
    first = nodes(url=far.url)
    until = time.monotonic() + 20
    while not far.said() and time.monotonic() < until:
        time.sleep(0.01)
    others = [nodes(url=far.url) for _ in range(3)]
    time.sleep(1)
    first.send_signal(signal.SIGKILL)
    seen = [answer(process) for process in others]
    assert sorted(s["source"] for s in seen) == ["scratch", "scratch", "web"]
    assert sent(far) < 2 * WHOLE * 1.01


def test_a_scratch_that_is_full_delays_nobody_twice(tmp_path, far, nodes):
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(scratch)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
    try:
        seen = go(tmp_path, [nodes(url=far.url) for _ in range(EIGHT)])
        assert not (scratch / "set").exists()
    finally:
        subprocess.run(["umount", "-l", str(scratch)], check=True)
    assert [(s["source"], s["size"]) for s in seen] == [("web", SIZES["a"])] * EIGHT
    said = {s["skipped"]["scratch"] for s in seen}
    assert all("No space left" in text or "no room" in text for text in said), said


@pytest.mark.parametrize("no_flock", [False, True], ids=["flock", "no-flock"])
def test_chains_in_any_order_and_builds_never_wait_for_each_other(tmp_path, nodes, no_flock):
    orders = [["s1", "s2"], ["s2", "s1"]] * 3
    started = [nodes(verb="ensure", fills=fills, no_flock=no_flock) for fills in orders]
    seen = go(tmp_path, started)
    assert all(s["size"] == 100_000 for s in seen)
    far = TieredStore([Tier("far", LocalBackend(str(tmp_path / "far")))])
    assert far.verify("set")[0].ok
