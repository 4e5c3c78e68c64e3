"""The digest of a stream that is read in order by somebody else."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import BinaryIO, cast

from datasets_prep.errors import DownloadError


class Summed(io.RawIOBase):
    """Hands on what is read, and sums it up.

    Parameters
    ----------
    source : file
        What is read.
    where : str
        How messages call it.
    sha256 : str
        What it has to have; empty where nobody knows.
    tell : callable, optional
        Told of each run of bytes.
    """

    def __init__(
        self, source: BinaryIO, where: str, sha256: str, tell: Callable[[int], None] | None = None
    ) -> None:
        self._source = source
        self._where = where
        self._wanted = sha256.lower()
        self._sum = hashlib.sha256()
        self._tell = tell

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: object) -> int:
        """Hand on bytes."""
        view = memoryview(cast(bytearray, buffer)).cast("B")
        data = self._source.read(len(view))
        view[: len(data)] = data
        if self._wanted:
            self._sum.update(data)
        if self._tell is not None:
            self._tell(len(data))
        return len(data)

    def seekable(self) -> bool:
        """Where nothing is compared, as the source is: a zip archive is not read in order."""
        return not self._wanted and self._source.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go elsewhere."""
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self._source.tell()

    def read_all(self) -> None:
        """Read it to its end, and compare."""
        while self.read(1 << 20):
            pass
        self.check()

    def check(self) -> None:
        """Compare, when all has been read.

        Raises
        ------
        DownloadError
            When it is another.
        """
        if self._wanted and self._sum.hexdigest() != self._wanted:
            found = self._sum.hexdigest()
            raise DownloadError(f"{self._where}: sha256 {found}, expected {self._wanted}")
