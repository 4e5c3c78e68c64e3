"""How far a corpus is: what processes tell, summed up, and the line that people see."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Tell = Callable[[int, int, int], None]  # documents, bytes of input, tokens: further ones


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one step is.

    Attributes
    ----------
    what : str
        The step, or the split.
    documents, tokens : int
        Done so far.
    done, total : int
        Bytes.
    seconds : float
        Since it began.
    new : int
        Tokens of these seconds.
    """

    what: str
    documents: int
    tokens: int
    done: int
    total: int
    seconds: float

    def __str__(self) -> str:
        seconds = max(self.seconds, 1e-3)
        share = min(self.done / self.total, 1.0) if self.total else 0.0
        left = seconds * (1 - share) / share if share else 0.0
        figures = [f"{self.documents:,} documents"] if self.documents else []
        figures += [f"{self.done / 1e6:,.0f} of {self.total / 1e6:,.0f} MB"]
        if self.tokens:
            figures.append(f"{self.tokens / seconds:,.0f} tokens/s")
        if share:
            figures.append(f"{_clock(left)} left")
        return f"{self.what}: {share:.0%}, {', '.join(figures)}"


class Told(Protocol):
    """Who is told."""

    def progressed(self, progress: Progress) -> None:
        """A step is further; said often."""


class Meter:
    """Sums up what is told of one step."""

    def __init__(self, what: str, total: int, told: Told) -> None:
        self._what = what
        self._total = total
        self._told = told
        self._since = time.monotonic()
        self._sums = [0, 0, 0]

    def __call__(self, documents: int, size: int, tokens: int) -> None:
        """So much more is done."""
        for n, more in enumerate((documents, size, tokens)):
            self._sums[n] += more
        seconds = time.monotonic() - self._since
        documents, done, tokens = self._sums
        self._told.progressed(Progress(self._what, documents, tokens, done, self._total, seconds))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
