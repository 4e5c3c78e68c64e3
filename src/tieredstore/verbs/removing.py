"""Remove an artifact from every tier: for good, and only because somebody said so."""

from __future__ import annotations

from functools import partial

from tieredstore.backend import Publishable
from tieredstore.errors import (
    ArtifactNotFound,
    TieredStoreError,
    TierUnavailable,
    Unsupported,
    reason,
)
from tieredstore.tiers import queued
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import UNREACHABLE, Located, Tier
from tieredstore.workers import PUBLISH_DEADLINE, within


def remove(chain: Chain, name: str, tiers: list[Tier] | None) -> list[str]:
    """Remove every copy, see `TieredStore.remove`."""
    chosen = {t.name for t in tiers or chain.tiers}
    located = [w for w in chain.locate(name) if w.tier.name in chosen]
    closed = [w.tier.name for w in located if w.head is not None and not w.tier.writable]
    if closed:
        raise Unsupported(
            f"{name}: not removed: {', '.join(closed)} cannot be written and has it; "
            f"name the tiers to remove it from"
        )
    gone, left = [], []
    for where in reversed(located):  # the first tier last: what is left over is still a hit
        try:
            if where.state == UNREACHABLE:
                left.append(f"{where.tier.name}: {where.detail}")
            elif where.head is not None:
                _remove(where)
                gone.append(where.tier.name)
        except (OSError, TieredStoreError) as error:
            left.append(f"{where.tier.name}: {reason(error)}")
    if left:
        raise TierUnavailable(
            f"{name}: removed from {', '.join(gone) or 'no tier'}, not from all "
            f"({'; '.join(left)}); do it again when those can be reached"
        )
    if chain.tiers[0].name in gone:
        queued.remove(chain.tiers[0], queued.entries(chain.tiers[0], name))
    if not gone:
        raise ArtifactNotFound(f"{name}: in no tier that it was to be removed from")
    return gone[::-1]


def _remove(where: Located) -> None:
    assert isinstance(where.tier.backend, Publishable)
    assert where.head is not None
    call = partial(where.tier.backend.remove, where.folder, where.head)
    within(PUBLISH_DEADLINE, call, f"tier {where.tier.name!r}")
