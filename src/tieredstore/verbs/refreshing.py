"""Use copies in places that are swept, so that they stay; see ``purging.py``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tieredstore.errors import ArtifactNotFound, TieredStoreError, Unsupported, reason
from tieredstore.mounted.purging import Purged
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import Located, Tier
from tieredstore.verbs.status import Survey
from tieredstore.workers import PUBLISH_DEADLINE, together, within


@dataclass(frozen=True, slots=True)
class RefreshedCopy:
    """What became of one copy.

    Attributes
    ----------
    name, tier : str
        Of what, and where.
    expires : float
        When its first file may be deleted, seconds since 1970.
    files : int
        How many files it has now, the manifest's included.
    stale : int
        How many of them count as unused still.
    failed : str
        Why it could not be refreshed.
    """

    name: str
    tier: str
    expires: float = 0.0
    files: int = 0
    stale: int = 0
    failed: str = ""


def refresh(chain: Chain, names: Sequence[str], expiring: float | None) -> list[RefreshedCopy]:
    """See `TieredStore.refresh`."""
    tiers = [tier for tier in chain.tiers if _is_swept(tier)]
    if not tiers:
        raise Unsupported("no tier of this store sets purge_days: nothing is deleted there")
    survey = Survey(tiers, chain.reporter)
    found = [
        (name, where)
        for name in (names or survey.names)
        for where in survey.locate(name)
        if where.head is not None
    ]
    missing = set(names) - {name for name, _ in found}
    if missing:
        places = ", ".join(tier.name for tier in tiers)
        raise ArtifactNotFound(f"{min(missing)}: not in {places}")
    if expiring is not None:
        soon = time.time() + expiring
        found = [(n, w) for n, w in found if w.expires is not None and w.expires <= soon]
    return together([partial(_refreshed, name, where) for name, where in found])


def _is_swept(tier: Tier) -> bool:
    return isinstance(tier.backend, Purged) and tier.backend.purge_days > 0 and not tier.read_only


def _refreshed(name: str, where: Located) -> RefreshedCopy:
    tier, head = where.tier, where.head
    assert isinstance(tier.backend, Purged)
    assert head is not None
    try:
        use = partial(tier.backend.refresh, where.folder, head)
        done = within(PUBLISH_DEADLINE, use, f"tier {tier.name!r}")
    except (OSError, TieredStoreError) as error:
        return RefreshedCopy(name, tier.name, failed=reason(error))
    return RefreshedCopy(name, tier.name, done.expires, done.files, done.stale)
