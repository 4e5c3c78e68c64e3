"""The names that users import, pinned: adding or dropping one is a decision."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tieredstore
import tieredstore.testing

PUBLIC = [
    "Adoption",
    "ArtifactChanged",
    "ArtifactExists",
    "ArtifactNotFound",
    "Build",
    "BuildFailed",
    "ConfigError",
    "CorruptData",
    "EvictRefused",
    "Evicted",
    "Filling",
    "Flushed",
    "Got",
    "HeadConflict",
    "InvalidName",
    "Layout",
    "LeaseTimeout",
    "Located",
    "ManifestError",
    "NoSpace",
    "NoSuchFile",
    "Pin",
    "PromoteFailed",
    "Queued",
    "Recipe",
    "RecipeConflict",
    "Repair",
    "RepairFailed",
    "Reporter",
    "SharedRecord",
    "SourceFile",
    "SourceFiles",
    "Space",
    "StageWriter",
    "Terminated",
    "Tier",
    "TierOutcome",
    "TierTimeout",
    "TierUnavailable",
    "TieredFileSystem",
    "TieredStore",
    "TieredStoreError",
    "UnsafePath",
    "Unsupported",
    "Verified",
    "Wait",
    "__version__",
    "configured",
    "local_tier",
    "open",
    "open_source",
    "open_store",
    "path",
    "terminable",
]


def test_the_public_names_are_these():
    assert sorted(tieredstore.__all__) == PUBLIC
    assert all(hasattr(tieredstore, name) for name in PUBLIC)


def test_every_name_is_there_and_where_it_is_said_to_come_from():
    for name in PUBLIC:
        found = getattr(tieredstore, name)
        home = tieredstore._LATER.get(name)
        assert home is None or found.__module__.startswith(f"tieredstore.{home}"), name
    assert set(dir(tieredstore)) >= set(PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tieredstore.nothing  # noqa: B018


def test_importing_it_loads_next_to_nothing():
    code = "import sys, tieredstore; print(sorted(m for m in sys.modules if 'tieredstore' in m))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "['tieredstore', 'tieredstore.errors']\n"


def test_errors_also_are_what_a_caller_would_catch():
    kinds = {
        "ArtifactNotFound": FileNotFoundError,
        "NoSuchFile": FileNotFoundError,
        "LeaseTimeout": TimeoutError,
        "BuildFailed": RuntimeError,
        "TierTimeout": TimeoutError,
        "TierUnavailable": OSError,
        "CorruptData": OSError,
        "PromoteFailed": OSError,
        "ArtifactExists": FileExistsError,
        "RecipeConflict": FileExistsError,
        "HeadConflict": FileExistsError,
        "EvictRefused": PermissionError,
        "UnsafePath": PermissionError,
        "InvalidName": ValueError,
        "ManifestError": ValueError,
        "ConfigError": ValueError,
        "Unsupported": NotImplementedError,
    }
    found = set()
    for name, builtin in kinds.items():
        error = getattr(tieredstore, name)
        assert issubclass(error, builtin)
        assert issubclass(error, tieredstore.TieredStoreError)
        found.add(error.kind)
    assert len(found) == len(kinds), "each kind is its own"


def test_only_the_contract_suite_needs_pytest():
    code = (
        "import sys, tieredstore, tieredstore.testing, tieredstore.testing.samples;"
        "heavy = ('pytest', '_pytest', 'fsspec', 'filelock', 'tarfile');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
    assert tieredstore.testing.BackendContract.__name__ == "BackendContract"
