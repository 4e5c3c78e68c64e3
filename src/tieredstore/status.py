"""Which artifacts a store's tiers have heads of, each tier asked within its deadline."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from tieredstore.errors import InvalidName, TieredStoreError, TierTimeout, reason
from tieredstore.names import check_name
from tieredstore.reporter import Reporter
from tieredstore.tier import UNREACHABLE, Located, Tier
from tieredstore.workers import within

_NO_LISTING: Final = "cannot be listed; what only it has is found when asked for by name"


class Survey:
    """The names in all tiers, and the tiers that hang: those are not asked again for each name.

    Attributes
    ----------
    names : list of str
        All artifacts that some tier has a head of.
    """

    def __init__(self, tiers: Iterable[Tier], reporter: Reporter) -> None:
        self._tiers = list(tiers)
        self._hanging: dict[str, str] = {}
        found: set[str] = set()
        for tier in self._tiers:
            try:
                found |= _names_in(tier)
                if not tier.backend.listable:
                    reporter.skipped(tier.name, _NO_LISTING)
            except (OSError, TieredStoreError) as error:
                reporter.skipped(tier.name, reason(error))
                if isinstance(error, TierTimeout):
                    self._hanging[tier.name] = reason(error)
        self.names = sorted(found)

    def locate(self, name: str) -> list[Located]:
        """What each tier has of an artifact, in the order of the chain."""
        return [self._in(tier, name) for tier in self._tiers]

    def _in(self, tier: Tier, name: str) -> Located:
        why = self._hanging.get(tier.name)
        if why is None:
            return tier.locate(name)
        return Located(tier, UNREACHABLE, "", detail=why)


def _names_in(tier: Tier) -> set[str]:
    folders = within(tier.deadline, lambda: list(tier.backend.folders()), f"tier {tier.name!r}")
    found: set[str] = set()
    for folder in folders:
        name = tier.layout.name_of(folder)
        with suppress(InvalidName):
            if name is not None:
                found.add(check_name(name))
    return found
