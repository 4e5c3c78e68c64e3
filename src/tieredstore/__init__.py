"""Named sets of files on a chain of places, verified, atomic and fast.

::

    import tieredstore

    store = tieredstore.open_store()
    got = store.restore("shakespeare", files=["train.bin", "val.bin", "meta.pkl"])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tieredstore.errors import (
    ArtifactChanged,
    ArtifactExists,
    ArtifactNotFound,
    BuildFailed,
    ConfigError,
    CorruptData,
    EvictRefused,
    HeadConflict,
    InvalidName,
    LeaseTimeout,
    ManifestError,
    NoSpace,
    NoSuchFile,
    PromoteFailed,
    RecipeConflict,
    RepairFailed,
    TieredStoreError,
    TierTimeout,
    TierUnavailable,
    UnsafePath,
    Unsupported,
)

if TYPE_CHECKING:
    from tieredstore.config import configured, local_tier, open_store
    from tieredstore.filesystem import TieredFileSystem
    from tieredstore.filesystem import local_path as path
    from tieredstore.filesystem import open_url as open  # noqa: A004 - as people type it
    from tieredstore.limits import Space
    from tieredstore.manifest.artifact import Recipe
    from tieredstore.manifest.names import Layout
    from tieredstore.reporter import Reporter, Wait
    from tieredstore.signals import Terminated, terminable
    from tieredstore.sources import SourceFile, SourceFiles, open_source
    from tieredstore.space.least_used import Evicted
    from tieredstore.space.pins import Pin
    from tieredstore.store import TieredStore
    from tieredstore.tiers.got import Got
    from tieredstore.tiers.queued import Queued
    from tieredstore.tiers.tier import Located, Tier
    from tieredstore.tiers.verifying import Repair, Verified
    from tieredstore.verbs.building import Build
    from tieredstore.verbs.filling import Filling
    from tieredstore.verbs.flushing import Flushed
    from tieredstore.verbs.measured import StageWriter
    from tieredstore.verbs.promoting import TierOutcome
    from tieredstore.verbs.recording import SharedRecord
    from tieredstore.verbs.unmanaged import Adoption

__version__ = "0.1.0"

__all__ = [
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

# Where each name comes from that is loaded when it is first asked for.
_LATER = {
    "Adoption": "verbs.unmanaged",
    "Build": "verbs.building",
    "Evicted": "space.least_used",
    "Filling": "verbs.filling",
    "Flushed": "verbs.flushing",
    "Got": "tiers.got",
    "Layout": "manifest.names",
    "Located": "tiers.tier",
    "Pin": "space.pins",
    "Queued": "tiers.queued",
    "Recipe": "manifest.artifact",
    "Repair": "tiers.verifying",
    "Reporter": "reporter",
    "SharedRecord": "verbs.recording",
    "SourceFile": "sources",
    "SourceFiles": "sources",
    "Space": "limits",
    "StageWriter": "verbs.measured",
    "Terminated": "signals",
    "Tier": "tiers.tier",
    "TierOutcome": "verbs.promoting",
    "TieredFileSystem": "filesystem",
    "TieredStore": "store",
    "Verified": "tiers.verifying",
    "Wait": "reporter",
    "configured": "config",
    "local_tier": "config",
    "open": "filesystem",
    "open_source": "sources",
    "open_store": "config",
    "path": "filesystem",
    "terminable": "signals",
}
_THERE = {"open": "open_url", "path": "local_path"}  # names that are others where they come from


def __getattr__(name: str) -> Any:
    """A name of `_LATER`: ``import tieredstore`` itself takes a few milliseconds."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_LATER[name]}"), _THERE.get(name, name))
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """What completion offers."""
    return sorted({*globals(), *_LATER})
