"""What the tests of packed copies share: places, stores on them, an artifact of many files."""

from __future__ import annotations

import importlib.util
import itertools
import random
import sys
import threading
import uuid
from pathlib import Path

import fsspec
import pytest

from tieredstore import Reporter, Tier, TieredStore
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.backends.hf import HubBackend
from tieredstore.backends.local import LocalBackend
from tieredstore.backends.s3 import S3Backend
from tieredstore.manifest import shards as shards_module
from tieredstore.manifest.shards import shard_name
from tieredstore.moving import packing as packing_module

_SERVERS = Path(__file__).parents[2] / "servers"
_numbers = itertools.count()


def _load(name):
    spec = importlib.util.spec_from_file_location(
        f"tieredstore_tests_{name}", _SERVERS / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _random_files(number, size, seed):
    chance = random.Random(seed)
    return {f"d{n % 7}/{n:04d}": chance.randbytes(chance.randrange(size)) for n in range(number)}


class Told(Reporter):
    """Keeps what it is told."""

    def __init__(self):
        self.lock = threading.Lock()
        self.bytes, self.whole, self.damage = 0, [], []

    def advanced(self, size):
        with self.lock:
            self.bytes += size

    def copied(self, file, source, target):
        with self.lock:
            self.whole.append(file)

    def corrupt(self, tier, what):
        self.damage.append((tier, what))


class Kit:
    """Files, and the few steps that every test takes."""

    SHARD = 2 << 20
    LARGE = 1 << 20
    FILES = _random_files(300, 20_000, 1) | {
        "large.bin": random.Random(2).randbytes(LARGE + 999),
        "empty": b"",
        "ünï": b"odd",
    }
    SIZE = sum(map(len, FILES.values()))
    Told = Told

    @staticmethod
    def memory():
        return FsspecBackend(f"memory://{uuid.uuid4().hex}")

    @staticmethod
    def far(backend, **policy):
        return Tier("far", backend, **{"durable": True, "pack": "auto", **policy})

    @staticmethod
    def store_on(folder, *tiers, reporter=None):
        return TieredStore([Tier("first", LocalBackend(str(folder))), *tiers], reporter)

    @staticmethod
    def create(store, files, recipe=None):
        with store.create("set", recipe=recipe or {"preparer": "me"}) as stage:
            for path, data in files.items():
                (stage.path / path).parent.mkdir(parents=True, exist_ok=True)
                (stage.path / path).write_bytes(data)

    @staticmethod
    def contents(folder):
        return {
            str(p.relative_to(folder)): p.read_bytes()
            for p in Path(folder).rglob("*")
            if p.is_file() and not p.name.startswith(".tieredstore")
        }

    @staticmethod
    def restored(folder, *tiers, files=None):
        """What a fresh store restores."""
        return Kit.contents(Kit.store_on(folder, *tiers).restore("set", files).path)

    @staticmethod
    def keys(backend):
        """What lies in a place, without the folder of the generation."""
        found = backend.read_head("set")
        below = f"set/{found.head.data}".rstrip("/")
        return {f.path.removeprefix(f"{below}/"): f.size for f in backend.list(below)}

    @staticmethod
    def flip(backend, file, at=100):
        """Another byte in a file of the packed copy in ``memory://``."""
        found = backend.read_head("set")
        records = backend.read_records("set", found.head)
        source = Kit.far(backend).locate("set").copy(records).source()
        place = source.index.places[file]
        key = f"{backend.place}/set/{found.head.data}/{shard_name(place.shard)}"
        fs = fsspec.filesystem("memory")
        data = bytearray(fs.cat_file(key))
        data[place.offset + at] ^= 1
        fs.pipe_file(key, bytes(data))


@pytest.fixture
def kit(monkeypatch):
    """A few hundred files are many now, and shards are small."""
    monkeypatch.setattr(shards_module, "MANY", 100)
    monkeypatch.setattr(shards_module, "LARGE", Kit.LARGE)
    monkeypatch.setattr(packing_module, "SHARD", Kit.SHARD)
    return Kit


@pytest.fixture
def published(kit, tmp_path):
    """A place with the packed artifact."""
    backend = kit.memory()
    one = kit.store_on(tmp_path / "published", kit.far(backend))
    kit.create(one, kit.FILES)
    one.promote("set")
    return backend


@pytest.fixture
def s3(moto, monkeypatch):
    """Makes backends of a fresh bucket."""
    for key, value in moto.environment.items():
        monkeypatch.setenv(key, value)
    bucket = moto.make_bucket(f"packed-{next(_numbers)}")
    return lambda: S3Backend(f"{bucket}/some", moto.url)


@pytest.fixture
def hub(monkeypatch):
    """Makes backends of a repository on a fresh server of the Hub's API."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra 'hf'")
    server = _load("hub").Hub()
    server.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", server.token)
    yield lambda: HubBackend("hf://datasets/me/packed", timeout=10, retry_for=10)
    server.stop()


@pytest.fixture
def web(tmp_path, published):
    """A web server of the place with the packed artifact."""
    fs = fsspec.filesystem("memory")
    for path in fs.find(published.place):
        target = tmp_path / "served" / "set" / path.partition("/set/")[2]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(fs.cat_file(path))
    server = _load("web").Web(tmp_path / "served")
    yield server
    server.stop()


@pytest.fixture(params=["memory", "s3", "hub"])
def place(request, kit):
    """Makes backends of one place."""
    if request.param == "memory":
        one = kit.memory()
        return lambda: FsspecBackend(one.place)
    return request.getfixturevalue(request.param)
