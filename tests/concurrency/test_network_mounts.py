"""32 processes on one file system: a local disk, one without locks, three that are networked.

Of a network file system there are two mounts, as two nodes would have it, and half of the
processes work on each. Either every process is a node with a first tier of its own and shares the
volume below it, or the first tier itself lies on the shared file system.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tieredstore.backends.local import LocalBackend
from tieredstore.reporter import Reporter
from tieredstore.store import TieredStore
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import Tier

MANY = int(os.environ.get("TIEREDSTORE_TEST_PROCESSES", "32"))
KINDS = os.environ.get("TIEREDSTORE_TEST_MOUNTS", "local,no-flock,gluster").split(",")
TIMES = int(os.environ.get("TIEREDSTORE_TEST_REPLACEMENTS", "4"))
pytestmark = pytest.mark.timeout(300)  # on a machine that does much else
NETWORKS = {
    "gluster": ["gluster"],
    "cephfs": ["cephfs"],
    "sshfs": ["sshfs"],
    "sshfs-fresh": ["sshfs", "dir_cache=no", "entry_timeout=0", "attr_timeout=0"],
}


@dataclass
class Place:
    """One file system as two nodes see it, and a folder of this machine's for what is not shared.

    Attributes
    ----------
    own : Path
        On a local disk.
    mounts : tuple of Path
        The same folder twice.
    kind : str
        ``local``, ``no-flock``, ``gluster``, ``cephfs``, ``sshfs`` as mounted without options,
        and ``sshfs-fresh`` with those that have it ask the server each time.
    """

    kind: str
    own: Path
    mounts: tuple[Path, Path]

    @property
    def locks(self):
        """Whether ``flock`` on one mount is seen by the other."""
        return self.kind in {"local", "gluster", "cephfs"}

    @property
    def below(self):
        """The backend that the documentation advises for such a volume."""
        return "local" if self.locks else "runpod"

    def start(self, orders):
        """Begin to do all of them, each in a process of its own."""
        return Running(self, [{**self._common(), **order} for order in orders])

    def all(self, orders, timeout=240):
        """Do all of them at once, and give what they answered."""
        return self.start(orders).answers(timeout)

    def one(self, function, **order):
        """Do one thing."""
        return self.all([{"function": function, **order}])[0]

    def _common(self):
        common = {"root": str(self.own), "below": self.below, "files_of": {"d": 1_100_000}}
        return {**common, "no_flock": self.kind == "no-flock"}

    def mount(self, number):
        """The mount that this process works on."""
        return self.mounts[number % 2]

    def nodes(self, function, count=MANY, **order):
        """So many orders of processes that share the volume alone."""
        return [
            {"function": function, "local": f"node{n}", "vol": str(self.mount(n) / "vol"), **order}
            for n in range(count)
        ]

    def sharing(self, function, count=MANY, **order):
        """So many orders of processes that share the first tier."""
        return [
            {"function": function, "local": str(self.mount(n) / "first"), **order}
            for n in range(count)
        ]


class Running:
    """Processes of ``many.py``."""

    def __init__(self, place, orders):
        self.folder = Path(tempfile.mkdtemp(dir=place.own))
        self.count = len(orders)
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("many.py"))],
            stdin=subprocess.PIPE,
            text=True,
        )
        self.process.stdin.write(json.dumps({"answers": str(self.folder), "orders": orders}))
        self.process.stdin.close()

    def answers(self, timeout=240):
        try:
            assert self.process.wait(timeout) == 0
        finally:
            self.process.kill()
        found = [json.loads((self.folder / f"{n}.json").read_text()) for n in range(self.count)]
        wrong = [one for one in found if "error" in one]
        assert not wrong, f"{len(wrong)} of {len(found)} failed, the first: {wrong[0]['trace']}"
        return [one["answer"] for one in found]


@pytest.fixture(scope="module", params=KINDS)
def file_system(request):
    """One mounted twice, for all tests of this module."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    cluster = None
    try:
        mounts = (folder, folder)
        if request.param in NETWORKS:
            name, *options = NETWORKS[request.param]
            server = from_servers(name)
            if server.missing():
                pytest.skip(server.missing())
            cluster = server.start(folder / "cluster", *options)
            mounts = cluster.mounts
        yield request.param, folder, mounts
    finally:
        if cluster is not None:
            cluster.stop()
        shutil.rmtree(folder)


def from_servers(name):
    path = Path(__file__).parents[1] / "servers" / f"{name}.py"
    import importlib.util

    spec = importlib.util.spec_from_file_location(f"mounts_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def place(file_system):
    """A folder of its own on it."""
    kind, folder, mounts = file_system
    own = Path(tempfile.mkdtemp(dir=folder))
    shared = f"t{time.monotonic_ns()}"
    (mounts[0] / shared).mkdir()
    until = time.monotonic() + 30
    while not (mounts[1] / shared).is_dir():
        assert time.monotonic() < until
        time.sleep(0.05)
    return Place(kind, own, tuple(mount / shared for mount in mounts))


def notes(place, what):
    return len(list((place.own / "notes").glob(f"{what}-*")))


LAYOUTS = pytest.mark.parametrize("layout", ["nodes", "sharing"])


@LAYOUTS
def test_ensure_builds_once_where_locks_work_and_right_everywhere(place, layout):
    running = place.start(getattr(place, layout)("ensure", takes=0.3))
    time.sleep(0.5)
    (place.own / "go").touch()
    numbers = set(running.answers())
    built = notes(place, "build")
    assert built == len(numbers) if place.locks else built >= 1
    if place.locks or layout == "nodes":
        assert built == 1
    for order in getattr(place, layout)("verify", 2):  # as each of the mounts sees it
        assert all(place.all([order])[0].values())


@LAYOUTS
def test_readers_see_whole_generations_while_they_are_replaced(place, layout):
    own = layout == "nodes"
    make = getattr(place, layout)
    options = {"forget": own, "pause": 0.5 if own else 0.1, "times": TIMES if own else 2 * TIMES}
    writer, *readers = make("read_what_comes", **options)
    place.all([{**writer, "function": "make_and_promote", "number": 0}])
    _, *seen = place.all([{**writer, "function": "replace_and_promote"}, *readers])
    assert len({n for s in seen for n in s["seen"]}) >= 3, seen
    if not place.kind.startswith("sshfs"):
        assert not any(s["changed"] for s in seen), seen


@pytest.mark.parametrize("what", ["in-place", "file"])
def test_readers_of_what_is_replaced_file_by_file(place, what):
    """In a folder with a file of somebody else's, and of an artifact that is a single file."""
    verb = {"in-place": "replace", "file": "replace_file"}[what]
    options = {"forget": False, "pause": 0.05}
    if what == "file":
        options |= {"name": "logs/one", "files": ["one"]}
    writer, *readers = place.sharing("read_what_comes", **options)
    writer |= {"number": 0, "foreign": True}
    place.all([{**writer, "function": "make" if what == "in-place" else "make_file"}])
    _, *seen = place.all([{**writer, "function": verb, "times": 2 * TIMES}, *readers])
    assert sum(s["reads"] for s in seen) >= len(seen), seen


@pytest.mark.parametrize("verb", ["restore", "build"])
def test_what_another_node_has_just_put_there_is_seen_with_a_lease(place, verb):
    name = "runs/1/set"
    a, b = (LocalBackend(str(mount)) for mount in place.mounts)
    a.mount.make_root()
    assert b.read_head(name) is None
    store = TieredStore([Tier("a", a)])
    with store.create(name) as stage:
        (stage.path / "a").write_bytes(b"a")
    other = Tier("b", b)
    chain = Chain.of([other], Reporter())
    with chain.working_on(other, name, verb):
        found = b.read_head(name)
    if not place.kind.startswith("sshfs"):  # its listings are old as well
        assert found is not None


@pytest.mark.parametrize("at", ["locate", "records", "bytes"])
def test_a_copy_that_another_node_has_replaced_and_deleted_is_looked_for_anew(place, at):
    one, two = (
        TieredStore(
            [
                Tier("first", LocalBackend(str(place.own / f"first{n}"))),
                Tier("vol", LocalBackend(str(place.mount(n) / "vol")), durable=True),
            ]
        )
        for n in range(2)
    )
    publish(one, 1)

    class Meanwhile(Reporter):
        met = "located"

        def located(self, name, tier, where):
            self.meet("records")

        def started(self, verb, name, size):
            self.meet("bytes")

        def meet(self, what):
            if what == at and self.met != at:
                self.met = at
                replace_and_forget(place, one)

    assert two.locate("set")[1].state == "whole"
    if at == "locate":
        replace_and_forget(place, one)
    with TieredStore(two.tiers, Meanwhile()).restore("set") as got, got.open("a") as opened:
        assert opened.read() == b"2" * 70_000
    assert [v.ok for v in one.verify("set")] == [True, True]


def publish(store, number):
    with store.create("set", recipe={"v": 1}) as stage:
        (stage.path / "a").write_bytes(str(number).encode() * 70_000)
    store.promote("set")


def replace_and_forget(place, store):
    publish(store, 2)
    shutil.rmtree(place.mounts[0] / "vol" / ".tieredstore" / "old")


def test_promotes_race_to_one_volume(place):
    place.all(place.nodes("make_own"))
    running = place.start(place.nodes("promote"))
    time.sleep(0.5)
    (place.own / "go").touch()
    outcomes = running.answers()
    assert {action for found in outcomes for action in found} <= {"copied", "replaced", "present"}
    for order in place.nodes("verify", 2):
        assert place.all([order])[0]["vol"]


@LAYOUTS
def test_files_of_one_generation_are_restored_at_once(place, layout):
    author = {"local": "author", "vol": str(place.mounts[0] / "vol")}
    place.one("make_and_promote", number=7, **author)
    subsets = (["a"], ["d"], ["b/c"], ["a", "d"], None)
    orders = getattr(place, layout)("restore")
    for n, order in enumerate(orders):
        order |= {"files": subsets[n % 5], "vol": str(place.mount(n) / "vol")}
    running = place.start(orders)
    time.sleep(0.5)
    (place.own / "go").touch()
    assert set(running.answers()) == {7}
