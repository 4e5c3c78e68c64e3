"""Named sets of files on a chain of places, verified, atomic and fast.

::

    import tieredstore

    store = tieredstore.open_store()
    got = store.restore("shakespeare", files=["train.bin", "val.bin", "meta.pkl"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tieredstore.config import configured, local_tier, open_store
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

if TYPE_CHECKING:
    from tieredstore.filesystem import TieredFileSystem
    from tieredstore.filesystem import local_path as path
    from tieredstore.filesystem import open_url as open  # noqa: A004 - as people type it

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

_FILESYSTEM = {"TieredFileSystem": "TieredFileSystem", "open": "open_url", "path": "local_path"}


def __getattr__(name: str) -> Any:
    """What needs fsspec is loaded when it is first asked for."""
    if name not in _FILESYSTEM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tieredstore import filesystem

    return getattr(filesystem, _FILESYSTEM[name])
