"""What happens, told to whoever wants to know. Every method does nothing by default.

A user interface subclasses :class:`Reporter` and overrides what it wants to show; the library
itself never prints. Methods may be called from several threads at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

_DONE_TO: Final = {"build": "built", "populate": "copied", "verify": "verified", "evict": "evicted"}


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody else works on an artifact, and this process waits for it.

    Attributes
    ----------
    name : str
        The artifact.
    verb : str
        What the other does: ``build``, ``restore``, ``populate``, ``promote``, …
    holder : str
        Who it is, in words: ``process 4711 on node3``; ``another process`` where nobody says.
    waited : float
        Seconds that this process has waited so far.
    seconds : float or None
        How long the other has been at it, where it says so; no clock of its machine counts.
    done, total : int
        How much is done of how much, bytes or what the builder counts; 0 of 0 where nobody says.
    text : str
        A word of the other's on what it is at.
    """

    name: str
    verb: str
    holder: str
    waited: float = 0.0
    seconds: float | None = None
    done: int = 0
    total: int = 0
    text: str = ""

    @property
    def since(self) -> float | None:
        """When the other began, by this machine's clock, in seconds since 1970."""
        return None if self.seconds is None else time.time() - self.seconds

    @property
    def share(self) -> float | None:
        """How much is done, from 0 to 1, where that is known."""
        return min(self.done / self.total, 1.0) if self.total > 0 else None

    def __str__(self) -> str:
        """One line: what is waited for, who has it, since when and how far it is."""
        said = f"{self.name}: {_DONE_TO.get(self.verb, f'{self.verb}d')} by {self.holder}"
        if self.since is not None and self.seconds is not None:
            clock = time.strftime("%H:%M:%S", time.localtime(self.since))
            said += f" since {clock} ({duration(self.seconds)})"
        share = "" if self.share is None else f"{self.share:.0%}".replace("%", " %")
        return ", ".join(part for part in (said, share, self.text) if part)


class Reporter:
    """Receives what an operation does; base class and silent default."""

    def hit(self, name: str, tier: str) -> None:
        """The first tier already holds the artifact."""

    def located(self, name: str, tier: str, path: str) -> None:
        """A lower tier holds the artifact, at ``path`` in that tier's own terms."""

    def started(self, verb: str, name: str, size: int) -> None:
        """``size`` bytes are about to be moved or read for ``verb``."""

    def advanced(self, size: int) -> None:
        """A further ``size`` bytes are done and verified."""

    def copied(self, file: str, source: str, target: str) -> None:
        """One file is whole in the tier ``target``, taken from the tier ``source``."""

    def finished(self, verb: str, name: str, path: str) -> None:
        """``verb`` is done; ``path`` is where the result lies."""

    def skipped(self, tier: str, why: str) -> None:
        """A tier could not serve and the operation went on without it."""

    def corrupt(self, tier: str, what: str) -> None:
        """A copy differs from its manifest; it was not served."""

    def adopted(self, name: str, tier: str) -> None:
        """Data without a manifest was accepted; its recipe is unknown."""

    def waiting(self, name: str, holder: str) -> None:
        """Somebody else works on the artifact; called again while the wait lasts."""

    def waits(self, wait: Wait) -> None:
        """The same with all that is known of it; calls `waiting` unless it is overridden."""
        self.waiting(wait.name, f"{wait.holder}, for {wait.waited:.0f} s so far")

    def evicted(self, name: str, tier: str, size: int) -> None:
        """A copy of ``size`` bytes was dropped from a tier, to make room for what comes there."""

    def promoted(self, name: str, tier: str, action: str, detail: str) -> None:
        """``tier`` took the artifact or not: ``copied``, ``present``, ``refused`` or ``failed``."""


class Relay(Reporter):
    """Tells another reporter everything; a base for those that look at some of it."""

    def __init__(self, to: Reporter) -> None:
        self._to = to


def _relayed(name: str) -> Callable[..., None]:
    def tell(self: Relay, *args: Any) -> None:
        getattr(self._to, name)(*args)

    return tell


for _name in [name for name in vars(Reporter) if not name.startswith("_")]:
    setattr(Relay, _name, _relayed(_name))

SILENT = Reporter()


def duration(seconds: float) -> str:
    """Seconds for people: ``3 h``."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
