"""Drop copies that a durable tier also has: what must hold before, and the dropping itself."""

from __future__ import annotations

from functools import partial

from tieredstore.backend import Publishable
from tieredstore.chain import Chain
from tieredstore.errors import ArtifactNotFound, EvictRefused, writing_to
from tieredstore.tier import WHOLE, Tier
from tieredstore.verifying import verify_copy
from tieredstore.workers import PUBLISH_DEADLINE, together, within


def evict(chain: Chain, name: str, tier: Tier) -> int:
    """Drop one tier's copy, see `TieredStore.evict`."""
    located = tier.locate(name)
    if located.head is None:
        raise ArtifactNotFound(
            f"{name}: tier {tier.name!r} has none ({located.detail or located.state})"
        )
    if not tier.writable:
        raise EvictRefused(f"{name}: tier {tier.name!r} is read-only")
    said = []
    others = [t for t in chain.tiers if t is not tier and t.durable]
    for there in together([partial(other.locate, name) for other in others]):
        other = there.tier
        if there.head is None or there.head.generation != located.head.generation:
            said.append(f"{other.name}: {there.detail or 'not this generation'}")
            continue
        verified = verify_copy(there, name, chain.reporter)
        if verified.ok and there.state == WHOLE:
            assert isinstance(tier.backend, Publishable)
            remove = partial(tier.backend.remove, located.folder, located.head)
            with writing_to(tier.name):
                within(PUBLISH_DEADLINE, remove, f"tier {tier.name!r}")
            return located.head.size
        said.append(f"{other.name}: {'; '.join(verified.problems) or 'only some of its files'}")
    why = "; ".join(said) or "this store has no other durable tier"
    raise EvictRefused(
        f"{name}: not dropped from {tier.name!r}, no verified copy elsewhere ({why})"
    )
