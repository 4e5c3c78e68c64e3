"""Filesystems over stores of one tier and of two, in memory-backed folders where there are some."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tieredstore.filesystem import TieredFileSystem

_MEMORY = Path("/dev/shm")
_ALL = os.environ.get("TIEREDSTORE_TEST_FS_SUITE") == "all"
_EACH = {"TwoTiers": 6, "FarOnly": 3}  # so many tests of fsspec's suite by default


def pytest_collection_modifyitems(config, items):
    """Leave out most of fsspec's suite where it costs most, unless all of it was asked for."""
    seen = dict.fromkeys(_EACH, 0)
    left_out = []
    for item in [] if _ALL else items:
        for ending, each in _EACH.items():
            if item.cls is not None and item.cls.__name__.endswith(ending):
                seen[ending] += 1
                if seen[ending] % each and not item.name.endswith("exclusive"):
                    left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture
def quick_path(tmp_path):
    """A folder on a file system where a flush costs nothing, else on the usual one."""
    if not os.access(_MEMORY, os.W_OK):
        yield tmp_path
        return
    made = Path(tempfile.mkdtemp(prefix="tieredstore-", dir=_MEMORY))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def config(quick_path):
    """A first tier, and a durable one on another folder."""
    return {
        "tier": [
            {"name": "near", "backend": "local", "path": str(quick_path / "near")},
            {"name": "far", "backend": "local", "path": str(quick_path / "far"), "durable": True},
        ]
    }


@pytest.fixture
def make_fs(config):
    """Make filesystems of the two tiers with options."""

    def make(**options):
        return TieredFileSystem(config, skip_instance_cache=True, **options)

    return make


@pytest.fixture
def fs(make_fs):
    """A filesystem of the two tiers."""
    return make_fs()


@pytest.fixture
def put_far(fs):
    """Put files into an artifact that is then only on the far tier."""

    def put(name, files):
        with fs.store.create(name) as stage:
            for file, data in files.items():
                path = stage.path / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        fs.store.promote(name)
        fs.store.evict(name)

    return put
