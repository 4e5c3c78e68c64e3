"""A mounted tier whose file system fails in every operation, hangs, or is full; every verb.

Another tier has a copy, so each verb either does its work or says in one line what failed, within
the tier's deadline; nothing wrong is ever handed out, and no copy is lost that was only not to be
had for a while.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tieredstore.backends.local import LocalBackend
from tieredstore.errors import TieredStoreError
from tieredstore.store import TieredStore
from tieredstore.tiers.tier import Tier

pytestmark = pytest.mark.timeout(300)  # on a machine that does much else
FILES = {"a": b"a" * 1_100_000, "sub/b": b"b" * 10, "empty": b""}
RECIPE = {"v": 1}
DEADLINE, MARGIN = 2.0, 15.0  # seconds; the margin is for a busy machine
READING = ("getattr", "readdir", "open", "read")
WRITING = ("create", "mkdir", "write", "rename", "fsync", "unlink")
FAULTS = {
    "EIO": (*READING, *WRITING),
    "ESTALE": ("getattr", "readdir", "open", "read", "rename"),
    "EACCES": ("getattr", "readdir", "open", "create", "mkdir"),
    "EROFS": ("create", "mkdir", "write", "rename", "unlink"),
    "ENOSPC": ("create", "mkdir", "write", "rename"),
}
EACH = int(os.environ.get("TIEREDSTORE_TEST_FAULTS_EACH", "4"))  # of so many combinations one
VERBS = ("restore", "promote", "ensure", "verify", "status", "evict")


@pytest.fixture(scope="module")
def mounted(load_server_once):
    faultyfs = load_server_once("faultyfs")
    if faultyfs.missing():
        pytest.skip(faultyfs.missing())
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    mount = faultyfs.Mounted(folder)
    yield mount
    mount.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def load_server_once():
    def load(name):
        path = Path(__file__).parents[1] / "servers" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"faulty_{name}", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load


class World:
    """Three tiers, the one in the middle (or the first) on the faulty mount."""

    def __init__(self, mount, where="near"):
        self.mount = mount
        self.own = Path(tempfile.mkdtemp(dir=mount.back.parent))
        self.place = f"w{time.monotonic_ns()}"
        (mount.back / self.place).mkdir()
        names = ("local", "near", "far")
        paths = {name: self.own / name for name in names}
        paths[where] = mount.at / self.place
        self.behind = {name: self.own / name for name in names}
        self.behind[where] = mount.back / self.place
        self.store = self._store(paths)
        self.unfailing = self._store(self.behind)

    def _store(self, paths):
        return TieredStore(
            [
                Tier("local", LocalBackend(str(paths["local"])), deadline=DEADLINE),
                *(
                    Tier(n, LocalBackend(str(paths[n])), durable=True, deadline=DEADLINE)
                    for n in ("near", "far")
                ),
            ]
        )

    def prepare(self, verb):
        """What the verb finds: the artifact where it is to come from."""
        if verb == "ensure":
            return
        build_in(self.unfailing)
        if verb != "promote":
            self.unfailing.promote("set")
        if verb == "restore":
            self.unfailing.evict("set")

    def do(self, verb):
        if verb == "ensure":
            return self.store.ensure("set", build, RECIPE)
        if verb == "status":
            return self.store.status()
        return getattr(self.store, verb)("set")

    def whole(self, verb):
        """The artifact can be had, and every copy that says it is whole is."""
        if verb == "ensure":
            assert content(self.unfailing.ensure("set", build, RECIPE)) == FILES
        assert content(self.unfailing.restore("set")) == FILES
        for found in self.unfailing.verify("set"):
            assert found.ok or found.state == "absent", found

    def leave(self):
        shutil.rmtree(self.own)
        shutil.rmtree(self.mount.back / self.place)


class OwnTrouble(Exception):
    """The function that builds could not write: its own error, raised as it is."""


def build(stage):
    try:
        for file, data in FILES.items():
            (stage.path / file).parent.mkdir(exist_ok=True)
            (stage.path / file).write_bytes(data)
    except OSError as error:
        raise OwnTrouble(error.strerror) from error


def build_in(store):
    with store.create("set", RECIPE) as stage:
        build(stage)


def content(got):
    found = {}
    with got:
        for file in FILES:
            with got.open(file) as opened:
                found[file] = opened.read()
    return found


def attempt(world, verb, rule):
    """Do it while the rule counts; what failed, if anything."""
    since = time.monotonic()
    world.mount.fail(rule)
    try:
        done = world.do(verb)
        if verb in {"restore", "ensure"} and world.store.tiers[0].name == "local":
            assert done.recipe.options == RECIPE
    except (TieredStoreError, OSError, OwnTrouble) as error:
        return error
    finally:
        world.mount.heal()
        assert time.monotonic() - since < 2 * DEADLINE + MARGIN, f"{verb}, {rule}"
    return None


def problems(world, verb, rule, healed):
    """What must not be: raw errors, a copy that was not used, something wrong afterwards."""
    error = attempt(world, verb, rule)
    if error is not None and not isinstance(error, (TieredStoreError, OwnTrouble)):
        yield f"{error!r} is none of the library's own"
    if error is not None and "\n" in str(error):
        yield f"more than one line: {error}"
    if error is not None and verb in healed:
        yield f"{error!r}, though another copy is there"
    try:
        world.whole(verb)
    except Exception as problem:  # noqa: BLE001 - all of them are shown
        yield f"afterwards: {problem!r}"


def all_problems(mounted, code, where, healed):
    found = []
    ways = list(itertools.product(FAULTS[code], VERBS))
    first = list(FAULTS).index(code) % EACH
    for op, verb in ways[first::EACH]:
        world = World(mounted, where)
        world.prepare(verb)
        rule = {"op": [op], "errno": code, "glob": f"/{world.place}/*"}
        found += [f"{op}, {verb}: {why}" for why in problems(world, verb, rule, healed)]
        world.leave()
    return found


@pytest.mark.parametrize("code", FAULTS)
def test_a_lower_tier_that_fails_in_one_operation(mounted, code):
    found = all_problems(mounted, code, "near", {"restore", "verify", "status"})
    assert not found, "\n".join(found)


@pytest.mark.parametrize("code", FAULTS)
def test_a_first_tier_that_fails_in_one_operation(mounted, code):
    found = all_problems(mounted, code, "local", {"verify", "status"})
    assert not found, "\n".join(found)


@pytest.mark.parametrize("code", ["EIO", "ESTALE"])
@pytest.mark.parametrize("op", READING)
def test_the_only_copy_is_kept_when_it_cannot_be_read_for_a_while(mounted, op, code):
    world = World(mounted)
    world.prepare("restore")
    shutil.rmtree(world.behind["far"])
    error = attempt(world, "restore", {"op": [op], "errno": code, "glob": f"/{world.place}/*"})
    assert isinstance(error, TieredStoreError) or op == "readdir"
    assert content(world.unfailing.restore("set")) == FILES
    assert [v.ok for v in world.unfailing.verify("set")] == [True, True]
    world.leave()


@pytest.mark.parametrize("verb", VERBS)
def test_a_mount_that_hangs(mounted, verb):
    """Its daemon is stopped: every call on it waits, for as long as it is."""
    world = World(mounted)
    world.prepare(verb)
    mounted.hang()
    since = time.monotonic()
    error = None
    try:
        world.do(verb)
    except TieredStoreError as caught:
        error = caught
    finally:
        took = time.monotonic() - since
        mounted.go_on()
    steps = 4 if verb == "ensure" else 2  # looks, builds, looks again and promotes
    assert took < steps * DEADLINE + MARGIN
    if verb in {"restore", "verify", "status", "evict"}:
        assert error is None
    else:
        assert f"no answer within {DEADLINE:g} s" in str(error)
    world.whole(verb)
    world.leave()
