"""Shared scratch: a group that takes turns, who may only read, and files that are purged.

Two users of one group are other processes with ids of their own, which takes root.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import tieredstore
from tieredstore import Tier, TieredStore, local_tier
from tieredstore.backends.local import LocalBackend
from tieredstore.backends.scratch import ScratchBackend
from tieredstore.cli import run
from tieredstore.errors import ConfigError

GROUP, ALICE, BOB = 34567, 34501, 34502
DAY = 86400.0


@pytest.fixture
def place():
    """A folder that any user reaches."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def shared(place):
    """A cluster's project folder: of a group, with setgid."""
    (place / "project").mkdir()
    os.chown(place / "project", 0, GROUP)
    (place / "project").chmod(0o2775)
    for user in (ALICE, BOB):
        (place / str(user)).mkdir()
        os.chown(place / str(user), user, GROUP)
    return place / "project"


class Users:
    """Runs the command, or code, as one of two users."""

    def __init__(self, place):
        self.place = place
        self.interpreter = sys.executable

    def configure(self, user, path="project/data", **keys):
        lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        text = (
            f'[[tier]]\nname = "node"\nbackend = "local"\npath = "{self.place}/{user}/node"\n'
            f'[[tier]]\nname = "scratch"\nbackend = "scratch"\npath = "{self.place}/{path}"\n'
            + "\n".join(lines)
            + "\n"
        )
        config = self.place / f"{user}.toml"
        config.write_text(text)
        return config

    def python(self, user, code, *arguments, umask="002"):
        command = ["setpriv", "--reuid", str(user), "--regid", str(GROUP), "--clear-groups"]
        command += ["sh", "-c", f'umask {umask}; exec "$@"', "sh", self.interpreter]
        command += ["-c", code, *map(str, arguments)]
        paths = [str(Path(tieredstore.__file__).parents[1]), *sys.path[1:]]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/",
            "PYTHONPATH": ":".join(paths),
            "TMPDIR": str(self.place / str(user)),
        }
        return subprocess.run(
            command,
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def cli(self, user, *arguments, umask="002"):
        code = "import sys; from tieredstore.cli import run; sys.exit(run(sys.argv[1:]))"
        config = self.place / f"{user}.toml"
        return self.python(user, code, *arguments, "--config", config, umask=umask)

    def put(self, user, name, data, umask="002"):
        source = self.place / str(user) / f"source-{name}"
        source.mkdir(exist_ok=True)
        (source / "a.bin").write_bytes(data)
        (source / "sub").mkdir(exist_ok=True)
        (source / "sub" / "run.sh").write_bytes(b"#!/bin/sh\n")
        (source / "a.bin").chmod(0o600)  # nobody else's, where it comes from
        (source / "sub" / "run.sh").chmod(0o700)
        subprocess.run(["chown", "-R", f"{user}:{GROUP}", source], check=True)
        done = self.cli(user, "put", name, str(source), umask=umask)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def users(place, shared):
    found = Users(place)
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can run processes of two users (and setpriv, of util-linux)")
    same = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for interpreter in (sys.executable, shutil.which(same, path="/usr/bin")):
        found.interpreter = interpreter or sys.executable
        done = found.python(ALICE, "import tieredstore.cli, filelock, rich")
        if done.returncode == 0:
            return found
    pytest.skip(f"other users cannot run this Python: {done.stderr.splitlines()[-1]}")


def owners(folder):
    found = {}
    for path in [folder, *folder.rglob("*")]:
        seen = path.lstat()
        found[str(path.relative_to(folder))] = (seen.st_uid, seen.st_gid, seen.st_mode)
    return found


def ok(done):
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_group_takes_turns(users, shared):
    for user in (ALICE, BOB):
        users.configure(user, durable=True)
    users.put(ALICE, "set", b"one")
    before = owners(shared)
    ok(users.cli(ALICE, "promote", "set"))
    after = owners(shared)
    assert after["."] == before["."] == (0, GROUP, stat.S_IFDIR | 0o2775)
    for path, (_, group, mode) in after.items():
        assert group == GROUP, path
        if stat.S_ISDIR(mode):
            assert mode & stat.S_ISGID, path
    assert after["data/set/a.bin"] == (ALICE, GROUP, stat.S_IFREG | 0o664)
    assert after["data/set/sub/run.sh"] == (ALICE, GROUP, stat.S_IFREG | 0o775)
    assert "restored from scratch" in ok(users.cli(BOB, "restore", "set"))
    assert "already in" in ok(users.cli(BOB, "restore", "set"))
    users.put(BOB, "set", b"two")
    ok(users.cli(BOB, "promote", "set", "--force"))
    assert (shared / "data" / "set" / "a.bin").read_bytes() == b"two"
    assert owners(shared)["data/set/a.bin"][0] == BOB
    ok(users.cli(ALICE, "verify", "set", "--tier", "scratch"))
    done = users.cli(ALICE, "gc", "--older-than", "0s", "--tier", "scratch")
    assert "dropped" in ok(done)
    area = shared / "data" / ".tieredstore"
    assert list((area / "old").iterdir()) == []


def test_leases_are_shared_and_their_length_is_recorded_once(users, shared):
    for user in (ALICE, BOB):
        users.configure(user, durable=True)
    code = """
import sys, time
from tieredstore.backends.scratch import ScratchBackend
since = time.monotonic()
with ScratchBackend(sys.argv[1]).lease("set.promote", 30, lambda _: None):
    print(round(time.monotonic() - since), flush=True)
    time.sleep(float(sys.argv[2]))
"""
    first = users.python(ALICE, code, shared / "data", 0)
    assert float(first.stdout) < 15, first.stderr
    length = (shared / "data" / ".tieredstore" / "lease" / "length.json").read_text()
    done = users.python(BOB, code, shared / "data", 0)
    assert float(done.stdout) < 15, done.stderr
    assert (shared / "data" / ".tieredstore" / "lease" / "length.json").read_text() == length


def test_who_may_only_read(users, shared):
    for user in (ALICE, BOB):
        users.configure(user, durable=True)
    users.put(ALICE, "set", b"one", umask="022")
    ok(users.cli(ALICE, "promote", "set", umask="022"))
    before = owners(shared)
    assert before["data/set/a.bin"][2] & 0o777 == 0o644
    assert before["data"][2] & 0o7777 == 0o2755
    assert "restored from scratch" in ok(users.cli(BOB, "restore", "set"))
    assert "scratch\twhole" in ok(users.cli(BOB, "status"))
    ok(users.cli(BOB, "verify", "set"))
    users.put(BOB, "other", b"mine")
    done = users.cli(BOB, "promote", "other")
    assert done.returncode == 1
    assert re.search(r"scratch.* can only be read by you \(drwxr-sr-x \w+:\w+\)", done.stderr)
    assert done.stderr.count("\n") == 1
    code = """
import sys
from tieredstore.backends.scratch import ScratchBackend
with ScratchBackend(sys.argv[1]).lease("set.populate", 5, lambda _: None):
    pass
"""
    assert users.python(BOB, code, shared / "data").returncode == 0
    own = [path for path in (users.place / str(BOB)).glob("tieredstore-*") if path.is_dir()]
    assert [path.stat().st_mode & 0o777 for path in own] == [0o700]
    assert owners(shared) == before


def test_gc_leaves_what_belongs_to_others_and_says_so(users, shared):
    for user in (ALICE, BOB):
        users.configure(user, durable=True)
    users.put(ALICE, "set", b"one")
    ok(users.cli(ALICE, "promote", "set"))
    area = shared / "data" / ".tieredstore"
    for name, user, mode in (("a", ALICE, 0o2755), ("b", BOB, 0o2775)):
        (area / "old" / name / "sub").mkdir(parents=True)
        for path in (area / "old" / name / "sub", area / "old" / name):
            os.chown(path, user, GROUP)
            path.chmod(mode)
    done = users.cli(BOB, "gc", "--older-than", "0s", "--tier", "scratch")
    assert done.returncode == 1
    assert f"tier 'scratch' skipped: Permission denied: {area}/old/a" in done.stderr
    assert "not collected to the end: scratch" in done.stderr
    assert [path.name for path in (area / "old").iterdir()] == ["a"]
    done = users.cli(ALICE, "gc", "--older-than", "0s", "--tier", "scratch")
    assert done.returncode == 0, done.stderr
    assert list((area / "old").iterdir()) == []


def test_populate_is_skipped_with_a_line(users, shared, place):
    users.configure(ALICE, path="far", durable=True)
    users.put(ALICE, "set", b"one")
    (place / "far").mkdir()
    os.chown(place / "far", ALICE, GROUP)
    ok(users.cli(ALICE, "promote", "set"))
    shared.chmod(0o755)
    text = users.configure(BOB, populate=True).read_text()
    far = f'[[tier]]\nname = "far"\nbackend = "scratch"\npath = "{place}/far"\ndurable = true\n'
    (place / f"{BOB}.toml").write_text(text + far)
    done = users.cli(BOB, "restore", "set")
    assert "restored from far" in ok(done)
    assert "'scratch' skipped: not filled:" in done.stderr
    assert "can only be read by you" in done.stderr


# -- files that are purged ----------------------------------------------------------------------


def tiers(tmp_path, **keys):
    return [
        local_tier(tmp_path / "node"),
        Tier("scratch", ScratchBackend(str(tmp_path / "scratch"), purge_days=10, **keys)),
        Tier("far", LocalBackend(str(tmp_path / "far")), durable=True),
    ]


@pytest.fixture
def store(tmp_path):
    store = TieredStore(tiers(tmp_path))
    with store.create("set", recipe={"of": "test"}) as stage:
        for name in ("a", "b", "c"):
            (stage.path / name).write_bytes(name.encode() * 1000)
            os.utime(stage.path / name, (1e9, 1e9))  # data is old: that it was put here is not
    store.promote("set", ["scratch", "far"])
    return store


def unused(path, days):
    then = time.time_ns() - int(days * DAY * 1e9)
    os.utime(path, ns=(then, path.stat().st_mtime_ns))


def located(store, tier):
    return next(where for where in store.status()["set"] if where.tier.name == tier)


def test_status_shows_when_files_are_purged(tmp_path, store, monkeypatch, capsys):
    left = located(store, "scratch").expires - time.time()
    assert 9.9 * DAY < left <= 10 * DAY
    unused(tmp_path / "scratch" / "set" / "b", 7.5)
    left = located(store, "scratch").expires - time.time()
    assert 2.4 * DAY < left < 2.6 * DAY
    assert located(store, "far").expires is None
    config = tmp_path / "tieredstore.toml"
    config.write_text(
        '[[tier]]\nname = "node"\nbackend = "local"\npath = "node"\n'
        '[[tier]]\nname = "scratch"\nbackend = "scratch"\npath = "scratch"\npurge_days = 10\n'
    )
    assert run(["status", "--config", str(config)]) == 0
    assert "purged in 2 d" in capsys.readouterr().out
    assert run(["refresh", "--expiring", "1d", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "nothing to refresh\n"
    assert run(["refresh", "--expiring", "3d", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "set: scratch: 5 files, purged in 9 d\n"
    assert run(["refresh", "--config", str(config)]) == 2
    assert run(["refresh", "none", "--config", str(config)]) == 1
    assert "none: not in scratch" in capsys.readouterr().err
    left = located(store, "scratch").expires - time.time()
    assert left > 8.9 * DAY
    assert (tmp_path / "scratch" / "set" / "b").stat().st_mtime == 1e9


def test_a_store_in_which_nothing_is_purged_says_so(tmp_path):
    with pytest.raises(tieredstore.TieredStoreError, match="no tier of this store sets purge_days"):
        TieredStore([local_tier(tmp_path)]).refresh()


def test_a_copy_that_was_purged_in_part_is_partial_and_healed(tmp_path, store):
    copy = tmp_path / "scratch" / "set"
    (copy / "b").unlink()
    assert located(store, "scratch").state == "partial"
    other = TieredStore([local_tier(tmp_path / "other"), *store.tiers[1:]])
    got = other.restore("set")
    assert {f: (got.path / f).read_bytes() for f in "abc"} == {f: f.encode() * 1000 for f in "abc"}
    assert not (copy / "b").exists()
    [outcome] = store.promote("set", "scratch")
    assert outcome.action == "copied"
    assert located(store, "scratch").state == "whole"
    assert (copy / "b").read_bytes() == b"b" * 1000


def test_populate_heals_a_copy_that_was_purged_in_part(tmp_path, store):
    (tmp_path / "scratch" / "set" / "b").unlink()
    again = tiers(tmp_path)
    again[0] = local_tier(tmp_path / "other")
    again[1] = Tier("scratch", again[1].backend, populate=True)
    TieredStore(again).restore("set")
    assert located(store, "scratch").state == "whole"


@pytest.mark.parametrize("gone", [".tieredstore.records", ".tieredstore.json"])
def test_a_manifest_that_was_purged_is_no_damage(tmp_path, store, gone):
    copy = tmp_path / "scratch" / "set"
    (copy / gone).unlink()
    state = {".tieredstore.records": "partial", ".tieredstore.json": "absent"}[gone]
    assert located(store, "scratch").state == state
    other = TieredStore([local_tier(tmp_path / "other"), *store.tiers[1:]])
    assert other.restore("set").source == "far"
    assert (copy / "a").exists()
    store.promote("set", "scratch")
    assert located(store, "scratch").state == "whole"
    assert store.verify("set", ["scratch"])[0].ok


def test_a_restore_counts_as_use_where_that_is_wanted(tmp_path, store):
    copy = tmp_path / "scratch" / "set"
    for path in copy.iterdir():
        unused(path, 9)
    wanted = tiers(tmp_path, refresh_on_restore=True)
    wanted[0] = local_tier(tmp_path / "other")
    TieredStore(wanted).restore("set")
    assert all(time.time() - path.stat().st_atime < 60 for path in copy.iterdir())


def test_keys_of_the_configuration(tmp_path):
    def opened(**keys):
        first = {"name": "node", "backend": "local", "path": str(tmp_path / "node")}
        second = {"name": "s", "backend": "scratch", "path": str(tmp_path / "s"), **keys}
        return tieredstore.open_store({"tier": [first, second]}).tiers[1]

    tier = opened(purge_days=30, refresh_on_restore=True)
    assert (tier.backend.purge_days, tier.adopt, tier.durable) == (30.0, False, False)
    for keys, why in (
        ({"purge_days": -1}, "purge_days is -1, expected a number of days"),
        ({"purge_days": "30"}, "purge_days is '30', expected a number"),
        ({"refresh_on_restore": 1}, "refresh_on_restore is 1, expected true or false"),
    ):
        with pytest.raises(ConfigError, match=re.escape(why)):
            opened(**keys)
