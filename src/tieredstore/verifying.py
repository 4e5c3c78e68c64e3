"""Compare what a tier holds with its manifest, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass

from tieredstore.errors import TieredStoreError, reason
from tieredstore.reporter import Reporter
from tieredstore.tier import DAMAGED, PARTIAL, WHOLE, Located
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
    state : str
        What the tier said of it, see `Located`; only a ``whole``, ``partial`` or ``damaged`` copy
        can differ from a manifest.
    """

    tier: str
    ok: bool
    generation: str = ""
    size: int = 0
    problems: tuple[str, ...] = ()
    state: str = WHOLE

    @property
    def damaged(self) -> bool:
        """Whether this copy is not what its manifest says; one without any is not damaged."""
        return not self.ok and self.state in {WHOLE, PARTIAL, DAMAGED}


def verify_copy(located: Located, name: str, reporter: Reporter) -> Verified:
    """Read all of one copy and compare it; a partial copy is compared as far as it goes."""
    tier, state = located.tier.name, located.state
    if located.head is None:
        return Verified(tier, ok=False, problems=(located.detail or state,), state=state)
    generation = located.head.generation
    try:
        records = located.records()
        here = located.holding(records.files)
        files = [f for f in records.files.values() if f.path in here]
        reporter.started("verify", name, sum(f.size for f in files))
        moved = Transfer([located.copy(records)], None, reporter).compare(files)
    except (OSError, TieredStoreError) as error:
        why = reason(error)
        return Verified(tier, ok=False, generation=generation, problems=(why,), state=state)
    problems = tuple(p for found in moved.damaged.values() for p in found)
    for problem in problems:
        reporter.corrupt(tier, problem)
    return Verified(tier, not problems, generation, moved.size, problems, state)
