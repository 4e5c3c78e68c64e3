"""One bit flipped at random in data or manifest of a copy: found, healed from another, or refused.

Of each place the flips are in any of its bytes that count: files, records, heads, shards and their
index (the headers of a shard and the zeros between its files are there for ``tar`` alone). After
each, `verify` says which copy is damaged; a restore that has another copy gives the right bytes;
one that has no other raises; a stream gives the right bytes or raises. ``TIEREDSTORE_TEST_ONE_BIT``
says how many in all (CI: 150).
"""

from __future__ import annotations

import os
import random
import shutil
import struct

import pytest

from tieredstore import Tier, TieredStore, local_tier
from tieredstore.backends.s3 import S3Backend
from tieredstore.errors import TieredStoreError
from tieredstore.manifest import shards

pytestmark = pytest.mark.timeout(900)
FLIPS = int(os.environ.get("TIEREDSTORE_TEST_ONE_BIT", "150"))
SHARE = {"first": 0.3, "mounted": 0.5, "keyed": 0.1, "packed": 0.1}
NAME = "runs/set"
OWN = ".tieredstore"
FILES = {
    f"{folder}{size}.bin": random.Random(size).randbytes(size)
    for folder, size in (("", 0), ("", 1), ("a/", 999), ("a/b/", 70_001), ("", (1 << 20) + 77))
}


class Mounted:
    """A folder below which a copy lies; what lay there first can be brought back."""

    def __init__(self, root):
        self.root = root

    def tier(self, name, *, first):
        tier = local_tier(self.root)
        return tier if first else Tier(name, tier.backend, durable=True)

    def files(self):
        folder = self.root / NAME
        return {
            str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()
        }

    def keep(self):
        self.kept = f"{self.root}.kept"
        shutil.copytree(self.root, self.kept)

    def put_back(self):
        shutil.rmtree(self.root)
        shutil.copytree(self.kept, self.root)

    def write(self, file, data):
        (self.root / NAME / file).write_bytes(data)


class Keyed:
    """A prefix of a bucket, the same way."""

    def __init__(self, backend, pack):
        self.backend, self.pack = backend, pack

    def tier(self, name, *, first):
        assert not first
        return Tier(name, self.backend, durable=True, pack=self.pack)

    def keys(self):
        return {f.path: self.backend.read(f.path, 1 << 30) for f in self.backend.list("")}

    def files(self):
        return {
            key.removeprefix(f"{NAME}/"): data
            for key, data in self.keys().items()
            if key.startswith(f"{NAME}/")
        }

    def keep(self):
        self.kept = self.keys()

    def put_back(self):
        now = {f.path: f.tag for f in self.backend.list("")}
        for key in now.keys() - self.kept.keys():
            self.backend.delete(key)
        for key, data in self.kept.items():
            if key not in now or self.backend.read(key, 1 << 30) != data:
                self.backend.objects.put(key, data)

    def write(self, file, data):
        self.backend.objects.put(f"{NAME}/{file}", data)


@pytest.fixture(params=list(SHARE))
def place(request, tmp_path):
    """Where bits flip; elsewhere there is another copy."""
    if request.param in {"first", "mounted"}:
        return request.param, Mounted(tmp_path / "flipped")
    server = request.getfixturevalue("moto")
    patch = request.getfixturevalue("monkeypatch")
    for key, value in server.environment.items():
        patch.setenv(key, value)
    patch.setattr(shards, "MANY", 3)
    bucket = server.make_bucket(f"flips-{request.param}")
    pack = "auto" if request.param == "packed" else "never"
    return request.param, Keyed(S3Backend(f"{bucket}/p", server.url), pack)


@pytest.fixture
def stores(place, tmp_path):
    """Stores with and without the other copy; the artifact is in the first tier of neither."""
    kind, flipped = place
    other = Mounted(tmp_path / "other").tier("other", first=False)
    first = local_tier(tmp_path / "first") if kind != "first" else flipped.tier("", first=True)
    below = [other] if kind == "first" else [flipped.tier("flipped", first=False), other]
    store = TieredStore([first, *below])
    with store.create(NAME, recipe={"preparer": "test"}) as stage:
        for file, data in FILES.items():
            (stage.path / file).parent.mkdir(parents=True, exist_ok=True)
            (stage.path / file).write_bytes(data)
    store.promote(NAME)
    if kind != "first":
        store.evict(NAME)
    flipped.keep()
    return store, TieredStore([first, *below[:-1]])


def counted(kind, files, file):
    """The bytes of a file that count: of a shard, those of the artifact's files."""
    if not file.endswith(".tar"):
        return [(0, len(files[file]))]
    index = next(data for name, data in files.items() if name.endswith(f"{OWN}.shards"))
    first, rest = index.split(b"\n", 1)
    count = int(first.rpartition(b" ")[2].rstrip(b"}"))
    names = sorted(FILES, key=str.encode)
    places = (struct.unpack_from("<IQ", rest, 8 * count + 12 * n)[1] for n in range(len(names)))
    return [(at, at + len(FILES[n])) for at, n in zip(places, names, strict=True) if FILES[n]]


def flip(place, chance):
    """Flip one bit; what and where, for the message."""
    kind, flipped = place
    files = {f: data for f, data in flipped.files().items() if data}
    file = chance.choice(sorted(files))
    begin, end = chance.choice(counted(kind, files, file))
    at, bit = chance.randrange(begin, end), chance.randrange(8)
    data = bytearray(files[file])
    data[at] ^= 1 << bit
    flipped.write(file, bytes(data))
    return f"{kind}: bit {bit} of byte {at} of {file}"


def read(got):
    found = {}
    with got:
        for file in FILES:
            with got.open(file) as opened:
                found[file] = opened.read()
    return found


def streamed(store, file):
    try:
        with store.open_stream(NAME, file) as opened:
            return opened.read()
    except (TieredStoreError, OSError):
        return None


def test_a_flipped_bit_is_found_and_healed_or_refused(place, stores, tmp_path):
    kind, flipped = place
    store, alone = stores
    chance = random.Random(kind)
    for _ in range(round(FLIPS * SHARE[kind])):
        what = flip(place, chance)
        found = {v.tier: v for v in store.verify(NAME)}
        damaged = store.tiers[0].name if kind == "first" else "flipped"
        assert [t for t, v in found.items() if not v.ok] == [damaged], f"{what}: {found}"
        assert found[damaged].problems, what
        file = chance.choice(sorted(FILES))
        assert streamed(store, file) == FILES[file], what
        assert streamed(alone, file) in {None, FILES[file]}, what
        check = first_tier if kind == "first" else lower_tier
        check(store, alone, tmp_path, what)
        flipped.put_back()


def lower_tier(store, alone, tmp_path, what):
    """Without the other copy one clear error, and nothing is published; with it the bytes."""
    with pytest.raises((TieredStoreError, OSError), match=r"flipped.*(differ|match|head|records)"):
        read(alone.restore(NAME))
    assert alone.locate(NAME)[0].state == "absent", what
    assert read(store.restore(NAME)) == FILES, what
    shutil.rmtree(tmp_path / "first")


def first_tier(store, alone, tmp_path, what):
    """A hit compares sizes alone, so that it costs nothing: what verify found is repaired."""
    store.repair([NAME])
    assert all(v.ok for v in store.verify(NAME)), what
    assert read(store.restore(NAME)) == FILES, what
