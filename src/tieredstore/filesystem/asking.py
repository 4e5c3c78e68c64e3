"""Questions to all tiers at once, for people who wait: one that hangs is left out for a while."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from tieredstore.errors import InvalidName, TieredStoreError, TierTimeout, reason
from tieredstore.filesystem.tree import Tree
from tieredstore.manifest.names import check_name
from tieredstore.manifest.records import Records
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import UNREACHABLE, Located, Tier
from tieredstore.workers import together, within

PATIENCE: Final = 5.0  # seconds that a listing waits for a tier, where its deadline is longer
_TREES: Final = 8  # generations whose files are kept
_REST: Final = 30.0  # seconds for which one that hung is not asked again


class Asking:
    """The tiers of a chain, and which of them hung just now.

    Parameters
    ----------
    chain : Chain
        The tiers.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self._until: dict[str, float] = {}
        self._why: dict[str, str] = {}
        self._trees: OrderedDict[str, Tree] = OrderedDict()

    def located(self, name: str, tiers: Sequence[Tier] | None = None) -> list[Located]:
        """What each tier has of an artifact; one that does not answer is unreachable."""
        asked = self.chain.tiers if tiers is None else tiers
        return together([partial(self._locate, tier, name) for tier in asked])

    def names(self, below: str = "") -> dict[str, list[str]]:
        """The artifacts at or below a path that some tier has a head of, each with its tiers."""
        found: dict[str, list[str]] = {}
        tiers = self.chain.tiers
        lists = together([partial(self._names, tier, below) for tier in tiers])
        for tier, names in zip(tiers, lists, strict=True):
            for name in names:
                found.setdefault(name, []).append(tier.name)
        return found

    def tree(self, where: Located, kept: Callable[[], Records | None] | None = None) -> Tree:
        """The files of a copy; those read last are kept: what has their digest never changes.

        Parameters
        ----------
        where : Located
            The copy.
        kept : callable, optional
            Gives its records where they are at hand.

        Raises
        ------
        OSError, TieredStoreError
            When its records cannot be read.
        """
        assert where.head is not None
        key = where.head.records_digest
        found = self._trees.pop(key, None)
        if found is None:
            found = Tree(((kept() if kept else None) or where.records()).files)
        self._trees[key] = found
        while len(self._trees) > _TREES:
            self._trees.popitem(last=False)
        return found

    def hung(self, tier: Tier) -> bool:
        """Whether a tier has not answered just now."""
        return time.monotonic() < self._until.get(tier.name, 0.0)

    def _locate(self, tier: Tier, name: str) -> Located:
        if self.hung(tier):
            return Located(tier, UNREACHABLE, "", detail=self._why[tier.name])
        seconds = min(tier.deadline, PATIENCE)
        since = time.monotonic()
        found = replace(replace(tier, deadline=seconds).locate(name), tier=tier)
        if found.state == UNREACHABLE:
            self._failed(tier, found.detail, hung=time.monotonic() - since >= seconds)
        return found

    def _names(self, tier: Tier, below: str) -> list[str]:
        if self.hung(tier):
            return []
        seconds = min(tier.deadline, PATIENCE)
        try:
            return within(seconds, partial(_names_in, below, tier), f"tier {tier.name!r}")
        except (OSError, TieredStoreError) as error:
            self._failed(tier, reason(error), hung=isinstance(error, TierTimeout))
            return []

    def _failed(self, tier: Tier, why: str, *, hung: bool) -> None:
        if hung:
            self._why[tier.name] = why
            self._until[tier.name] = time.monotonic() + _REST
        self.chain.reporter.skipped(tier.name, why)


def _names_in(below: str, tier: Tier) -> list[str]:
    folder = tier.layout.inner(below) if below else ""
    found: set[str] = set()
    for place in tier.backend.folders(folder):
        name = tier.layout.name_of(place)
        if (
            name is not None
            and _is_name(name)
            and (not below or f"{name}/".startswith(f"{below}/"))
        ):
            found.add(name)
    return sorted(found)


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except InvalidName:
        return False
    return True
