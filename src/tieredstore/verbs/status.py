"""Which artifacts a store's tiers have heads of, each tier asked within its deadline."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from tieredstore.errors import InvalidName, TieredStoreError, TierTimeout, reason
from tieredstore.manifest.names import check_name
from tieredstore.mounted.purging import Purged
from tieredstore.reporter import Reporter
from tieredstore.tiers.tier import UNREACHABLE, Located, Tier
from tieredstore.workers import patience, together, within

_SOON: Final = 1.0  # seconds; a tier that takes longer to fail is not asked for each name
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
        self._reporter = reporter
        self._hanging: dict[str, str] = {}
        found = together([partial(self._names, tier) for tier in self._tiers])
        self.names = sorted(set().union(*found))

    def locate(self, name: str) -> list[Located]:
        """What each tier has of an artifact, in the order of the chain."""
        return together([partial(self._in, tier, name) for tier in self._tiers])

    def _names(self, tier: Tier) -> set[str]:
        try:
            found = _names_in(tier)
            if not tier.backend.listable:
                self._reporter.skipped(tier.name, _NO_LISTING)
            return found
        except (OSError, TieredStoreError) as error:
            self._reporter.skipped(tier.name, reason(error))
            if isinstance(error, TierTimeout):
                self._hanging[tier.name] = reason(error)
        return set()

    def _in(self, tier: Tier, name: str) -> Located:
        why = self._hanging.get(tier.name)
        if why is not None:
            return Located(tier, UNREACHABLE, "", detail=why)
        since = time.monotonic()
        located = tier.locate(name)
        taken = time.monotonic() - since
        if located.state == UNREACHABLE and taken > min(_SOON, tier.deadline / 2):
            self._hanging[tier.name] = located.detail
        return _with_expiry(located)


def _with_expiry(located: Located) -> Located:
    """The same, with when its files may be deleted, where that happens."""
    tier, head = located.tier, located.head
    place = tier.backend
    if head is None or not isinstance(place, Purged) or not place.purge_days:
        return located
    with suppress(OSError, TieredStoreError):
        ask = partial(place.expires, located.folder, head)
        seconds = patience(tier.deadline, head.records_size)
        return replace(located, expires=within(seconds, ask, f"tier {tier.name!r}"))
    return located


def _names_in(tier: Tier) -> set[str]:
    folders = within(tier.deadline, lambda: list(tier.backend.folders()), f"tier {tier.name!r}")
    found: set[str] = set()
    for folder in folders:
        name = tier.layout.name_of(folder)
        with suppress(InvalidName):
            if name is not None:
                found.add(check_name(name))
    return found
