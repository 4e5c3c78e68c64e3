"""An attacker who can write to a lower tier, or into an artifact's folder in the first one.

Beside the roots stands a canary: a tree whose files hold a secret, as good as what the store would
look for in their place. Whatever the attacker lays, nothing of it is opened, changed or deleted
(its folders are watched by inotify and compared), no file of the store ever holds the secret, every
verb ends in time, with its work done or with one clear error of the library's own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import stat
import struct
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tieredstore.backends.local import LocalBackend
from tieredstore.errors import TieredStoreError
from tieredstore.manifest.artifact import HEAD, RECORDS, Head, canonical, digest128
from tieredstore.store import TieredStore
from tieredstore.tiers.tier import Tier

NAME = "runs/set"
pytestmark = pytest.mark.timeout(300)  # on a machine that does much else
FILES = {"a": b"a" * 70_000, "sub/b": b"b" * 10, "c": b""}
SECRET = b"the secret of somebody else"
VERBS = ("status", "restore", "verify", "promote", "evict", "ensure", "collect")
EACH = int(os.environ.get("TIEREDSTORE_TEST_HOSTILE_EACH", "2"))  # of so many places one
EXAMPLES = int(os.environ.get("TIEREDSTORE_TEST_HOSTILE_EXAMPLES", "10"))


def load(server):
    path = Path(__file__).parents[1] / "servers" / f"{server}.py"
    spec = importlib.util.spec_from_file_location(f"hostile_{server}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Canary = load("canary").Canary


class World:
    """Two roots, the artifact in both, and the canary beside them."""

    def __init__(self, root):
        self.root = root
        self.local, self.vol, self.outside = root / "local", root / "vol", root / "outside"
        self.vol.mkdir(parents=True)
        self.store = self.opened()
        with self.store.create(NAME, {"v": 1}) as stage:
            for file, data in FILES.items():
                (stage.path / file).parent.mkdir(exist_ok=True)
                (stage.path / file).write_bytes(data)
        self.store.promote(NAME)
        shutil.copytree(self.vol, self.outside)  # would do in place of what it is taken for
        for path in [p for p in self.outside.rglob("*") if p.is_file()]:
            if path.name in {"a", "b"}:
                path.write_bytes((SECRET * 3000)[: path.stat().st_size])
        (self.outside / "secret").write_bytes(SECRET)
        self.canary = Canary(self.outside)

    def opened(self):
        return TieredStore(
            [
                Tier("local", LocalBackend(str(self.local)), deadline=5),
                Tier("vol", LocalBackend(str(self.vol)), durable=True, deadline=5),
            ]
        )

    def forget(self):
        shutil.rmtree(self.local)

    def run(self):
        """Every verb; what they raised."""
        self.canary.watch()
        raised = []
        for verb in VERBS:
            since = time.monotonic()
            try:
                self.do(verb)
            except TieredStoreError as error:
                raised.append(error)
            assert time.monotonic() - since < 30, f"{verb} took too long"
        assert not any("\n" in str(error) for error in raised)
        met = self.canary.untouched()
        assert not met, f"opened outside the roots: {met}"
        for folder in (self.local, self.vol):
            holds_no_secret(folder)
        return raised

    def do(self, verb):
        if verb == "status":
            return self.opened().status()
        if verb == "collect":
            return self.opened().collect(grace=0.0, damaged=True)
        if verb == "ensure":
            return self.read(self.opened().ensure(NAME, build, {"v": 1}))
        found = getattr(self.opened(), verb)(NAME)
        return self.read(found) if verb == "restore" else found

    def read(self, got):
        with got:
            for file, data in FILES.items():
                with got.open(file) as opened:
                    assert opened.read() in {data, b"made anew"}
        return got


def build(stage):
    for file in FILES:
        (stage.path / file).parent.mkdir(exist_ok=True)
        (stage.path / file).write_bytes(b"made anew")


def holds_no_secret(folder):
    for above, _, files in os.walk(folder):  # goes into no link
        for file in files:
            path = os.path.join(above, file)
            if stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, "rb") as opened:
                    assert SECRET not in opened.read(), path


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "w")


# -- links and special files in the place of whatever lies there ---------------------------------


def link(path, outside):
    path.symlink_to(outside)


def link_inside(path, outside):
    path.symlink_to(os.path.relpath(outside, path.parent))


def fifo(path, outside):
    os.mkfifo(path)


def device(path, outside):
    os.mknod(path, 0o666 | 0o020000, os.makedev(1, 5))  # /dev/zero


def garbage(path, outside):
    path.write_bytes(b"[" * 50_000)


PUT = [link, link_inside, fifo, device, garbage]
PLACES = [
    "runs",
    "runs/set",
    "runs/set/a",
    "runs/set/sub",
    f"runs/set/{HEAD}",
    f"runs/set/{RECORDS}",
    "runs/set/.tieredstore.pending",
    "runs/set/.tieredstore.partial",
    ".tieredstore",
    *(f".tieredstore/{part}" for part in ("part", "stage", "old", "damaged", "swap", "lease")),
    *(
        f".tieredstore/{part}"
        for part in ("fill", "alive", "gone", "evict", "pins", "queue", "space", "record")
    ),
]


def replace(path, put, outside):
    if put is device and os.geteuid() != 0:
        pytest.skip("making devices needs root")
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, outside)


@pytest.mark.parametrize("put", PUT)
@pytest.mark.parametrize("which", ["vol", "local"])
def test_what_stands_in_the_place_of_anything_leads_nowhere(tmp_path, which, put):
    places = PLACES if which == "vol" else [p for p in PLACES if p.startswith("runs/set/")]
    places = places[PUT.index(put) % EACH :: EACH]
    wrong = []
    for number, place in enumerate(places):
        world = World(tmp_path / f"{number}")
        replace(getattr(world, which) / place, put, world.outside / place)
        if which == "vol":
            world.forget()
        try:
            world.run()
        except Exception as error:  # noqa: BLE001 - all of them are shown
            wrong.append(f"{place}: {''.join(traceback.format_exception(error)[-3:])}")
    assert not wrong, "\n".join(wrong)


def test_a_file_that_becomes_a_link_again_and_again(world):
    """Between any look and any open; the same for a folder."""
    over = threading.Event()

    def flip(path, target):
        other = path.with_name(f"{path.name}.other")
        with suppress(FileNotFoundError):  # the copy was found damaged and put aside
            while not over.is_set():
                path.rename(other)
                path.symlink_to(target)
                path.unlink()
                other.rename(path)

    paths = [world.vol / NAME / file for file in ("a", "sub")]
    threads = [
        threading.Thread(target=flip, args=(path, world.outside / NAME / path.name))
        for path in paths
    ]
    for thread in threads:
        thread.start()
    try:
        until = time.monotonic() + 1.5
        world.canary.watch()
        while time.monotonic() < until:
            shutil.rmtree(world.local, ignore_errors=True)
            for verb in ("restore", "verify"):
                with suppress(TieredStoreError):
                    world.do(verb)
            holds_no_secret(world.local)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not world.canary.untouched()


# -- manifests that lie --------------------------------------------------------------------------


def forge(folder, change_head=None, rows=None, **first):
    """Put a manifest there that is right by its digests, and wrong in what it says."""
    if rows is not None:
        lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        table = b"".join(struct.pack("<I16s", 1 << 20, bytes(16)) for _ in range(first.pop("t", 0)))
        counts = {"files": len(rows), "blocks": len(table) // 20, "lines": len(lines)} | first
        (folder / RECORDS).write_bytes(json.dumps(counts).encode() + b"\n" + lines + table)
    data = (folder / RECORDS).read_bytes()
    body = json.loads((folder / HEAD).read_bytes())
    body.pop("check")
    body["records"] = {"size": len(data), "digest": digest128(data)}
    body.update(change_head or {})
    body["check"] = digest128(canonical(body))
    (folder / HEAD).write_bytes(json.dumps(body).encode())


EVIL = [
    *("../../outside/secret", "/etc/passwd", "a/../../../outside/secret", "./a", "a//b", "", "."),
    *("..", "a\0b", "a" * 256, "/".join("d" * 200 for _ in range(30)), ".tieredstore/x", HEAD),
    *("sub/.tieredstore.pending/x", "a\nb", "\ud800"),
]


@pytest.mark.parametrize("path", EVIL, ids=lambda p: repr(p)[:24])
def test_records_that_name_other_places(world, path):
    rows = [[path, 0, 0o644, 0, 0, 0, None]]
    forge(world.vol / NAME, {"files": 1, "size": 0}, rows)
    world.forget()
    raised = world.run()
    assert any("vol" in str(error) for error in raised), raised


LIES = {
    "setuid": ([["a", 0, 0o4755, 0, 0, 0, None]], {}),
    "petabytes": ([["a", 1 << 50, 0o644, 0, 0, 0, None]], {}),
    "gigabytes of blocks": ([["a", 1 << 34, 0o644, 0, 0, 1 << 14, None]], {"t": 1 << 14}),
    "a billion files": ([["a", 0, 0o644, 0, 0, 0, None]], {"files": 10**9}),
    "a billion blocks": ([["a", 0, 0o644, 0, 0, 0, None]], {"blocks": 10**9}),
    "negative": ([["a", -1, 0o644, 0, 0, 0, None]], {}),
    "a time": ([["a", 0, 0o644, 1 << 70, 0, 0, None]], {}),
    "far blocks": ([["a", 5, 0o644, 0, 1 << 60, 1, None]], {}),
    "twice": ([["a", 0, 0o644, 0, 0, 0, None]] * 2, {}),
    "a file and a folder": ([[p, 0, 0o644, 0, 0, 0, None] for p in ("a", "a/b")], {}),
    "nested": ([["a", eval("[" * 80 + "]" * 80), 0, 0, 0, 0, None]], {}),
}


@pytest.mark.parametrize("lie", LIES)
def test_records_that_claim_what_cannot_be(world, lie):
    rows, first = LIES[lie]
    size = sum(row[1] for row in rows if isinstance(row[1], int))
    forge(world.vol / NAME, {"files": len(rows), "size": max(size, 0)}, rows, **first)
    world.forget()
    raised = world.run()
    assert any("vol" in str(error) for error in raised), raised


HEADS = {
    "data above": {"data": "../../outside/runs/set"},
    "data absolute": {"data": "/etc"},
    "generation above": {"generation": "../../outside"},
    "records of exabytes": {"records": {"size": 1 << 60, "digest": "0" * 32}},
    "huge number": {"size": 10**4000},
    "deep": {"recipe": {"preparer": "me", "options": eval('{"k":' * 90 + "1" + "}" * 90)}},
    "shards": {"shards": {"size": 1 << 60, "digest": "0" * 32}},
    "kind": {"kind": "device"},
}


@pytest.mark.parametrize("lie", HEADS)
def test_heads_that_lie(world, lie):
    forge(world.vol / NAME, HEADS[lie])
    world.forget()
    world.run()


# -- anything at all, in every small file of the store's own ------------------------------------

NUMBERS = st.integers(-(10**30), 10**30) | st.floats()
TEXTS = st.sampled_from([*EVIL[:8], "../../outside", "part", "old", "publishing"]) | st.text()
PLAIN = st.none() | st.booleans() | NUMBERS | TEXTS
INNER = PLAIN | st.lists(PLAIN, max_size=4) | st.dictionaries(TEXTS, PLAIN, max_size=4)
JSON = INNER | st.lists(INNER, max_size=4) | st.dictionaries(TEXTS, INNER, max_size=4)
GENERATIONS = ["../../../outside", "20260131t235959-0123456789abcdef", "a" * 64]


VALUES = st.sampled_from([*GENERATIONS, "part", "old", "../../outside/runs/set", NAME]) | JSON
KEYS = ("kind", "generation", "area", "required", "folder", "staged", "tier", "name", "until")
KNOWN = st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, VALUES))
MARKS = (KNOWN | JSON).map(lambda body: json.dumps(body).encode()) | st.binary()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_marks_and_notes_with_anything_in_them(tmp_path_factory, data):
    world = World(tmp_path_factory.mktemp("marks") / "w")
    generation = data.draw(st.sampled_from(GENERATIONS[1:]))
    swap = digest128(NAME.encode())
    for place in (
        f"runs/set/.tieredstore.pending/publishing-{generation}",
        f"runs/set/.tieredstore.pending/removing-{generation}",
        f".tieredstore/swap/{swap}-0123abcd",
        f".tieredstore/fill/{swap}.json",
        ".tieredstore/lease/length.json",
        f".tieredstore/pins/{swap}.json",
        f".tieredstore/evict/{swap}.x",
        f".tieredstore/queue/{swap}.json",
        f".tieredstore/reserved/{swap}.json",
    ):
        if data.draw(st.booleans()):
            path = world.vol / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.draw(MARKS))
    world.forget()
    world.run()
    shutil.rmtree(world.root)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    change=st.dictionaries(
        st.sampled_from(sorted(json.loads(Head("a" * 8, 1, 1, 1, "0" * 32).emit()))), JSON
    )
)
def test_heads_with_anything_in_them(tmp_path_factory, change):
    world = World(tmp_path_factory.mktemp("heads") / "w")
    try:
        forge(world.vol / NAME, change)
    except (ValueError, TypeError, UnicodeError):
        return  # no JSON
    world.forget()
    world.run()
    shutil.rmtree(world.root)
