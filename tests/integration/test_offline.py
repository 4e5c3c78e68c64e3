"""`TIEREDSTORE_OFFLINE`: no verb touches the network, what is mounted serves, the rest is named."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tieredstore

FILES = {"a": b"a" * 300_000, "b": b"b"}


def servers():
    path = Path(__file__).parents[1] / "servers" / "dead.py"
    spec = importlib.util.spec_from_file_location("offline_dead", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server():
    with servers().dead("denies") as found:
        yield found


@pytest.fixture
def config(tmp_path, server):
    """A file with two mounted tiers, two on a server and one in memory; ``near`` has ``set``."""
    pytest.importorskip("s3fs")
    client = f'{{ endpoint_url = "{server.url}", region_name = "us-east-1" }}'
    path = tmp_path / "tieredstore.toml"
    path.write_text(
        f"""
        [[tier]]
        name = "local"
        backend = "local"
        path = "local"
        [[tier]]
        name = "web"
        backend = "http"
        url = "{server.url}"
        populate = true
        [[tier]]
        name = "s3"
        backend = "fsspec"
        url = "s3://bucket/prefix"
        durable = true
        deadline = 5
        options = {{ key = "k", secret = "s", client_kwargs = {client} }}
        [[tier]]
        name = "memory"
        backend = "fsspec"
        url = "memory://{tmp_path.name}"
        [[tier]]
        name = "near"
        backend = "local"
        path = "near"
        durable = true
        """
    )
    store = tieredstore.open_store(
        {
            "tier": [
                {"name": "local", "backend": "local", "path": str(tmp_path / "author")},
                {"name": "near", "backend": "local", "path": str(tmp_path / "near")},
            ]
        }
    )
    with store.create("set", recipe={"v": 1}) as stage:
        for file, data in FILES.items():
            (stage.path / file).write_bytes(data)
    store.promote("set", to="near")
    return path


EVERY_VERB = """
import json, sys
seen = []
def hook(event, args):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname",
                 "socket.sendto", "socket.sendmsg", "socket.bind"}:
        seen.append([event, repr(args[1:])])
sys.addaudithook(hook)
import tieredstore
store = tieredstore.open_store(sys.argv[1])
said = {}
def tried(name, call):
    try:
        found = call()
        said[name] = found if isinstance(found, (str, int)) else repr(found)
    except tieredstore.TieredStoreError as error:
        said[name] = f"{type(error).__name__}: {error}"
got = store.restore("set")
said["skipped"] = dict(got.skipped)
said["source"] = got.source
said["hit"] = store.restore("set").source
said["states"] = [[w.tier.name, w.state, w.detail] for w in store.locate("set")]
said["status"] = [[w.tier.name, w.state] for w in store.status()["set"]]
said["names"] = store.names()
tried("promote", lambda: store.promote("set"))
tried("promote to web", lambda: store.promote("set", to="web"))
tried("promote to memory", lambda: store.promote("set", to="memory")[0].action)
tried("verify", lambda: [v.ok for v in store.verify("set")])
tried("evict", lambda: store.evict("set"))
tried("evict from s3", lambda: store.evict("set", "s3"))
tried("stream", lambda: len(store.open_stream("set", "a").read()))
tried("missing", lambda: store.restore("nowhere"))
def build(stage):
    (stage.path / "x").write_bytes(b"x")
tried("ensure", lambda: store.ensure("made", build))
filling = store.fill("filled", ["x"])
path = filling.temporary("x")
path.write_bytes(b"x")
tried("fill", lambda: filling.put("x", path))
print(json.dumps({"said": said, "seen": seen}))
"""
WHY = "offline (TIEREDSTORE_OFFLINE); unset it to use this tier"


def every_verb(config, **environment):
    done = subprocess.run(
        [sys.executable, "-c", EVERY_VERB, str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_verb_touches_the_network(config, server):
    answer = every_verb(config, TIEREDSTORE_OFFLINE="1")
    assert answer["seen"] == []
    assert server.came == 0
    said = answer["said"]
    assert (said["source"], said["hit"], said["names"]) == ("near", "local", ["set"])
    assert said["skipped"] == {"web": WHY, "s3": WHY}
    assert said["states"] == [
        ["local", "whole", ""],
        ["web", "unreachable", WHY],
        ["s3", "unreachable", WHY],
        ["memory", "absent", ""],
        ["near", "whole", ""],
    ]
    assert [state for _, state in said["status"]][1:3] == ["unreachable", "unreachable"]
    assert said["promote"] == f"PromoteFailed: set: s3: {WHY}"
    assert said["promote to web"] == f"PromoteFailed: set: web: {WHY}"
    assert said["promote to memory"] == "copied"
    assert said["verify"] == "[True, False, False, True, True]"
    assert said["evict"] == 300_001
    assert said["evict from s3"] == f"ArtifactNotFound: set: tier 's3' has none ({WHY})"
    assert said["stream"] == 300_000
    assert f"s3: {WHY}" in said["missing"]
    for made in ("ensure", "fill"):  # made, kept in the first tier, and said not to be in s3
        assert said[made].startswith("PromoteFailed: "), said[made]
        assert WHY in said[made]


def test_without_it_the_same_verbs_go_there(config, server):
    for off in ("", "0"):
        before = server.came
        answer = every_verb(config, TIEREDSTORE_OFFLINE=off)
        assert any(event == "socket.connect" for event, _ in answer["seen"])
        assert server.came > before
        shutil.rmtree(config.parent / "local", ignore_errors=True)


def test_the_command_works_where_there_is_no_network_at_all(config, server):
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False).returncode:
        alone = ["unshare", "--net"]
        if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False).returncode:
            pytest.skip("no network namespaces here")
    environment = {**os.environ, "TIEREDSTORE_OFFLINE": "1", "TIEREDSTORE_CONFIG": str(config)}

    def run(*arguments):
        command = [*alone, sys.executable, "-m", "tieredstore.cli", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=60
        )

    assert run("restore", "set").returncode == 0
    hit = run("restore", "set")
    assert (hit.returncode, hit.stderr) == (0, "")
    found = json.loads(run("status", "--json").stdout)
    copies = {copy["tier"]: copy for copy in found["artifacts"][0]["copies"]}
    assert copies["s3"]["state"] == "unreachable"
    assert copies["s3"]["detail"] == found["skipped"]["s3"] == WHY
    failed = run("promote", "set")
    assert failed.returncode == 1
    (line,) = [line for line in failed.stderr.splitlines() if "error" in line]
    assert line.startswith(f"tieredstore: error: set: s3: {WHY}; ")
    assert line.endswith("the first tier's copy is kept")
