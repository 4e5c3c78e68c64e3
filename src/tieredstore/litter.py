"""What a place says of what is left over in it: the capability behind ``tieredstore gc``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

DAMAGED: Final = "damaged"
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Litter:
    """Something that no reader can reach any more, and that takes up space.

    Attributes
    ----------
    what : str
        On keyed places ``generation`` (a replaced or never published one) or ``upload`` (parts of
        one never ended). On mounted ones the area: ``stage``, ``part``, ``old``, ``swap``,
        ``fill``, ``lease``, ``space``, ``pins``, ``evict``, or ``sign`` (of a process that is
        dead) and ``temporary``. `DAMAGED` is dropped only when asked for, `UNKNOWN` never; ``job``
        is the folder of a job that has ended, and not below the place's root.
    path : str
        Where, below the place's root.
    size : int
        Bytes.
    since : float
        When it was last written to, or replaced, seconds since 1970 by the place's clock.
    token : str
        Which version of it was found, and what else the place needs to drop that one.
    """

    what: str
    path: str
    size: int
    since: float
    token: str = ""


class Collectable(ABC):
    """A place that can tell what is left over in it."""

    @abstractmethod
    def litter(self, grace: float) -> Iterator[Litter]:
        """What has been left over for more than ``grace`` seconds, and may be dropped.

        Never what a reader or a publication of the last ``grace`` seconds may still use.
        """

    @abstractmethod
    def drop(self, litter: Litter) -> int | None:
        """Drop it and give the bytes that were freed; ``None`` where it is gone, or now in use."""
