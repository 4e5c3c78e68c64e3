"""Compare what a tier holds with its manifest, byte for byte."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

from tieredstore.errors import TieredStoreError, TierUnavailable, reason
from tieredstore.moving.transfer import Transfer
from tieredstore.reporter import Reporter
from tieredstore.tiers.tier import DAMAGED, PARTIAL, UNREACHABLE, WHOLE, Located

REPAIRED, FAILED, READ_ONLY = "repaired", "failed", "read-only"
_TOLD: Final = 5  # lines about one copy that the reporter is told
_NO_ANSWER: Final = frozenset({errno.ESTALE, errno.ENOTCONN, errno.EACCES, errno.EPERM})


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of a damaged copy.

    Attributes
    ----------
    action : str
        ``repaired``, ``failed``, or ``read-only``: the tier is never written.
    detail : str
        Why it was not repaired, and what to do.
    taken, kept : int
        Bytes of the files put again that came from other tiers, and from the copy itself.
    """

    action: str
    detail: str = ""
    taken: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Verified:
    """What one tier's copy is worth.

    Attributes
    ----------
    tier : str
        The tier.
    ok : bool
        Every file that should be there is, and every byte matches; by now, where it was repaired.
    generation : str
        Empty where there is no head.
    size : int
        Bytes that were compared.
    problems : tuple of str
        What differs, or did before it was repaired, a line each.
    state : str
        What the tier said of it, see `Located`; only a ``whole``, ``partial`` or ``damaged`` copy
        can differ from a manifest.
    bad : tuple of str
        The files, or the shards of a packed copy, that differ.
    repair : Repair or None
        What became of the damage, where it was to be repaired.
    """

    tier: str
    ok: bool
    generation: str = ""
    size: int = 0
    problems: tuple[str, ...] = ()
    state: str = WHOLE
    bad: tuple[str, ...] = ()
    repair: Repair | None = None

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
        state = UNREACHABLE if _is_no_answer(error) else state
        return Verified(tier, ok=False, generation=generation, problems=(why,), state=state)
    problems = tuple(p for found in moved.damaged.values() for p in found)
    tell(reporter, tier, problems)
    bad = tuple(sorted(moved.bad.get(tier, ())))
    return Verified(tier, not problems, generation, moved.size, problems, state, bad)


def tell(reporter: Reporter, tier: str, problems: tuple[str, ...]) -> None:
    """Tell the reporter what differs in a copy; of very much the first few lines."""
    for problem in problems[:_TOLD]:
        reporter.corrupt(tier, problem)
    if len(problems) > _TOLD:
        reporter.corrupt(tier, f"and {len(problems) - _TOLD} more places")


def _is_no_answer(error: BaseException) -> bool:
    """Whether the place could not be read, so that nothing is known of the copy."""
    return isinstance(error, TierUnavailable) or (
        isinstance(error, OSError) and error.errno in _NO_ANSWER
    )
