"""Copy an artifact down to durable tiers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from tieredstore.backend import ANY_HEAD
from tieredstore.errors import (
    ArtifactNotFound,
    HeadConflict,
    PromoteFailed,
    RecipeConflict,
    TieredStoreError,
    TierUnavailable,
    overtaken,
    reason,
)
from tieredstore.manifest.artifact import Head
from tieredstore.manifest.records import Records
from tieredstore.moving.fetching import Copy
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import DAMAGED, PARTIAL, UNMANAGED, UNREACHABLE, WHOLE, Located, Tier
from tieredstore.verbs.adopting import adopt_in_place
from tieredstore.verbs.copying import Descent, check_replaceable
from tieredstore.workers import PUBLISH_DEADLINE, together

_TRIES: Final = 20
_AT_ONCE: Final = 4  # tiers that are promoted to; each has buffers of its own
COPIED, PRESENT, REFUSED, FAILED = "copied", "present", "refused", "failed"


@dataclass(frozen=True, slots=True)
class TierOutcome:
    """What one tier did with a promote.

    Attributes
    ----------
    tier : str
        The tier.
    action : str
        ``copied``, ``present`` (it has this generation), ``refused`` (another recipe is there) or
        ``failed``.
    detail : str
        The reason for the last two.
    size : int
        Bytes that were moved.
    """

    tier: str
    action: str
    detail: str = ""
    size: int = 0


class Promotion:
    """One promote, to one or several tiers."""

    def __init__(
        self, chain: Chain, name: str, targets: Sequence[str] | None, *, replace: bool
    ) -> None:
        self._chain = chain
        self._name = name
        self._replace = replace
        if targets is None:
            self._targets = [t for t in chain.tiers[1:] if t.durable and not t.read_only]
        else:
            self._targets = [chain.tier(t) for t in dict.fromkeys(targets)]

    def run(self) -> list[TierOutcome]:
        """Promote to all targets at once; one that fails or hangs does not keep others from it."""
        source = self._source()
        calls = [partial(self._promote_to, tier, source) for tier in self._targets]
        outcomes = together(calls, _AT_ONCE)
        for done in outcomes:
            self._chain.reporter.promoted(self._name, done.tier, done.action, done.detail)
        _raise_for(self._name, outcomes)
        return outcomes

    def _promote_to(self, tier: Tier, source: Located) -> TierOutcome:
        assert source.head is not None
        outcome = self._to(tier, source, source.head)
        for _ in range(_TRIES):
            if outcome.action != FAILED or not self._replaced(source.head):
                break  # else the artifact was replaced while it was read: take the new one
            source = self._source()
            assert source.head is not None
            outcome = self._to(tier, source, source.head)
        return outcome

    def _replaced(self, head: Head) -> bool:
        now = self._chain.tiers[0].locate(self._name)
        return now.head is not None and now.head.generation != head.generation

    def _source(self) -> Located:
        first = self._chain.tiers[0]
        source = first.locate(self._name)
        if source.state == UNMANAGED and first.writable:
            self._chain.reporter.adopted(self._name, first.name)
            adopt_in_place(self._chain.first.backend, source.folder, source.files)
            source = first.locate(self._name)
        if source.head is None or source.state not in {WHOLE, PARTIAL}:
            raise ArtifactNotFound(
                f"{self._name}: not in the first tier {first.name!r} "
                f"({source.detail or source.state}); restore or create it first"
            )
        return source

    def _to(self, tier: Tier, source: Located, head: Head) -> TierOutcome:
        if not tier.writable or tier is self._chain.tiers[0]:
            why = "is the first tier" if tier is self._chain.tiers[0] else "cannot be written"
            return TierOutcome(tier.name, FAILED, f"tier {tier.name!r} {why}")
        try:
            with self._chain.working_on(tier, self._name, "promote") as chain:
                for _ in range(_TRIES):
                    there = tier.locate(self._name)
                    if _has(there, head):
                        return TierOutcome(tier.name, PRESENT)
                    self._check_replaceable(there, head)
                    outcome = self._try(chain, there, source, head)
                    if outcome is not None and _has(tier.locate(self._name), head):
                        return outcome
            return TierOutcome(tier.name, FAILED, "others kept replacing it")
        except RecipeConflict as error:
            return TierOutcome(tier.name, REFUSED, str(error))
        except (OSError, TieredStoreError) as error:
            return TierOutcome(tier.name, FAILED, reason(error))

    def _try(self, chain: Chain, there: Located, source: Located, head: Head) -> TierOutcome | None:
        """Copy; ``None`` when somebody else published meanwhile, and another look is due."""
        try:
            return self._copy(chain, there, source, head)
        except (HeadConflict, TierUnavailable) as error:
            if overtaken(error):
                return None
            raise

    def _check_replaceable(self, there: Located, head: Head) -> None:
        if self._replace and there.state != UNREACHABLE:
            return
        check_replaceable(there, self._name, head)

    def _copy(self, chain: Chain, there: Located, source: Located, head: Head) -> TierOutcome:
        records = source.records()
        copies = [_copy_of(source, records), *self._others(source, head, records)]
        descent = Descent(chain, self._name, "promote", head, records, copies)
        expected = ANY_HEAD if there.state == DAMAGED else there.tag
        size = descent.move(there, list(records.files.values()), expected, PUBLISH_DEADLINE)
        return TierOutcome(there.tier.name, COPIED, "", size)

    def _others(self, source: Located, head: Head, records: Records) -> list[Copy]:
        """Other copies of the generation, where the first tier has only some of its files."""
        if source.state == WHOLE:
            return []
        below = self._chain.locate(self._name)[1:]
        copies = []
        for where in below:
            if where.head is not None and where.head.generation == head.generation:
                with suppress(OSError, TieredStoreError):
                    copies.append(_copy_of(where, records))
        return copies


def _copy_of(where: Located, records: Records) -> Copy:
    """A copy to read from; a partial one knows what it has."""
    copy = where.copy(records)
    if where.state != PARTIAL:
        return copy
    return replace(copy, files=frozenset(where.holding(records.files)))


def _has(there: Located, head: Head) -> bool:
    same = there.head is not None and there.head.generation == head.generation
    return same and there.state == WHOLE


def _raise_for(name: str, outcomes: Sequence[TierOutcome]) -> None:
    bad = [o for o in outcomes if o.action in {REFUSED, FAILED}]
    if not bad:
        return
    text = "; ".join(
        o.detail if o.detail.startswith(name) else f"{o.tier}: {o.detail}" for o in bad
    )
    if all(o.action == REFUSED for o in bad):
        raise RecipeConflict(text)
    raise PromoteFailed(f"{name}: {text}", tuple(outcomes))
