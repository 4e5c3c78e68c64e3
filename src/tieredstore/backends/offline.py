"""A place that this process may not ask, in the stead of the one that it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from tieredstore.backend import FileReader, FileStat, FoundHead, Publishable, Readable, Staging
from tieredstore.errors import TierUnavailable
from tieredstore.manifest.artifact import Head


class OfflineBackend(Readable, Publishable):
    """Fails at once whatever it is asked; the place itself is out of its reach.

    Parameters
    ----------
    place : str
        How messages call it.
    why : str
        What each question is answered with.
    """

    def __init__(self, place: str, why: str) -> None:
        self.place = place
        self._why = why

    def _refuse(self) -> NoReturn:
        raise TierUnavailable(self._why)

    def stat(self, path: str) -> FileStat:  # noqa: ARG002
        """See `Readable.stat`."""
        self._refuse()

    def open(self, path: str) -> FileReader:  # noqa: ARG002
        """See `Readable.open`."""
        self._refuse()

    def list(self, folder: str) -> Iterator[FileStat]:  # noqa: ARG002
        """See `Readable.list`."""
        self._refuse()

    def read_head(self, folder: str) -> FoundHead | None:  # noqa: ARG002
        """See `Readable.read_head`."""
        self._refuse()

    def begin(self, folder: str, head: Head) -> Staging:  # noqa: ARG002
        """See `Publishable.begin`."""
        self._refuse()

    def remove(self, folder: str, head: Head) -> None:  # noqa: ARG002
        """See `Publishable.remove`."""
        self._refuse()

    def set_aside(self, folder: str, head: Head) -> str:  # noqa: ARG002
        """See `Publishable.set_aside`."""
        self._refuse()
