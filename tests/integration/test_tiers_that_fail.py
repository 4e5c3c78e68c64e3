"""Tiers that are down, hang, or deny access: skipped, named, and waited for no longer than said.

Real servers on loopback, every verb, chains of every order; the process ends while they hang.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tieredstore import ArtifactNotFound, EvictRefused, PromoteFailed, TieredStore
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.backends.http import HttpBackend
from tieredstore.backends.local import LocalBackend
from tieredstore.tiers.tier import UNREACHABLE, Tier

DEADLINE, MARGIN = 0.4, 6.0  # seconds; the margin is for a busy machine
FILES = {"a": b"a" * 300_000, "sub/b": b"b"}


def load(server):
    path = Path(__file__).parents[1] / "servers" / f"{server}.py"
    spec = importlib.util.spec_from_file_location(f"failing_{server}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


dead = load("dead")


def s3(server):
    client = {"endpoint_url": server.url, "region_name": "us-east-1"}
    return FsspecBackend("s3://bucket/p", {"key": "k", "secret": "s", "client_kwargs": client})


WAYS = [*(("http", kind) for kind in dead.KINDS), ("s3", "hangs"), ("s3", "denies")]


@pytest.fixture(params=WAYS, ids="-".join)
def failing(request):
    """A tier on a server that is no use."""
    backend, kind = request.param
    if backend == "s3":
        pytest.importorskip("s3fs")
    with dead.dead(kind) as server:
        made = s3(server) if backend == "s3" else HttpBackend(server.url)
        yield Tier("dead", made, durable=True, deadline=DEADLINE)


@pytest.fixture
def place(tmp_path):
    """Makes stores whose first tier is ``first``, and further tiers below."""

    def made(*below, first="first"):
        tiers = [Tier("first", LocalBackend(str(tmp_path / first)))]
        for each in below:
            named = isinstance(each, str)
            tiers.append(
                Tier(each, LocalBackend(str(tmp_path / each)), durable=True) if named else each
            )
        return TieredStore(tiers)

    return made


def create(store, name="set"):
    with store.create(name, recipe={"v": 1}) as stage:
        for file, data in FILES.items():
            (stage.path / file).parent.mkdir(exist_ok=True)
            (stage.path / file).write_bytes(data)


class Clock:
    """Holds what stands in its ``with`` block to one deadline and a margin."""

    def __init__(self, times=1):
        self.most = DEADLINE * times + MARGIN

    def __enter__(self):
        self.begun = time.monotonic()

    def __exit__(self, kind, *_):
        if kind is None:
            assert time.monotonic() - self.begun < self.most


def test_every_verb_goes_on_without_it(place, failing):
    author = place("near")
    create(author)
    create(author, "other")
    author.promote("set")
    store = place(failing, "near", first="fresh")

    with Clock():
        got = store.restore("set")
    assert (got.source, list(got.skipped)) == ("near", ["dead"])
    with Clock():
        assert store.restore("set").source == "first"  # a hit asks nobody
    with Clock():
        states = {w.tier.name: w.state for w in store.locate("set")}
    assert states == {"first": "whole", "dead": UNREACHABLE, "near": "whole"}
    with Clock():
        assert store.names() == ["set"]
    with Clock(2):  # its names, and then one question at most
        status = store.status()
    assert [w.state for w in status["set"]] == ["whole", UNREACHABLE, "whole"]
    assert status["set"][1].detail
    with Clock():
        verified = {v.tier: v for v in store.verify("set")}
    assert [verified[t].ok for t in ("first", "dead", "near")] == [True, False, True]
    assert (verified["dead"].state, verified["dead"].damaged) == (UNREACHABLE, False)
    with Clock(), store.open_stream("set", "a") as stream:
        assert stream.read() == FILES["a"]
    with Clock(), pytest.raises(PromoteFailed) as caught:
        store.promote("set")
    assert [(o.tier, o.action) for o in caught.value.outcomes] == [
        ("dead", "failed"),
        ("near", "present"),
    ]
    with Clock():
        assert store.evict("set") == sum(map(len, FILES.values()))
    with Clock(), pytest.raises(ArtifactNotFound, match="dead: "):
        store.restore("nowhere")


def test_with_all_lower_tiers_down_a_hit_works_and_nothing_is_dropped(place, failing):
    create(place())
    again = Tier("again", failing.backend, durable=True, deadline=DEADLINE)
    store = place(failing, again)
    with Clock():
        assert store.restore("set").source == "first"
        assert store.ensure("set", build=None).source == "first"
    with Clock(2), pytest.raises(EvictRefused, match=r"dead: .*again: "):
        store.evict("set")
    with Clock(2):  # side by side
        assert [w.state for w in store.status()["set"]] == ["whole", UNREACHABLE, UNREACHABLE]
    with Clock(), pytest.raises(PromoteFailed):
        store.promote("set")
    assert store.verify("set", ["first"])[0].ok


@pytest.mark.parametrize("kind", ["hangs", "black hole"])
def test_many_names_cost_one_wait(place, kind):
    author = place("near")
    for n in range(24):  # a wait for each would be longer than one and the margin
        create(author, f"set{n}")
    with dead.dead(kind) as server:
        web = Tier("dead", HttpBackend(server.url), deadline=DEADLINE)  # cannot be listed
        with Clock():
            status = place(web).status()
    assert len(status) == 24
    assert {located[1].state for located in status.values()} == {UNREACHABLE}


@pytest.mark.parametrize("verb", ["restore", "open_stream", "verify"])
def test_a_server_that_stops_in_the_middle_is_left_for_the_next(place, tmp_path, verb):
    author = place("near")
    create(author)
    author.promote("set")
    web = load("web").Web(tmp_path / "near")
    released = threading.Event()
    web.fault = lambda asked: asked.path.endswith("set/a") and released.wait()
    try:
        tier = Tier("web", HttpBackend(web.url), deadline=DEADLINE)
        store = place(tier, "near", first="fresh")
        with Clock(2):
            if verb == "restore":
                got = store.restore("set")
                assert (got.source, list(got.skipped)) == ("near", ["web"])
            elif verb == "open_stream":
                with store.open_stream("set", "a") as stream:
                    assert stream.read() == FILES["a"]
            else:
                assert [v.ok for v in store.verify("set")] == [False, True]
    finally:
        released.set()
        web.stop()


CHAINS = {
    "none below": [],
    "remote before mounted": ["dead", "near"],
    "read-only in the middle": ["dead", "closed", "near"],
    "two of a kind": ["near", "second", "dead"],
    "five": ["dead", "closed", "second", "again", "near"],
}


@pytest.mark.parametrize("chain", CHAINS)
def test_chains_of_any_order_and_number(place, chain):
    author = place("near")
    create(author)
    author.promote("set")
    with dead.dead("refuses") as server:
        kinds = {
            "dead": Tier("dead", HttpBackend(server.url), deadline=DEADLINE),
            "again": Tier("again", HttpBackend(server.url), deadline=DEADLINE),
            "closed": Tier("closed", author.tiers[0].backend, read_only=True),
        }
        author.evict("set")
        names = CHAINS[chain]
        orders = list(itertools.permutations(names))[:: max(1, len(names) ** 2)] or [()]
        for number, order in enumerate(orders):
            store = place(*(kinds.get(t, t) for t in order), first=f"fresh{number}")
            if "near" not in order:
                with pytest.raises(ArtifactNotFound):
                    store.restore("set")
                continue
            with Clock(2):
                got = store.restore("set")
            assert got.source == "near"
            assert sorted(got.skipped) == sorted({"dead", "again"} & set(order))
            assert store.restore("set").source == "first"


SCRIPT = """
import json, sys, time
import tieredstore
begun = time.monotonic()
store = tieredstore.open_store(json.loads(sys.argv[1]))
store.names()
print(store.restore("set").source)
try:
    store.promote("set")
except tieredstore.PromoteFailed as error:
    print([o.action for o in error.outcomes])
print(time.monotonic() - begun < 8)
"""


@pytest.mark.parametrize("kind", ["hangs", "black hole"])
def test_the_process_ends_though_every_verb_was_left_hanging(place, tmp_path, kind):
    pytest.importorskip("s3fs")
    author = place("near")
    create(author)
    author.promote("set")
    with dead.dead(kind) as server:
        client = {"endpoint_url": server.url, "region_name": "us-east-1"}
        options = {"key": "k", "secret": "s", "client_kwargs": client}
        rows = [
            {"name": "first", "backend": "local", "path": str(tmp_path / "fresh")},
            {"name": "web", "backend": "http", "url": server.url, "deadline": 1},
            {
                "name": "s3",
                "backend": "fsspec",
                "url": "s3://bucket",
                "options": options,
                "durable": True,
                "deadline": 1,
            },
            {"name": "near", "backend": "local", "path": str(tmp_path / "near"), "durable": True},
        ]
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps({"tier": rows})],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.stdout.splitlines() == ["near", "['failed', 'present']", "True"]
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begun < 15
