"""Verify many artifacts at once: each tier is read by itself, all tiers at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from tieredstore.errors import ArtifactNotFound
from tieredstore.manifest.names import check_name
from tieredstore.reporter import Reporter
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import ABSENT, UNREACHABLE, Located, Tier
from tieredstore.tiers.verifying import Verified, verify_copy
from tieredstore.verbs.status import Survey
from tieredstore.workers import together

_AT_ONCE: Final = 4  # tiers that are read; each has buffers of its own


def audit(
    chain: Chain, names: Sequence[str] | None, tiers: Sequence[str] | None
) -> dict[str, list[Verified]]:
    """Compare every copy with its manifest, see `TieredStore.verify_all`."""
    chosen = chain.tiers if tiers is None else [chain.tier(t) for t in dict.fromkeys(tiers)]
    found = _located(chain, names, chosen)
    reading = [where for located in found.values() for where in located]
    what = next(iter(found)) if len(found) == 1 else f"{len(found)} artifacts"
    size = sum(where.head.size for where in reading if where.head is not None)
    chain.reporter.started("verify", what, size)
    part = _Part(chain.reporter)
    lanes = [partial(_lane, tier, found, part) for tier in chosen]
    done = {(name, v.tier): v for lane in together(lanes, _AT_ONCE) for name, v in lane}
    chain.reporter.finished("verify", what, "")
    return {
        name: [done[name, where.tier.name] for where in located] for name, located in found.items()
    }


def _located(
    chain: Chain, names: Sequence[str] | None, tiers: Sequence[Tier]
) -> dict[str, list[Located]]:
    """What each tier has of each artifact, without those that have none."""
    if names is None:
        survey = Survey(tiers, chain.reporter)
        found = {name: survey.locate(name) for name in survey.names}
    else:
        found = {
            check_name(name): together([partial(tier.locate, name) for tier in tiers])
            for name in dict.fromkeys(names)
        }
    kept = {name: [w for w in located if w.state != ABSENT] for name, located in found.items()}
    for name, located in kept.items():
        if not located and names is not None:
            where = ", ".join(tier.name for tier in tiers)
            raise ArtifactNotFound(f"{name}: not in {where}")
    return {name: located for name, located in kept.items() if located}


def _lane(
    tier: Tier, found: dict[str, list[Located]], reporter: Reporter
) -> list[tuple[str, Verified]]:
    """Verify what one tier has; where it stops answering, the rest of it is left."""
    done: list[tuple[str, Verified]] = []
    down = ""
    for name, located in found.items():
        for where in (w for w in located if w.tier is tier):
            asked = replace(where, state=UNREACHABLE, head=None, detail=down) if down else where
            verified = verify_copy(asked, name, reporter)
            if verified.state == UNREACHABLE and where.state != UNREACHABLE:
                down = "; ".join(verified.problems)
            done.append((name, verified))
    return done


class _Part(Reporter):
    """Passes on what is told of one of several copies that are read for one answer."""

    def __init__(self, whole: Reporter) -> None:
        self._whole = whole

    def advanced(self, size: int) -> None:
        """See `Reporter.advanced`."""
        self._whole.advanced(size)

    def corrupt(self, tier: str, what: str) -> None:
        """See `Reporter.corrupt`."""
        self._whole.corrupt(tier, what)

    def skipped(self, tier: str, why: str) -> None:
        """See `Reporter.skipped`."""
        self._whole.skipped(tier, why)
