"""Small values that many processes change: the capability behind ``store.record``.

A value is read with its version and written on the condition that it still is that version.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

MAX_VALUE: Final = 16 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Versioned:
    """What a record holds.

    Attributes
    ----------
    data : bytes
        The value.
    version : str
        What the place calls this version; to be given back to `Recordable.swap_record`.
    """

    data: bytes
    version: str


class Recordable(ABC):
    """A place that keeps small values which many processes change."""

    @abstractmethod
    def read_record(self, path: str) -> Versioned | None:
        """The newest version, or ``None`` where there is none."""

    @abstractmethod
    def swap_record(self, path: str, data: bytes, version: str | None) -> None:
        """Write the version that comes after ``version``, or the first one for ``None``.

        Raises
        ------
        HeadConflict
            When somebody else has written meanwhile; nothing has been changed.
        """
