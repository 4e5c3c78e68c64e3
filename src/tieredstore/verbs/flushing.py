"""Flush: promote what waits in the first tier's queue; what fails stays, with its reason."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from tieredstore.errors import (
    ArtifactNotFound,
    PromoteFailed,
    RecipeConflict,
    TieredStoreError,
    Unsupported,
    reason,
)
from tieredstore.tiers import queued
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.queued import Queued
from tieredstore.tiers.tier import PARTIAL, UNMANAGED, WHOLE, Tier
from tieredstore.verbs.promoting import FAILED, PRESENT, REFUSED, Promotion, TierOutcome

LATER, TAKEN = "later", "taken"
_PAUSE: Final = 60.0  # seconds after the first try that failed; twice as many after each further
_LONGEST: Final = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class Flushed:
    """What became of a promote that waited.

    Attributes
    ----------
    name, tier : str
        The artifact, and where it was to go.
    action : str
        ``copied`` or ``present``: it waits no more. ``failed`` or ``refused``: it goes on waiting,
        ``detail`` says why. ``later``: it has failed before and is not tried yet. ``taken``:
        another flush is at it.
    detail : str
        The reason; or that a newer generation took the place of the one that was queued.
    size : int
        Bytes that were moved.
    tries : int
        How often it has failed until now.
    """

    name: str
    tier: str
    action: str
    detail: str = ""
    size: int = 0
    tries: int = 0

    @property
    def done(self) -> bool:
        """Whether it waits no more."""
        return self.action not in {FAILED, REFUSED, LATER, TAKEN}

    @property
    def failed(self) -> bool:
        """Whether it was tried and goes on waiting."""
        return self.action in {FAILED, REFUSED}


def enqueue(
    chain: Chain, name: str, to: Sequence[str] | None, *, replace: bool = False
) -> list[Queued]:
    """Let a promote wait, see `TieredStore.queue_promote`."""
    first = chain.tiers[0]
    if to is None:
        targets = [t for t in chain.tiers[1:] if t.durable and not t.read_only]
    else:
        targets = [chain.tier(t) for t in dict.fromkeys(to)]
    for tier in targets:
        if tier is first or not tier.writable:
            why = "is the first tier" if tier is first else "cannot be written"
            raise Unsupported(f"{name}: tier {tier.name!r} {why}: nothing is promoted to it")
    here = first.locate(name)
    if here.state not in {WHOLE, PARTIAL, UNMANAGED}:
        raise ArtifactNotFound(
            f"{name}: not in the first tier {first.name!r} ({here.detail or here.state}); "
            f"restore or create it first"
        )
    generation = "" if here.head is None else here.head.generation
    return [
        queued.add(first, Queued(name, tier.name, generation, replace, time.time()))
        for tier in targets
    ]


def flush(chain: Chain, names: Sequence[str] | None) -> list[Flushed]:
    """Promote what waits, see `TieredStore.flush`."""
    waiting: dict[tuple[str, str], list[Queued]] = {}
    for each in queued.entries(chain.tiers[0]):
        if names is None or each.name in names:
            waiting.setdefault((each.name, each.tier), []).append(each)
    found = [_Flush(chain, name, tier).run(some, names) for (name, tier), some in waiting.items()]
    return [each for each in found if each is not None]


class _Flush:
    """What waits of one artifact for one tier."""

    def __init__(self, chain: Chain, name: str, tier: str) -> None:
        self._chain = chain
        self._first = chain.tiers[0]
        self._name = name
        self._tier = tier

    def run(self, waiting: Sequence[Queued], names: Sequence[str] | None) -> Flushed | None:
        """Do it, unless another is at it, or its time has not come."""
        last = waiting[-1]
        if not self._name:
            return Flushed("", "", FAILED, f"{last.reason} ({queued.AREA}/{last.file})")
        if names is None and all(each.after > time.time() for each in waiting):
            return self._not_done(LATER, last)
        with ExitStack() as held:
            if not self._chain.only_one(held, self._first, self._name, f"flush-{self._tier}"):
                return self._not_done(TAKEN, last)
            now = queued.entries(self._first, self._name)
            waiting = [each for each in now if each.tier == self._tier]
            return self._flush(waiting) if waiting else None  # else another has just done it

    def _not_done(self, action: str, last: Queued) -> Flushed:
        return Flushed(self._name, self._tier, action, last.reason, tries=last.tries)

    def _flush(self, waiting: Sequence[Queued]) -> Flushed:
        outcome = self._promote(waiting)
        if outcome.action in {FAILED, REFUSED}:
            now, tries = time.time(), waiting[-1].tries
            pause = min(_PAUSE * 2.0 ** min(tries, 20), _LONGEST)
            for each in waiting:
                queued.update(self._first, each.failed(outcome.detail, now, pause))
            detail = outcome.detail
            return Flushed(self._name, self._tier, outcome.action, detail, tries=tries + 1)
        detail = self._replaced(waiting)
        queued.remove(self._first, waiting)
        tries = waiting[-1].tries
        return Flushed(self._name, self._tier, outcome.action, detail, outcome.size, tries)

    def _promote(self, waiting: Sequence[Queued]) -> TierOutcome:
        replace = waiting[-1].replace
        try:
            tier = self._chain.tier(self._tier)
            try:
                (done,) = Promotion(self._chain, self._name, [self._tier], replace=replace).run()
            except ArtifactNotFound as error:
                if not self._has(tier, waiting[-1]):
                    raise
                done = TierOutcome(tier.name, PRESENT, reason(error))
            return done
        except RecipeConflict as error:
            return TierOutcome(self._tier, REFUSED, reason(error))
        except PromoteFailed as error:
            outcomes = [o for o in error.outcomes if isinstance(o, TierOutcome)]
            return next(iter(outcomes), TierOutcome(self._tier, FAILED, reason(error)))
        except (OSError, TieredStoreError) as error:
            return TierOutcome(self._tier, FAILED, reason(error))

    def _has(self, tier: Tier, last: Queued) -> bool:
        there = tier.locate(self._name)
        same = there.head is not None and there.head.generation == last.generation
        return same and there.state == WHOLE

    def _replaced(self, waiting: Sequence[Queued]) -> str:
        """What is said where the generation that was queued is not the one that went there."""
        there = self._chain.tier(self._tier).locate(self._name).head
        before = waiting[-1].generation
        if there is None or not before or there.generation == before:
            return ""
        return f"generation {there.generation} has taken the place of {before}, which was queued"
