"""Mend damaged copies: what is wrong in them is taken from other tiers' copies of the generation.

A file that differs is put together anew in the tier's staging, from its own good blocks and from
others for the bad ones, every block verified, and takes the damaged one's place in one step. What
is good stays as it lies. Finding out what is wrong is in ``damage.py``, comparing in
``verifying.py``; copies that were set aside are never looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from tieredstore.backend import DAMAGED_HEAD, Publishable, Staging
from tieredstore.errors import (
    CorruptData,
    HeadConflict,
    RepairFailed,
    TieredStoreError,
    TierUnavailable,
    overtaken,
    reason,
    writing_to,
)
from tieredstore.manifest.records import Records
from tieredstore.moving.fetching import Copy
from tieredstore.moving.packing import Packing
from tieredstore.moving.runs import OpenFile
from tieredstore.moving.transfer import Moved, Transfer
from tieredstore.reporter import Reporter
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import DAMAGED, PARTIAL, UNREACHABLE, Located, Tier
from tieredstore.tiers.verifying import FAILED, READ_ONLY, REPAIRED, Repair, Verified, verify_copy
from tieredstore.verbs.damage import Damage, examine, same_generation
from tieredstore.workers import PUBLISH_DEADLINE, within

_TRIES: Final = 5
_WHAT_NOW: Final = (
    "make a tier that has a good copy reachable and repair again, or make the artifact again"
)


def repair(chain: Chain, verified: Mapping[str, Sequence[Verified]]) -> dict[str, list[Verified]]:
    """Mend every copy that a verify has found damaged, one after the other.

    Raises
    ------
    RepairFailed
        When one was not mended; the others were.
    """
    done: dict[str, list[Verified]] = {}
    for name, copies in verified.items():
        done[name] = [
            Mending(chain, name, chain.tier(v.tier)).run(v) if v.damaged else v for v in copies
        ]
    outcomes = [v.repair for copies in done.values() for v in copies if v.repair is not None]
    failed = [outcome.detail for outcome in outcomes if outcome.action == FAILED]
    if failed:
        raise RepairFailed("; ".join(failed), done)
    return done


class Mending:
    """The repair of one tier's copy of an artifact."""

    def __init__(self, chain: Chain, name: str, tier: Tier) -> None:
        self._chain = chain
        self._name = name
        self._tier = tier

    def run(self, found: Verified) -> Verified:
        """Repair what was found; says what became of it, and raises nothing for it."""
        if not self._tier.writable:
            why = f"tier {self._tier.name!r} is read-only: its damaged copy stays as it is"
            return replace(found, repair=Repair(READ_ONLY, f"{self._name}: {why}"))
        first = self._tier is self._chain.tiers[0]
        try:
            with self._chain.working_on(self._tier, self._name, "restore" if first else "promote"):
                return self._mended(found)
        except (OSError, TieredStoreError) as error:
            return replace(found, repair=Repair(FAILED, self._explained(error)))

    def _mended(self, found: Verified) -> Verified:
        for _ in range(_TRIES):
            try:
                done = self._mend(found)
            except (HeadConflict, TierUnavailable) as error:
                if not overtaken(error):
                    raise
                done = None
            if done is not None:
                return done
            found = verify_copy(self._tier.locate(self._name), self._name, Reporter())
            if found.ok:
                return replace(found, repair=Repair(REPAIRED, "somebody else did"))
            if found.state == UNREACHABLE:
                raise TierUnavailable("; ".join(found.problems))
            if not found.damaged:
                return found  # it was removed, or is being replaced
        raise TierUnavailable("others kept changing it")

    def _mend(self, found: Verified) -> Verified | None:
        """Mend once; ``None`` where the copy was replaced meanwhile, and another look is due."""
        tier, reporter = self._tier, self._chain.reporter
        located = self._chain.locate(self._name)
        here = next(w for w in located if w.tier is tier)
        others = [w for w in located if w.tier is not tier]
        if here.head is None and here.state != DAMAGED:
            return None  # dropped, being replaced, or the tier is gone
        if here.head is not None and here.head.generation != found.generation:
            return None
        self._check_place(here)
        damage = examine(here, others, found)
        files = damage.files()
        reporter.started("repair", self._name, sum(f.record.size for f in files))
        moved = self._put(damage, files, others)
        wrong = self._compare(damage, files)
        reporter.finished("repair", self._name, f"{tier.backend.place}/{here.folder}")
        if wrong is None:
            return None
        if wrong:
            raise CorruptData(f"what was put again differs too ({wrong[0]}); look at the disk")
        kept = moved.given.get(tier.name, 0)
        done = Repair(REPAIRED, "", sum(moved.given.values()) - kept, kept)
        return replace(found, ok=True, repair=done)

    def _check_place(self, here: Located) -> None:
        if here.folder != self._tier.layout.folder(self._name):
            raise TierUnavailable(f"it lies in {here.folder!r}, which is only ever read")

    def _put(self, damage: Damage, files: Sequence[OpenFile], others: Sequence[Located]) -> Moved:
        """Stage what is bad, and let it take the place of what is there."""
        tier, where = self._tier, damage.where
        backend, head = tier.backend, where.head
        assert isinstance(backend, Publishable)
        assert head is not None
        what = f"tier {tier.name!r}"
        with writing_to(tier.name):
            staging = within(tier.deadline, lambda: backend.begin(where.folder, head), what)
        staging.resumes = False  # what lies there already is what is damaged
        sources = [_copy_of(w, damage.records) for w in same_generation(head, others)]
        own: list[Copy] = [damage.copy] if damage.readable else []
        transfer = Transfer(
            [*own, *sources], staging, self._chain.reporter, tier.name, tier.deadline
        )
        moved = transfer.move_open(files or self._least(damage, staging))
        with writing_to(tier.name):
            if damage.index is not None and damage.index_bad:
                put_index = partial(Packing(damage.records, damage.index).put_index, staging)
                within(PUBLISH_DEADLINE, put_index, what)
            expected = DAMAGED_HEAD if damage.head else where.tag
            mend = partial(staging.mend, head, damage.records, expected)
            within(PUBLISH_DEADLINE, mend, what)
        return moved

    def _least(self, damage: Damage, staging: Staging) -> list[OpenFile]:
        """Where only the manifest is bad: a mounted place takes it together with some file."""
        if not staging.any_order:
            return []
        there = damage.where.holding(damage.records.files)
        held = [f for f in damage.records.files.values() if f.path in there]
        return [OpenFile(min(held, key=lambda f: f.size))] if held else []

    def _compare(self, damage: Damage, files: Sequence[OpenFile]) -> list[str] | None:
        """What differs in the files that were put again; ``None`` where they are gone by now."""
        now = self._tier.locate(self._name)
        head = damage.where.head
        assert head is not None
        if now.head is None or now.head.generation != head.generation:
            return None
        records = now.records()
        put = {path for file in files for path in file.files}
        again = [f for f in records.files.values() if f.path in put]
        moved = Transfer([now.copy(records)]).compare(again)
        return moved.damaged.get(self._tier.name, [])

    def _explained(self, error: BaseException) -> str:
        said = [
            f"{w.tier.name}: {w.detail or w.state}"
            for w in self._chain.locate(self._name)
            if w.tier is not self._tier and not w.present
        ]
        others = f" ({'; '.join(said)})" if said else ""
        return (
            f"{self._name}: the copy in tier {self._tier.name!r} was not repaired: "
            f"{reason(error)}{others}; {_WHAT_NOW}"
        )


def _copy_of(where: Located, records: Records) -> Copy:
    """A copy to read from; a partial one knows what it has."""
    copy = where.copy(records)
    if where.state != PARTIAL:
        return copy
    return replace(copy, files=frozenset(where.holding(records.files)))
