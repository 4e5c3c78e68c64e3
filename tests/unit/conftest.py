"""A store on three tiers in a temporary folder, and a reporter that keeps what it is told."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path

import fsspec
import pytest

import tieredstore
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.backends.local import LocalBackend
from tieredstore.backends.runpod import RunPodBackend
from tieredstore.manifest.names import Layout
from tieredstore.tiers.tier import Tier

FILES = {"train.bin": bytes(range(256)) * 5000, "sub/val.bin": b"val", "empty": b""}


class Told(tieredstore.Reporter):
    """Keeps every call but the progress, as tuples that begin with the method's name."""

    def __init__(self):
        self.calls = []
        self._lock = threading.Lock()

    def __getattribute__(self, name):
        if name.startswith("_") or name in {"calls", "of", "advanced"}:
            return object.__getattribute__(self, name)

        def keep(*args):
            with self._lock:
                self.calls.append((name, *args))

        return keep

    def of(self, method):
        return [call[1:] for call in self.calls if call[0] == method]


@dataclass
class World:
    """Tiers ``first``, ``volume`` and ``remote``, and stores on them."""

    root: Path
    remote: str
    told: Told = field(default_factory=Told)

    def tier(self, name, **policy):
        backends = {
            "first": lambda: LocalBackend(str(self.root / "first")),
            "volume": lambda: RunPodBackend(str(self.root / "volume")),
            "second": lambda: LocalBackend(str(self.root / "second")),
            "remote": lambda: FsspecBackend(self.remote),
        }
        usual = Tier(name, backends[name](), durable=name != "first", adopt=name != "remote")
        return replace(usual, **policy)

    def store(self, *tiers):
        chosen = tiers or ("first", "volume", "remote")
        found = [self.tier(t) if isinstance(t, str) else t for t in chosen]
        return tieredstore.TieredStore(found, self.told)

    def path(self, name):
        return self.root / name

    def nested(self, **policy):
        layout = Layout("{name}/{name}", ("{name}",))
        return self.tier("first", layout=layout, **policy)


@pytest.fixture
def world(tmp_path):
    """A fresh set of places."""
    (tmp_path / "volume").mkdir()
    remote = f"memory://{uuid.uuid4().hex}"
    yield World(tmp_path, remote)
    memory = fsspec.filesystem("memory")
    if memory.exists(remote):
        memory.rm(remote, recursive=True)


@pytest.fixture
def files():
    """The bytes of a small artifact."""
    return dict(FILES)


@pytest.fixture
def create():
    """Create an artifact from bytes."""

    def made(store, name, contents, recipe=None):
        with store.create(name, recipe=recipe) as stage:
            for path, data in contents.items():
                (stage.path / path).parent.mkdir(parents=True, exist_ok=True)
                (stage.path / path).write_bytes(data)

    return made


@pytest.fixture
def contents():
    """Every file of an artifact's folder, the store's own left out."""

    def found(folder):
        return {
            str(p.relative_to(folder)): p.read_bytes()
            for p in Path(folder).rglob("*")
            if p.is_file() and not p.name.startswith(".tieredstore")
        }

    return found


@pytest.fixture
def flip():
    """Flip one bit of a file, leaving its times as they are."""

    def flipped(path, at=0):
        data = bytearray(Path(path).read_bytes())
        data[at] ^= 1
        Path(path).write_bytes(data)

    return flipped
