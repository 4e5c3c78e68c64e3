"""Copy an artifact down to durable tiers, and drop a copy that such a tier also has."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tieredstore.adopting import adopt_in_place
from tieredstore.artifact import Head
from tieredstore.backend import ANY_HEAD, Publishable
from tieredstore.chain import Chain
from tieredstore.errors import (
    ArtifactExists,
    ArtifactNotFound,
    CorruptData,
    EvictRefused,
    HeadConflict,
    PromoteFailed,
    RecipeConflict,
    TieredStoreError,
    TierUnavailable,
    reason,
    writing_to,
)
from tieredstore.names import check_case_clashes, parents
from tieredstore.records import Records
from tieredstore.tier import DAMAGED, PARTIAL, UNMANAGED, UNREACHABLE, WHOLE, Located, Tier
from tieredstore.transfer import Copy, Transfer
from tieredstore.verifying import verify_copy
from tieredstore.workers import PUBLISH_DEADLINE, within

_TRIES: Final = 20
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
            self._targets = [chain.tier(t) for t in targets]

    def run(self) -> list[TierOutcome]:
        """Promote to each target; one that fails does not keep the others from it."""
        source = self._source()
        head = source.head
        assert head is not None
        outcomes = []
        for tier in self._targets:
            outcome = self._to(tier, source, head)
            for _ in range(_TRIES):
                if outcome.action != FAILED or not self._replaced(head):
                    break  # else the artifact was replaced while it was read: take the new one
                source = self._source()
                assert source.head is not None
                head = source.head
                outcome = self._to(tier, source, head)
            self._chain.reporter.promoted(self._name, tier.name, outcome.action, outcome.detail)
            outcomes.append(outcome)
        _raise_for(self._name, outcomes)
        return outcomes

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
            with self._chain.working_on(tier, self._name, "promote"):
                for _ in range(_TRIES):
                    there = tier.locate(self._name)
                    if _has(there, head):
                        return TierOutcome(tier.name, PRESENT)
                    self._check_replaceable(there, head)
                    outcome = self._try(tier, there, source, head)
                    if outcome is not None and _has(tier.locate(self._name), head):
                        return outcome
            return TierOutcome(tier.name, FAILED, "others kept replacing it")
        except RecipeConflict as error:
            return TierOutcome(tier.name, REFUSED, str(error))
        except (OSError, TieredStoreError) as error:
            return TierOutcome(tier.name, FAILED, reason(error))

    def _try(self, tier: Tier, there: Located, source: Located, head: Head) -> TierOutcome | None:
        """Copy; ``None`` when somebody else published meanwhile, and another look is due."""
        try:
            return self._copy(tier, there, source, head)
        except HeadConflict:
            return None
        except TierUnavailable as error:
            if error.writing and error.errno == errno.ENOENT:
                return None  # another that moves this generation has published the stage
            raise

    def _check_replaceable(self, there: Located, head: Head) -> None:
        if there.state == UNREACHABLE:
            raise TierUnavailable(there.detail)
        if not there.present or self._replace:
            return  # nothing that could be used is there
        if there.head is not None and there.head.generation == head.generation:
            return
        known = None if there.head is None else there.head.recipe
        if known is None or head.recipe is None or not head.recipe.same_as(known):
            differences = (
                head.recipe.differences(known) if head.recipe and known else "recipe unknown"
            )
            raise RecipeConflict(
                f"{self._name}: tier {there.tier.name!r} holds it made otherwise ({differences}); "
                f"replace it with replace=True or --force"
            )

    def _copy(self, tier: Tier, there: Located, source: Located, head: Head) -> TierOutcome:
        backend = tier.backend
        assert isinstance(backend, Publishable)
        records = source.tier.backend.read_records(source.folder, head)
        what = f"tier {tier.name!r}"
        within(tier.deadline, lambda: self._check_names(tier, there, records), what)
        folder = tier.layout.folder(self._name)
        staging = within(tier.deadline, lambda: backend.begin(folder, head), what)
        files = list(records.files.values())
        self._chain.reporter.started("promote", self._name, sum(f.size for f in files))
        copies = [source.copy(), *self._others(source, head)]
        transfer = Transfer(copies, staging, self._chain.reporter, tier.name)
        moved = transfer.move(files)
        expected = ANY_HEAD if there.state == DAMAGED else there.tag
        within(PUBLISH_DEADLINE, lambda: staging.publish(head, records, expected), what)
        place = f"{tier.backend.place}/{folder}"
        self._chain.reporter.finished("promote", self._name, place)
        if source.tier.name in moved.damaged:
            problem = moved.damaged[source.tier.name][0]
            self._chain.reporter.corrupt(source.tier.name, problem)
            raise CorruptData(f"the copy in {source.tier.name!r} is damaged ({problem}); verify it")
        return TierOutcome(tier.name, COPIED, "", moved.size)

    def _others(self, source: Located, head: Head) -> list[Copy]:
        """Other copies of the generation, where the first tier has only some of its files."""
        if source.state == WHOLE:
            return []
        below = [t.locate(self._name) for t in self._chain.tiers[1:]]
        return [
            w.copy() for w in below if w.head is not None and w.head.generation == head.generation
        ]

    def _check_names(self, tier: Tier, there: Located, records: Records) -> None:
        """Refuse names that the place cannot keep apart, and artifacts inside one another."""
        if not tier.backend.keeps_case:
            check_case_clashes(records.files, tier.backend.place)
        if there.head is not None:
            return
        for above in parents(self._name):
            if tier.backend.read_head(tier.layout.folder(above)) is not None:
                raise ArtifactExists(f"{self._name}: lies inside {above!r} in tier {tier.name!r}")
        for found in tier.backend.folders(tier.layout.inner(self._name)):
            name = tier.layout.name_of(found)
            if name is not None and name.startswith(f"{self._name}/"):
                raise ArtifactExists(f"{self._name}: holds {name!r} in tier {tier.name!r}")


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
    for other in chain.tiers:
        if other is tier or not other.durable:
            continue
        there = other.locate(name)
        if there.head is None or there.head.generation != located.head.generation:
            said.append(f"{other.name}: {there.detail or 'not this generation'}")
            continue
        verified = verify_copy(there, name, chain.reporter)
        if verified.ok and there.state == WHOLE:
            assert isinstance(tier.backend, Publishable)
            with writing_to(tier.name):
                tier.backend.remove(located.folder, located.head)
            return located.head.size
        said.append(f"{other.name}: {'; '.join(verified.problems) or 'only some of its files'}")
    why = "; ".join(said) or "this store has no other durable tier"
    raise EvictRefused(
        f"{name}: not dropped from {tier.name!r}, no verified copy elsewhere ({why})"
    )
