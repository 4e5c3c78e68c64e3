"""Small values that many processes change at once: no change is lost, none is made twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tieredstore import (
    ArtifactExists,
    CorruptData,
    InvalidName,
    Tier,
    TieredStore,
    TierUnavailable,
    Unsupported,
    local_tier,
)
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.backends.http import HttpBackend
from tieredstore.backends.local import LocalBackend
from tieredstore.backends.s3 import S3Backend
from tieredstore.mounted.versions import Versions

WORKERS, TURNS = 6, 10

PROGRAM = textwrap.dedent("""
    import json, sys
    from tieredstore import open_store
    record = open_store(json.loads(sys.argv[1])).record("phase1_0/plan.json")
    me, turns = sys.argv[2], int(sys.argv[3])
    sys.stdin.readline()
    for turn in range(turns):
        record.update(lambda old: [*(old or []), f"{me}-{turn}"])
""")


@pytest.fixture
def store(tmp_path: Path) -> TieredStore:
    volume = Tier("volume", LocalBackend(str(tmp_path / "volume")), durable=True)
    return TieredStore([local_tier(tmp_path / "data"), volume])


def at_once(config: dict, environment: dict[str, str] | None = None) -> None:
    call = [sys.executable, "-c", PROGRAM, json.dumps(config)]
    env = {**os.environ, **(environment or {})}
    workers = [
        subprocess.Popen([*call, str(n), str(TURNS)], stdin=subprocess.PIPE, text=True, env=env)
        for n in range(WORKERS)
    ]
    for each in workers:
        assert each.stdin is not None
        each.stdin.close()  # now
    assert [each.wait(100) for each in workers] == [0] * WORKERS


def all_there(value: list[str]) -> bool:
    return sorted(value) == sorted(f"{n}-{turn}" for n in range(WORKERS) for turn in range(TURNS))


def test_processes_that_change_one_value_on_a_mount_lose_no_change(tmp_path: Path) -> None:
    config = {
        "tier": [
            {"name": "local", "backend": "local", "path": str(tmp_path / "data")},
            {"name": "volume", "backend": "local", "path": str(tmp_path / "volume")},
        ]
    }
    at_once(config)
    import tieredstore

    record = tieredstore.open_store(config).record("phase1_0/plan.json")
    assert record.tier.name == "volume"
    assert all_there(record.read())
    shown = json.loads((tmp_path / "volume" / "phase1_0" / "plan.json").read_text())
    assert shown["value"] == record.read()
    [kept] = (tmp_path / "volume" / ".tieredstore" / "record").iterdir()
    assert len(list(kept.glob("*/value.json"))) <= 17


@pytest.mark.parametrize("bed", ["moto", "ceph"])
def test_processes_that_change_one_value_in_a_bucket_lose_no_change(
    bed: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = request.getfixturevalue(bed)
    for key, value in server.environment.items():
        monkeypatch.setenv(key, value)
    url = server.make_bucket(f"records-{bed}")
    config = {
        "tier": [
            {"name": "local", "backend": "local", "path": str(tmp_path / "data")},
            {"name": "s3", "backend": "s3", "url": f"{url}/x", "endpoint_url": server.url},
        ]
    }
    at_once(config, dict(server.environment))
    place = S3Backend(f"{url}/x", server.url)
    store = TieredStore([local_tier(tmp_path / "data"), Tier("s3", place)])
    found = store.record("phase1_0/plan.json").read()
    assert all_there(found), sorted(found)


def test_a_value_is_created_once_and_changed(store: TieredStore) -> None:
    record = store.record("runs/plan.json")
    assert record.read() is None
    assert record.create({"chunks": (1, 2)}) == {"chunks": [1, 2]}
    assert record.create({"chunks": []}) == {"chunks": [1, 2]}
    assert record.update(lambda old: {**old, "done": True}) == {"chunks": [1, 2], "done": True}
    assert store.record("runs/plan.json").read() == {"chunks": [1, 2], "done": True}
    assert store.names() == []


def test_a_change_that_changes_nothing_writes_nothing(store: TieredStore, tmp_path: Path) -> None:
    record = store.record("plan.json")
    record.create([1])
    before = sorted(tmp_path.rglob("value.json"))
    record.update(lambda old: old)
    assert sorted(tmp_path.rglob("value.json")) == before


def test_what_the_change_does_to_the_value_it_was_given_is_no_matter(store: TieredStore) -> None:
    record = store.record("plan.json")
    record.create([1])

    def append(old: list[int]) -> list[int]:
        old.append(2)
        return old

    assert record.update(append) == [1, 2]
    assert record.read() == [1, 2]


def test_one_that_was_stopped_for_long_is_refused_also_when_its_number_is_free_again(
    tmp_path: Path,
) -> None:
    mount = LocalBackend(str(tmp_path)).mount
    slow = Versions(mount, "plan.json")
    slow.swap(b"1", None)
    before = slow.read()
    assert before is not None
    fast = Versions(mount, "plan.json")
    for n in range(2, 40):
        fast.swap(b"%d" % n, str(n - 1))
    [home] = (tmp_path / ".tieredstore" / "record").iterdir()
    for n in range(1, 20):
        os.utime(home / str(n), (1, 1))  # of long ago
    fast.swap(b"40", "39")
    assert not (home / "2").exists()
    with pytest.raises(Exception, match="changed meanwhile"):
        slow.swap(b"late", before.version)
    newest = slow.read()
    assert newest is not None
    assert newest.data == b"40"
    assert not (home / "2").exists()


def test_a_writer_that_was_killed_leaves_the_value_whole(
    store: TieredStore, tmp_path: Path
) -> None:
    record = store.record("plan.json")
    record.create([1])
    kill = "import os; os.rename = lambda *a, **k: os.kill(os.getpid(), 9)"
    work = (
        "from tieredstore import *; from tieredstore.backends.local import LocalBackend\n"
        f"v = Tier('volume', LocalBackend({str(tmp_path / 'volume')!r}))\n"
        f"s = TieredStore([local_tier({str(tmp_path / 'data')!r}), v])\n"
        "s.record('plan.json').update(lambda old: [2])"
    )
    done = subprocess.run([sys.executable, "-c", f"{kill}\n{work}"], check=False)
    assert done.returncode == -9
    assert record.read() == [1]
    assert record.update(lambda old: [*old, 2]) == [1, 2]


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), object(), "x" * (17 << 20)])
def test_what_is_no_json_is_refused_before_anything_is_written(
    store: TieredStore, tmp_path: Path, value: object
) -> None:
    with pytest.raises(ValueError, match=r"plan\.json"):
        store.record("plan.json").create(value)
    assert not list(tmp_path.rglob("*.json"))


def test_names_that_are_not_free_or_not_valid_are_refused(store: TieredStore) -> None:
    with store.create("words") as stage:
        (stage.path / "a").write_text("a")
    with pytest.raises(ArtifactExists):
        store.record("words/plan.json")
    for name in ("../plan.json", "/plan.json", ".tieredstore/x", ""):
        with pytest.raises(InvalidName):
            store.record(name)


def test_a_tier_that_cannot_keep_records_is_not_chosen(tmp_path: Path) -> None:
    web = Tier("web", HttpBackend("http://127.0.0.1:9"))
    store = TieredStore([local_tier(tmp_path), web])
    assert store.record("plan.json").tier.name == "local"
    with pytest.raises(Unsupported, match="web"):
        store.record("plan.json", "web")
    closed = TieredStore([Tier("local", LocalBackend(str(tmp_path)), read_only=True)])
    with pytest.raises(Unsupported, match="read-only"):
        closed.record("plan.json", "local")


def test_a_value_in_a_place_of_keys(tmp_path: Path) -> None:
    memory = Tier("memory", FsspecBackend(f"memory://{tmp_path}"))
    record = TieredStore([local_tier(tmp_path), memory]).record("runs/plan.json")
    assert record.tier.name == "memory"
    assert record.create(1) == 1
    assert record.update(lambda old: old + 1) == 2


def test_damage_is_said_and_never_taken_for_nothing(store: TieredStore, tmp_path: Path) -> None:
    record = store.record("plan.json")
    record.create([1])
    [path] = tmp_path.rglob("value.json")
    path.write_bytes(b"[1")
    with pytest.raises(CorruptData, match=r"plan\.json"):
        record.read()
    with pytest.raises(CorruptData):
        record.update(lambda old: [])


def test_a_place_that_cannot_be_written_is_said(store: TieredStore, tmp_path: Path) -> None:
    (tmp_path / "volume").write_text("no folder")
    with pytest.raises(TierUnavailable, match="volume"):
        store.record("plan.json").create([1])
