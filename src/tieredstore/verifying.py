"""Compare what a tier holds with its manifest, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass

from tieredstore.errors import TieredStoreError, reason
from tieredstore.reporter import Reporter
from tieredstore.tier import PARTIAL, Located
from tieredstore.transfer import Transfer


@dataclass(frozen=True, slots=True)
class Verified:
    """What one tier's copy is worth.

    Attributes
    ----------
    tier : str
        The tier.
    ok : bool
        Every file that should be there is, and every byte matches.
    generation : str
        Empty where there is no head.
    size : int
        Bytes that were compared.
    problems : tuple of str
        What differs, a line each.
    """

    tier: str
    ok: bool
    generation: str = ""
    size: int = 0
    problems: tuple[str, ...] = ()


def verify_copy(located: Located, name: str, reporter: Reporter) -> Verified:
    """Read all of one copy and compare it; a partial copy is compared as far as it goes."""
    tier = located.tier.name
    if located.head is None:
        return Verified(tier, ok=False, problems=(located.detail or located.state,))
    generation = located.head.generation
    copy = located.copy()
    try:
        records = copy.records()
        files = list(records.values())
        if located.state == PARTIAL:
            there = {f.path for f in located.tier.backend.list(located.folder)}
            files = [f for f in files if copy.path(f.path) in there]
        reporter.started("verify", name, sum(f.size for f in files))
        moved = Transfer([copy], None, reporter).compare(files)
    except (OSError, TieredStoreError) as error:
        return Verified(tier, ok=False, generation=generation, problems=(reason(error),))
    problems = tuple(p for found in moved.damaged.values() for p in found)
    return Verified(tier, not problems, generation, moved.size, problems)
