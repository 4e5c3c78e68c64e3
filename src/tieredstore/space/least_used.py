"""Which copies in a mounted tier go first: what was used least recently, until enough is free."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from tieredstore.backends.local import LocalBackend
from tieredstore.errors import InvalidName, TieredStoreError, Unsupported, reason
from tieredstore.manifest.names import check_name
from tieredstore.space import usage
from tieredstore.space.evicting import evict, why_kept
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import Tier
from tieredstore.workers import PUBLISH_DEADLINE, within

ENOUGH = "enough is free"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An artifact in a tier, and whether its copy there may be dropped.

    Attributes
    ----------
    name : str
        The artifact.
    generation : str
        Which publication of it.
    size : int
        Bytes of its files.
    used : float
        When it was last used, seconds since 1970.
    kept : str
        Why the copy stays; empty where it may go, or is gone.
    """

    name: str
    generation: str
    size: int
    used: float
    kept: str = ""


@dataclass(frozen=True, slots=True)
class Evicted:
    """What was dropped from a tier by least recent use, or would be.

    Attributes
    ----------
    tier : str
        The tier.
    gone : tuple of Candidate
        What was dropped, or would be, in that order.
    kept : tuple of Candidate
        What stays, with the reason.
    missing : int
        Bytes that are still missing of what was to be free.
    """

    tier: str
    gone: tuple[Candidate, ...] = ()
    kept: tuple[Candidate, ...] = ()
    missing: int = 0

    @property
    def freed(self) -> int:
        """Bytes of what was dropped."""
        return sum(one.size for one in self.gone)

    def with_one(self, one: Candidate) -> Evicted:
        """The same with another one that was dropped, or is kept."""
        if one.kept:
            return replace(self, kept=(*self.kept, one))
        missing = max(0, self.missing - one.size)
        return replace(self, gone=(*self.gone, one), missing=missing)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How much is to be dropped by least recent use.

    Attributes
    ----------
    free : int or None
        Only until so many bytes are free in the tier, below its limits.
    unused_for : float
        Only what was not used for so many seconds.
    """

    free: int | None = None
    unused_for: float = 0.0


@dataclass(frozen=True, slots=True)
class Used:
    """How full a mounted tier is.

    Attributes
    ----------
    size : int
        Bytes of the artifacts in it, and of what the store keeps of them in its own area.
    own : int
        Those of the latter: stages, replaced and damaged copies.
    free : int or None
        Bytes that are free on its file system; ``None`` where that does not say.
    """

    size: int
    own: int
    free: int | None

    def available(self, tier: Tier, promised: usage.Bytes = usage.NOTHING) -> int | None:
        """Bytes that may still be put there beside what is; ``None`` where no limit is known."""
        space = tier.space
        found = None if self.free is None else self.free - promised.room - (space.min_free or 0)
        if space.max_size is None:
            return found
        below = space.max_size - self.size - promised.size
        return below if found is None else min(below, found)


def measured(tier: Tier) -> Used:
    """How full a mounted tier is.

    Raises
    ------
    Unsupported
        For other places.
    """
    backend = _mounted(tier)
    what = f"tier {tier.name!r}"
    within(tier.deadline, lambda: usage.free(backend.place), what)  # one that hangs is noticed

    def look() -> Used:
        # In this order, so that what is published meanwhile counts twice rather than not at all.
        own = usage.own_size(backend.mount)
        size = own + sum(one.size for one in usage.holdings(backend))
        return Used(size, own, usage.free(backend.place))

    return within(PUBLISH_DEADLINE, look, what)


def evict_unused(chain: Chain, tier: Tier, wanted: Wanted) -> Evicted:
    """Drop what was used least recently, see `TieredStore.evict_unused`."""
    done = _sweep(chain, tier, wanted, lambda one: _dropped(chain, tier, one))
    if wanted.free is None:
        return done
    now = measured(tier).available(tier)
    return replace(done, missing=0 if now is None else max(0, wanted.free - now))


def evictable(chain: Chain, tier: Tier, wanted: Wanted) -> Evicted:
    """What `evict_unused` would drop, if the other copies turn out right; nothing is changed."""
    return _sweep(chain, tier, wanted, lambda one: one)


def _sweep(
    chain: Chain, tier: Tier, wanted: Wanted, drop: Callable[[Candidate], Candidate]
) -> Evicted:
    missing = 0
    if wanted.free is not None:
        available = measured(tier).available(tier)
        missing = 0 if available is None else max(0, wanted.free - available)
    done, now = Evicted(tier.name, missing=missing), time.time()
    for one in candidates(tier):
        why = ""
        if now - one.used < wanted.unused_for:
            why = "used since"
        elif wanted.free is not None and done.missing <= 0:
            why = ENOUGH
        why = why or why_kept(chain, tier, one.name)
        done = done.with_one(replace(one, kept=why) if why else drop(one))
    return done


def make_room(chain: Chain, tier: Tier, missing: int, name: str) -> Evicted:
    """Drop what was used least recently until so many bytes more are free.

    Nothing is dropped where all that may go would not be enough.

    Parameters
    ----------
    chain, tier
        Where.
    missing : int
        Bytes.
    name : str
        For which artifact: its own copy stays.
    """
    in_use = chain.first.in_use() if tier is chain.tiers[0] else set[str]()
    rest = _going(chain, tier, name, in_use)
    done = Evicted(tier.name, missing=missing)
    may_go: list[Candidate] = []
    while done.missing > 0:
        while sum(one.size for one in may_go) < done.missing:
            one = next(rest, None)
            if one is None:
                return replace(done, kept=(*done.kept, *may_go)) if done.gone else done
            if one.kept:
                done = done.with_one(one)
            else:
                may_go.append(one)
        dropped = _dropped(chain, tier, may_go.pop(0))
        done = done.with_one(dropped)
        if not dropped.kept:
            chain.reporter.evicted(dropped.name, tier.name, dropped.size)
    return done


def _going(chain: Chain, tier: Tier, name: str, in_use: set[str]) -> Iterator[Candidate]:
    for one in candidates(tier):
        if one.name == name:
            continue
        why = "this process has it in use" if one.generation in in_use else ""
        yield replace(one, kept=why or why_kept(chain, tier, one.name))


def candidates(tier: Tier) -> list[Candidate]:
    """Every artifact in a mounted tier, the least recently used first."""
    backend = _mounted(tier)
    look = within(PUBLISH_DEADLINE, lambda: usage.holdings(backend), f"tier {tier.name!r}")
    found = []
    for each in look:
        with suppress(InvalidName):
            name = tier.layout.name_of(each.folder)
            if name is not None:
                found.append(_candidate(check_name(name), each))
    return found


def _candidate(name: str, each: usage.Holding) -> Candidate:
    return Candidate(name, each.head.generation, each.size, each.used)


def _dropped(chain: Chain, tier: Tier, one: Candidate) -> Candidate:
    try:
        evict(chain, one.name, tier)
    except (OSError, TieredStoreError) as error:
        return replace(one, kept=reason(error))
    return one


def _mounted(tier: Tier) -> LocalBackend:
    if not isinstance(tier.backend, LocalBackend):
        raise Unsupported(
            f"tier {tier.name!r}: {tier.backend.place} is no folder on this machine, so it is not "
            f"known what was used when; name the artifacts to evict there"
        )
    return tier.backend
