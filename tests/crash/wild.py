"""What a process does until it is killed: one random operation after the other on three tiers.

Loaded by ``child.py`` in the place of ``operations.py``. Which operations, and on what, follows
from a seed. Each is written to a log before it begins, and what it promises when it has returned;
``promises.py`` reads that. The log lies outside the tiers and its writes are no points.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from pathlib import Path

import samples  # beside this file; child.py puts the folder on the path

from tieredstore import errors
from tieredstore.backends.local import LocalBackend
from tieredstore.backends.s3 import S3Backend
from tieredstore.manifest import shards
from tieredstore.putting import put
from tieredstore.store import TieredStore
from tieredstore.testing.faults import Point
from tieredstore.tiers.tier import Tier

shards.MANY = samples.MANY - 1
S3Backend.lease_length = 0.5
S3_POINTS = ("put", "create", "replace", "delete")
KNOWN = (errors.TieredStoreError,)  # what an operation may raise; anything else is a finding
write = os.write


class PointedS3(S3Backend):
    """S3 whose requests that change something are points at which this process may die."""

    def __init__(self, url, options, points):
        super().__init__(url, options["client_kwargs"]["endpoint_url"])
        self._points = points

    def client(self):
        client = super().client()
        for name in S3_POINTS:
            setattr(client, name, self._pointed(name, getattr(client, name)))
        return client

    def _pointed(self, name, call):
        return lambda *args: self._points.meet(Point(name, lambda: call(*args)))


class World:
    """Three tiers below one folder: local, a volume that restores fill, and one that is far."""

    def __init__(self, order, points):
        self.root, self.order, self.moved = Path(order["root"]), order, 0
        self.random = random.Random(order["seed"])
        self.log = os.open(self.root / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        vol = LocalBackend(str(self.root / "vol"))
        if order["s3"]:
            far = PointedS3(order["s3"]["url"], order["s3"]["options"], points)
        else:
            far = LocalBackend(str(self.root / "far"))
        self.store = TieredStore(
            [
                Tier("local", LocalBackend(str(self.root / "local"))),
                Tier("vol", vol, durable=True, populate=True),
                Tier("far", far, durable=True, pack="auto" if order["s3"] else "never"),
            ]
        )

    def say(self, **what):
        write(self.log, json.dumps(what).encode() + b"\n")

    def do(self, verb, name, call, **more):
        """Say what begins, do it, and say how it ended."""
        self.say(verb=verb, name=name, **more)
        try:
            gave = call()
        except KNOWN as error:
            self.say(ended=verb, error=error.kind, why=str(error))
        else:
            self.say(ended=verb, gave=gave)


def run(world):
    """So many random operations, unless it is killed before."""
    for number in range(world.order["operations"]):
        verb = world.random.choices(list(VERBS), [weight for _, weight in VERBS.values()])[0]
        VERBS[verb][0](world, f"{world.order['seed']}.{number}")
    return "lived"


def _any(world):
    return world.random.choice(samples.NAMES)


def _write(folder, found):
    for path, data in found.items():
        file = Path(folder, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def create(world, tag):
    name = world.random.choice((*samples.FOLDERS, *samples.SINGLES))

    def call():
        begin = world.store.create if name in samples.FOLDERS else world.store.create_file
        with begin(name, recipe={"preparer": "wild", "options": {"tag": tag}}) as stage:
            _write(stage.path, samples.files(name, tag))

    world.do("create", name, call, tag=tag)


def put_files(world, tag):
    name = world.random.choice(samples.FOLDERS)
    with tempfile.TemporaryDirectory(dir=world.root) as folder:
        _write(folder, samples.files(name, tag))
        world.do("put", name, lambda: put(world.store, name, [folder]), tag=tag)


def fill(world, tag):
    name = world.random.choice(samples.FOLDERS)
    found = samples.files(name, tag)

    def call():
        recipe = {"preparer": "wild", "options": {"tag": tag}}
        filling = world.store.fill(name, list(found), recipe=recipe)
        for path, data in found.items():
            temporary = filling.temporary(path)
            temporary.write_bytes(data)
            filling.put(path, temporary)
        return sorted(filling.refused)

    world.do("fill", name, call, tag=tag)


def promote(world, _):
    name, replace = _any(world), world.random.random() < 3 / 4
    to = world.random.choice((None, None, "vol", "far"))

    def call():
        return {o.tier: o.action for o in world.store.promote(name, to, replace=replace)}

    world.do("promote", name, call, to=to, replace=replace)


def restore(world, _):
    name = _any(world)
    world.do("restore", name, lambda: _read(name, world.store.restore(name)))


def restore_some(world, _):
    name = world.random.choice(samples.FOLDERS)
    call = lambda: _read(name, world.store.restore(name, files=[samples.TAG]), [samples.TAG])  # noqa: E731
    world.do("restore", name, call, files=[samples.TAG])


def _read(name, got, wanted=None):
    """Read through the held generation: which tag all of its files are of."""
    with got:
        single = name not in samples.FOLDERS
        tag = ((got.recipe and got.recipe.options) or {}).get("tag")
        first = got.path.name if single else samples.TAG
        if tag is None:
            with got.open(first) as file:
                tag = samples.tag_in(name, {first: file.read()})
        for path, data in samples.files(name, tag).items():
            if wanted is None or path in wanted:
                with got.open(path) as file:
                    assert file.read() == data, f"{name}: {path} is not of {tag}"
    return tag


def evict(world, _):
    name, tier = _any(world), world.random.choice(("local", "local", "vol", "far"))
    world.do("evict", name, lambda: world.store.evict(name, tier), tier=tier)


def verify(world, _):
    name = _any(world)

    def call():
        return {v.tier: [v.ok, v.state, *v.problems] for v in world.store.verify(name)}

    world.do("verify", name, call)


def compose(world, _):
    located = [world.store.locate(part)[0] for part in samples.SINGLES]
    if any(where.state != "whole" for where in located):
        return
    tag = samples.merged_tag([where.recipe.options["tag"] for where in located])
    recipe = {"preparer": "wild", "options": {"tag": tag}}

    def call():
        world.store.compose(samples.MERGED, list(samples.SINGLES), recipe)

    world.do("compose", samples.MERGED, call, tag=tag)


def collect(world, _):
    grace = 0.0 if world.random.random() < 1 / 2 else 3600.0
    world.do("gc", "", lambda: swept(world, grace))


def swept(world, grace=0.0):
    """Collect what is left over, and what the first time has left; which tiers could tell."""
    world.store.collect(grace=grace)
    done = world.store.collect(grace=grace)
    assert not any(d.failed for d in done), done
    return [d.tier for d in done]


def names(world, _):
    world.do("names", "", world.store.names)


def share(world, _):
    """Somebody puts a file of theirs into an artifact's folder: it is replaced in place then."""
    folder = world.root / "local" / world.random.choice(samples.FOLDERS)
    if folder.is_dir():
        (folder / "mine.py").write_text("print('mine')\n")


VERBS = {
    "create": (create, 6),
    "put": (put_files, 2),
    "fill": (fill, 3),
    "promote": (promote, 8),
    "restore": (restore, 5),
    "restore-some": (restore_some, 3),
    "evict": (evict, 7),
    "verify": (verify, 2),
    "compose": (compose, 3),
    "gc": (collect, 2),
    "names": (names, 1),
    "share": (share, 1),
}
