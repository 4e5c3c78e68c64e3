"""Drop copies that a durable tier also has: what must hold before, and the dropping itself.

A copy goes only after the same generation was read and compared in another durable tier, and only
when nobody has pinned it or holds a lease on it. Which copies go by themselves is decided in
``least_used.py``.

Two who evict the last two copies would each rely on the other's. So whoever evicts first leaves a
note in the tier itself and in the one that is relied on, and then looks for others' there: of two
the one that wrote last finds the other's, whether or not leases work, and gives way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Final

from tieredstore.backend import Publishable
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import (
    ArtifactNotFound,
    EvictRefused,
    TieredStoreError,
    reason,
    writing_to,
)
from tieredstore.leases import lock_name
from tieredstore.manifest.artifact import digest128
from tieredstore.mounted import alive, small
from tieredstore.mounted.mount import Root
from tieredstore.space.pins import who_pins
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.queued import what_waits
from tieredstore.tiers.tier import UNREACHABLE, WHOLE, Located, Tier
from tieredstore.tiers.verifying import verify_copy
from tieredstore.workers import PUBLISH_DEADLINE, together, within

AREA: Final = "evict"
BEING_EVICTED: Final = "another process is evicting it"
_LEASES: Final = ("build", "restore", "populate", "promote")


def evict(chain: Chain, name: str, tier: Tier) -> int:
    """Drop one tier's copy, see `TieredStore.evict`."""
    located = tier.locate(name)
    if located.head is None:
        raise ArtifactNotFound(
            f"{name}: tier {tier.name!r} has none ({located.detail or located.state})"
        )
    if not tier.writable:
        raise EvictRefused(f"{name}: tier {tier.name!r} is read-only")
    with ExitStack() as held:
        others = _others(chain, tier, name)
        why = (
            who_pins(tier, name)
            or _queued(chain, tier, name)
            or _leased(held, chain, [tier, *_reached(others)], name)
        )
        why = why or held.enter_context(_noted(tier, name, others))
        if why:
            raise EvictRefused(f"{name}: not dropped from {tier.name!r}: {why}")
        _check_elsewhere(chain, located, name, others)
        assert isinstance(tier.backend, Publishable)
        remove = partial(tier.backend.remove, located.folder, located.head)
        with writing_to(tier.name):
            within(PUBLISH_DEADLINE, remove, f"tier {tier.name!r}")
    return located.head.size


def why_kept(chain: Chain, tier: Tier, name: str) -> str:
    """Why `evict` would refuse, as far as can be seen without changing or reading much.

    Whether the other copy's bytes are right is not looked at; empty where nothing else speaks
    against it.
    """
    located = tier.locate(name)
    if located.head is None:
        return located.detail or located.state
    if not tier.writable:
        return "the tier is read-only"
    why = who_pins(tier, name) or _queued(chain, tier, name) or _leased_now(chain, tier, name)
    if why:
        return why
    said = []
    for there in _others(chain, tier, name):
        why = _not_the_same(located, there)
        if not why:
            return ""
        said.append(f"{there.tier.name}: {why}")
    return f"no copy in another durable tier ({'; '.join(said) or 'there is none'})"


def _queued(chain: Chain, tier: Tier, name: str) -> str:
    """What waits to be promoted is read in the first tier."""
    return what_waits(tier, name) if tier is chain.tiers[0] else ""


def _leased_now(chain: Chain, tier: Tier, name: str) -> str:
    """Which lease on an artifact somebody has in a mounted tier; no lease's file is made."""
    if not isinstance(tier.backend, LocalBackend):
        return ""
    for verb in _LEASES:
        path = tier.backend.mount.area_path("lease", lock_name(f"{name}.{verb}"))
        with ExitStack() as held:
            if os.path.lexists(path) and not chain.only_one(held, tier, name, verb):
                return _under_way(tier, verb)
    return ""


def _under_way(tier: Tier, verb: str) -> str:
    return f"leased in {tier.name!r}: a {verb} is under way"


def _others(chain: Chain, tier: Tier, name: str) -> list[Located]:
    others = [t for t in chain.tiers if t is not tier and t.durable]
    return together([partial(other.locate, name) for other in others])


def _reached(others: Sequence[Located]) -> list[Tier]:
    """Tiers that could be promoting it just now; one that does not answer is not asked again."""
    return [where.tier for where in others if where.state != UNREACHABLE and where.tier.writable]


def _leased(held: ExitStack, chain: Chain, tiers: Sequence[Tier], name: str) -> str:
    """Take all leases on an artifact, without a wait; which of them somebody else has."""
    for tier in tiers:
        for verb in _LEASES if tier is tiers[0] else _LEASES[-1:]:
            if not chain.only_one(held, tier, name, verb):
                return _under_way(tier, verb)
    return ""


@contextmanager
def _noted(tier: Tier, name: str, others: Sequence[Located]) -> Iterator[str]:
    """Leave a note wherever a copy is, for the time of the block; why somebody else's forbids it.

    Only in mounted tiers: those are what others can rely on and evict from without a lease.
    """
    key = f"{digest128(name.encode())}."
    file = alive.temporary(key)
    tiers = [tier, *(there.tier for there in others if there.head is not None)]
    mounts = [each.backend.mount for each in tiers if isinstance(each.backend, LocalBackend)]

    def look() -> str:
        for mount in mounts:
            with suppress(OSError):  # full, or not ours to write: the others tell as well
                small.put(mount, AREA, file, tier.name.encode())
        return next((found for mount in mounts if (found := _noticed(mount, key, file))), "")

    def remove() -> None:
        for mount in mounts:
            with suppress(OSError, TieredStoreError):
                small.remove(mount, AREA, file)

    def forget() -> None:
        with suppress(TieredStoreError):
            within(tier.deadline, remove, f"tier {tier.name!r}")

    try:
        yield within(tier.deadline, look, f"tier {tier.name!r}")
    finally:
        try:
            forget()
        except BaseException:  # who is interrupted right here takes the notes away all the same
            forget()
            raise


def _noticed(mount: Root, key: str, own: str) -> str:
    try:
        there = list(small.names(mount, AREA))
    except OSError as error:
        return f"whether others evict it cannot be seen in {mount.path} ({reason(error)})"
    for found in there:
        if found.startswith(key) and found != own and alive.lives(found) is not False:
            return f"{BEING_EVICTED} ({mount.area_path(AREA, found)})"
    return ""


def _check_elsewhere(chain: Chain, located: Located, name: str, others: Sequence[Located]) -> None:
    """Read a copy of the same generation in another durable tier, and compare all of it.

    What an earlier verification has found is not relied on: disks and servers lose bytes later.
    """
    said = []
    for there in others:
        why = _not_the_same(located, there)
        if not why:
            verified = verify_copy(there, name, chain.reporter)
            if verified.ok:
                return
            why = "; ".join(verified.problems)
        said.append(f"{there.tier.name}: {why}")
    why = "; ".join(said) or "this store has no other durable tier"
    raise EvictRefused(
        f"{name}: not dropped from {located.tier.name!r}, no verified copy elsewhere ({why})"
    )


def _not_the_same(located: Located, there: Located) -> str:
    """Why another tier's copy does not stand for this one; empty where it may, when verified."""
    assert located.head is not None
    if there.head is None or there.head.generation != located.head.generation:
        return there.detail or "not this generation"
    return "" if there.state == WHOLE else "only some of its files"
