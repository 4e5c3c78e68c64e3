"""What a check says, as it goes from the process that tried it to the one that shows it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tieredstore.errors import reason

GOOD, NOTE, BAD = "good", "note", "bad"
Value = bool | float | str | None
_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found.

    Attributes
    ----------
    check : str
        What was tried, the same word on every place.
    result : str
        What happened, in a few words.
    meaning : str
        What that means for the store.
    state : str
        ``good``; ``note``: works, with a difference worth knowing; ``bad``: the tier cannot be
        used as it is configured.
    value : bool, float, str or None
        The result for a program: what a tool or the advice looks at.
    """

    check: str
    result: str
    meaning: str = ""
    state: str = GOOD
    value: Value = None

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Finding:
        """What `asdict` made of one."""
        return cls(**{str(key): value for key, value in row.items()})


@dataclass(frozen=True, slots=True)
class Place:
    """One tier as the checks need to know it.

    Attributes
    ----------
    tier : str
        Its name.
    kind : str
        The name of its backend's class.
    place : str
        A path or a URL without credentials.
    mounted : bool
        Whether it is a folder.
    durable, read_only : bool
        Its policy.
    deadline : float
        Seconds.
    keeps_free : bool
        Whether ``min_free`` is set.
    first : bool
        The tier that work reads from.
    """

    tier: str
    kind: str
    place: str
    mounted: bool
    durable: bool = False
    read_only: bool = False
    deadline: float = 30.0
    keeps_free: bool = False
    first: bool = False


@dataclass(frozen=True, slots=True)
class Examined:
    """What all checks of one place have found; ``usable`` as it is configured."""

    place: Place
    findings: tuple[Finding, ...]

    @property
    def usable(self) -> bool:
        """Whether nothing that was found keeps the store from using it."""
        return all(found.state != BAD for found in self.findings)

    def value(self, check: str) -> Value:
        """What a check has found; ``None`` where it was not done."""
        return next((f.value for f in self.findings if f.check == check), None)


@dataclass(frozen=True, slots=True)
class Check:
    """Something that can be tried: its name, how, and how long it may take (0: as long as any)."""

    name: str
    run: Callable[[], Finding | list[Finding]]
    seconds: float = 0.0

    def findings(self) -> list[Finding]:
        """Try it; what is raised is a finding too."""
        try:
            found = self.run()
        except Exception as error:  # noqa: BLE001 - whatever a place does is what is asked for
            return [Finding(self.name, "failed", reason(error), NOTE, None)]
        return found if isinstance(found, list) else [found]


@dataclass(slots=True)
class Report:
    """Everything that a run has found."""

    machine: tuple[Finding, ...]
    tiers: list[Examined] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether every tier can be used."""
        return all(tier.usable for tier in self.tiers)

    def document(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return {
            "machine": [asdict(found) for found in self.machine],
            "tiers": [
                {
                    "tier": examined.place.tier,
                    "place": examined.place.place,
                    "usable": examined.usable,
                    "findings": [asdict(found) for found in examined.findings],
                }
                for examined in self.tiers
            ],
            "advice": list(self.advice),
        }


def milliseconds(seconds: float) -> str:
    """A short time, such as ``0.25 ms``."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def median_of(action: Callable[[], float], times: int = _TRIES) -> float:
    """The median of what ``action`` gives."""
    found = sorted(action() for _ in range(times))
    return found[len(found) // 2]


def exists(path: str) -> bool:
    """Whether anything lies at a path, a dangling link too."""
    return os.path.lexists(path)
