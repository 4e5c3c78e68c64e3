"""Which artifacts a tier has heads of, asked within its deadline."""

from __future__ import annotations

from contextlib import suppress

from tieredstore.artifact import check_name
from tieredstore.errors import InvalidName, TieredStoreError, reason
from tieredstore.reporter import Reporter
from tieredstore.tier import Tier
from tieredstore.workers import within


def names_in(tier: Tier, reporter: Reporter) -> set[str]:
    """The names of all artifacts in a tier; a tier that fails is reported and gives none."""
    try:
        folders = within(tier.deadline, lambda: list(tier.backend.folders()), f"tier {tier.name!r}")
    except (OSError, TieredStoreError) as error:
        reporter.skipped(tier.name, reason(error))
        return set()
    found: set[str] = set()
    for folder in folders:
        name = tier.layout.name_of(folder)
        with suppress(InvalidName):
            if name is not None:
                found.add(check_name(name))
    return found
