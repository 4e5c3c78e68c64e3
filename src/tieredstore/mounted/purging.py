"""What a place says of files that others delete there when nobody has used them for long.

The capability behind ``tieredstore refresh`` and the times that ``status`` shows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from tieredstore.manifest.artifact import Head

DAY = 86400.0  # seconds


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What became of one copy's files.

    Attributes
    ----------
    files : int
        How many there are now, the manifest's included.
    stale : int
        How many of them count as unused still: they belong to others, on a mount that does not
        note when a file is read.
    expires : float
        When the first of them may be deleted, seconds since 1970.
    """

    files: int
    stale: int
    expires: float


class Purged(ABC):
    """A place in which files are deleted that nobody has used for some days.

    Attributes
    ----------
    purge_days : float
        Days; 0 where nothing is deleted.
    """

    purge_days: float = 0

    @abstractmethod
    def expires(self, folder: str, head: Head) -> float:
        """When the first file of a copy may be deleted, seconds since 1970.

        Raises
        ------
        FileNotFoundError
            When the copy is gone.
        """

    @abstractmethod
    def refresh(self, folder: str, head: Head) -> Refreshed:
        """Use all files of a copy, so that they stay; their times of modification stay too.

        Raises
        ------
        FileNotFoundError
            When the copy is gone.
        """
