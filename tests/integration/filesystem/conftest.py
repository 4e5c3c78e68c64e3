"""Filesystems over stores of one tier and of two, in memory-backed folders where there are some."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tieredstore.filesystem import TieredFileSystem

_MEMORY = Path("/dev/shm")


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
