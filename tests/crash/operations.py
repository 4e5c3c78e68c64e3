"""What is done to a store before, while and after it is killed. One function an operation.

Each gets a fresh `World` in a fork of its own. Contents follow from a tag, so that a checker can
tell the old generation from the new one without knowing how either was stored.
"""

from __future__ import annotations

import hashlib
import os

from tieredstore.backends.local import LocalBackend
from tieredstore.errors import ArtifactNotFound
from tieredstore.moving.transfer import Transfer
from tieredstore.store import TieredStore
from tieredstore.testing.faults import FaultyKeyed
from tieredstore.tiers.tier import Tier

NAME = "runs/set"
SINGLE = "one.bin"
SIZES = {"a.bin": 3 * (1 << 20) + 1234, "b.txt": 11, "sub/c.bin": 70_000}
ONLY_OLD = "only-old.bin"


def content(tag, file, size):
    seed = hashlib.sha256(f"{tag}/{file}".encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


def files(tag):
    found = {f: content(tag, f, size) for f, size in SIZES.items()}
    if tag == "old":
        found[ONLY_OLD] = content(tag, ONLY_OLD, 999)
    return found


class World:
    """A store of two or three tiers below one folder, and how many bytes were moved in it."""

    def __init__(self, order, points):
        self.root = root = order["root"]
        self.moved = 0
        s3, inner = order.get("s3"), order.get("inner", "")
        tiers = [Tier("local", LocalBackend(f"{root}/local/{inner}"))]
        if s3 is None:
            tiers.append(Tier("vol", LocalBackend(f"{root}/vol/{inner}"), durable=True))
        else:
            from tieredstore.backends.fsspec import FsspecBackend

            keyed = FaultyKeyed(FsspecBackend(s3["url"], s3["options"]), points)
            tiers.append(Tier("s3", keyed, durable=True))
        self.store = TieredStore(tiers)
        self._count()

    def _count(self):
        world, real = self, Transfer.move

        def move(transfer, wanted):
            try:
                return real(transfer, wanted)
            finally:
                if transfer._staging is not None:
                    world.moved += transfer.moved.size

        Transfer.move = move


def _create(world, tag):
    with world.store.create(NAME, recipe={"preparer": "test", "tag": tag}) as stage:
        for file, data in files(tag).items():
            path = stage.path / file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)


def create_old(world):
    _create(world, "old")


def create_new(world):
    _create(world, "new")


def create_and_promote(world):
    create_new(world)
    promote(world)


def create_old_beside_foreign(world):
    _create(world, "old")
    foreign(world)


def foreign(world):
    with open(f"{world.root}/local/{NAME}/prepare.py", "w", encoding="ascii") as file:
        file.write("print('mine')\n")


def create_file_old(world):
    with world.store.create_file(SINGLE, recipe={"tag": "old"}) as stage:
        stage.file.write_bytes(content("old", SINGLE, 5000))


def create_file_new(world):
    with world.store.create_file(SINGLE, recipe={"tag": "new"}) as stage:
        stage.file.write_bytes(content("new", SINGLE, 5000))


def promote(world):
    return [o.action for o in world.store.promote(NAME, replace=True)]


def old_everywhere(world):
    create_old(world)
    promote(world)


def old_below_new_here(world):
    old_everywhere(world)
    create_new(world)


def new_below(world):
    create_new(world)
    promote(world)
    world.store.evict(NAME)


def new_below_some_here(world):
    new_below(world)
    world.store.restore(NAME, files=["b.txt"])


def new_everywhere(world):
    create_new(world)
    promote(world)


def new_everywhere_beside_foreign(world):
    create_new(world)
    promote(world)
    foreign(world)


def restore(world):
    return read_all(world.store.restore(NAME))


def restore_some(world):
    got = world.store.restore(NAME, files=["a.bin", "sub/c.bin"])
    return read_all(got, ["a.bin", "sub/c.bin"])


def fill(world):
    filling = world.store.fill(NAME, list(SIZES), recipe={"preparer": "test", "tag": "new"})
    for file, data in files("new").items():
        path = filling.temporary(file)
        path.write_bytes(data)
        filling.put(file, path)


def evict(world):
    try:
        world.store.evict(NAME)
    except ArtifactNotFound:
        return "gone already"
    return "evicted"


def evict_lower(world):
    """The lower copy of a store whose first tier is durable as well."""
    lower = world.store.tiers[1]
    located = lower.locate(NAME)
    if located.head is None:
        return "gone already"
    lower.backend.remove(located.folder, located.head)
    return "evicted"


def read(world):
    """What a reader of the store sees in each tier: the tag, or why there is nothing."""
    seen = {}
    for tier in world.store.tiers:
        for name in (NAME, SINGLE):
            located = tier.locate(name)
            if located.state != "absent":
                seen[f"{tier.name}:{name}"] = [located.state, _tag(located)]
    return seen


def _tag(located):
    return located.recipe.options["tag"] if located.recipe else None


def read_all(got, names=None):
    """Read through the held generation; the tag that all files agree on."""
    tags = set()
    for tag in ("old", "new"):
        wanted = {f: d for f, d in files(tag).items() if names is None or f in names}
        try:
            if all(_read(got, f) == d for f, d in wanted.items()):
                tags.add(tag)
        except FileNotFoundError:
            continue
    generation = got.generation
    got.close()
    if len(tags) != 1:
        raise AssertionError(f"{generation} reads as {tags or 'a mixture'}")
    return tags.pop()


def _read(got, file):
    with got.open(file) as opened:
        return opened.read()


def nothing(world):
    os.makedirs(f"{world.root}/local", exist_ok=True)


def compose(world):
    world.store.compose("joined.bin", [(NAME, "a.bin"), (NAME, "b.txt")], recipe={"tag": "new"})


def collect(world):
    """A collection without any grace, of a store in which nothing else runs; what it left."""
    found = world.store.collect(grace=0.0)
    return [[tier.tier, left.what, left.path] for tier in found for left in tier.litter]
