"""What is left over in the tiers of a store, listed and dropped; see ``litter.py``."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from tieredstore.errors import TieredStoreError, Unsupported, reason
from tieredstore.litter import DAMAGED, UNKNOWN, Collectable, Litter
from tieredstore.manifest.names import RESERVED
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import Tier
from tieredstore.workers import PUBLISH_DEADLINE, together, within

GRACE: Final = 24 * 3600.0  # seconds
_AT_ONCE: Final = 8  # that are dropped


@dataclass(frozen=True, slots=True)
class TierLitter:
    """What is left over in one tier, and what became of it.

    Attributes
    ----------
    tier : str
        The tier.
    litter : tuple of Litter
        What was found.
    dropped : tuple of Litter
        What of it has been dropped; the rest had come into use.
    freed : int
        Bytes of that.
    failed : str
        Why it could not be looked at, or dropped, to the end; empty where it could.
    """

    tier: str
    litter: tuple[Litter, ...] = ()
    dropped: tuple[Litter, ...] = ()
    freed: int = 0
    failed: str = ""

    def joined(self, other: TierLitter) -> TierLitter:
        """Both together, of one tier."""
        return TierLitter(
            self.tier,
            (*self.litter, *other.litter),
            (*self.dropped, *other.dropped),
            self.freed + other.freed,
            "; ".join(filter(None, (self.failed, other.failed))),
        )


def find(chain: Chain, tiers: Sequence[str] | None, grace: float) -> list[TierLitter]:
    """What is left over in each tier that can tell, see `TieredStore.litter`."""
    return _each(chain, tiers, partial(_found, chain, grace))


def collect(
    chain: Chain, tiers: Sequence[str] | None, grace: float, *, damaged: bool = False
) -> list[TierLitter]:
    """Drop what is left over, see `TieredStore.collect`."""
    kept = frozenset({UNKNOWN} if damaged else {UNKNOWN, DAMAGED})
    return _each(chain, tiers, partial(_collected, chain, grace, kept))


def _each(
    chain: Chain, tiers: Sequence[str] | None, work: Callable[[Tier, Collectable], TierLitter]
) -> list[TierLitter]:
    """Look at all tiers at once; one that turns out not to tell is an error where it was named."""

    def able(tier: Tier, place: Collectable) -> TierLitter | Unsupported:
        try:
            return work(tier, place)
        except Unsupported as error:
            return error

    done = together([partial(able, tier, place) for tier, place in _chosen(chain, tiers)])
    cannot = [error for error in done if isinstance(error, Unsupported)]
    if cannot and tiers is not None:
        raise cannot[0]
    by_tier: dict[str, TierLitter] = {}
    for found in done:
        if isinstance(found, TierLitter):
            before = by_tier.get(found.tier)
            by_tier[found.tier] = found if before is None else before.joined(found)
    return list(by_tier.values())


def _chosen(chain: Chain, tiers: Sequence[str] | None) -> list[tuple[Tier, Collectable]]:
    """The tiers to look at; one that is named has to be able to tell.

    Raises
    ------
    Unsupported
        When a named one cannot, or may not be written.
    """
    asked = chain.tiers if tiers is None else [chain.tier(t) for t in dict.fromkeys(tiers)]
    chosen: list[tuple[Tier, Collectable]] = []
    for tier in asked:
        if isinstance(tier.backend, Collectable) and not tier.read_only:
            chosen.append((tier, tier.backend))
            if tier.jobs is not None:
                chosen.append((tier, tier.jobs))
        elif tiers is not None:
            why = "is read-only" if tier.read_only else "cannot tell what is left over in it"
            raise Unsupported(f"tier {tier.name!r} {why}")
    return chosen


def _found(chain: Chain, grace: float, tier: Tier, place: Collectable) -> TierLitter:
    what = f"tier {tier.name!r}"
    try:
        # A place that hangs is noticed by a small question: the listing takes as long as it is.
        within(
            tier.deadline, lambda: next(iter(tier.backend.list(f"{RESERVED}/lease")), None), what
        )
        found = within(PUBLISH_DEADLINE, lambda: tuple(place.litter(grace)), what)
    except Unsupported:
        raise
    except (OSError, TieredStoreError) as error:
        chain.reporter.skipped(tier.name, reason(error))
        return TierLitter(tier.name, failed=reason(error))
    return TierLitter(tier.name, found)


def _collected(
    chain: Chain, grace: float, kept: Container[str], tier: Tier, place: Collectable
) -> TierLitter:
    done = _found(chain, grace, tier, place)
    left = [one for one in done.litter if one.what not in kept]
    problems: list[OSError | TieredStoreError] = []
    for at in range(0, len(left), _AT_ONCE):
        some = left[at : at + _AT_ONCE]
        dropped = together([partial(_dropped, tier, place, one) for one in some])
        sizes = {o: s for o, s in zip(some, dropped, strict=True) if isinstance(s, int)}
        freed = done.freed + sum(sizes.values())
        done = replace(done, dropped=(*done.dropped, *sizes), freed=freed)
        problems += [error for error in dropped if isinstance(error, Exception)]
        if any(not isinstance(error, PermissionError) for error in problems):
            break  # what belongs to others stays, and keeps nobody from dropping the rest
    if not problems:
        return done
    why = reason(problems[0])
    why = why if len(problems) == 1 else f"{why}; and {len(problems) - 1} more like it"
    chain.reporter.skipped(tier.name, why)
    return replace(done, failed="; ".join(filter(None, (done.failed, why))))


def _dropped(
    tier: Tier, place: Collectable, left: Litter
) -> int | OSError | TieredStoreError | None:
    """The bytes that were freed, or why it could not be dropped; ``None``: it is in use now."""
    try:
        return within(PUBLISH_DEADLINE, partial(place.drop, left), f"tier {tier.name!r}")
    except (OSError, TieredStoreError) as error:
        return error
