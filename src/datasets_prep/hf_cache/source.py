"""A data file that a cache is built from: where it is, what it holds, whether it has changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, Self

import xxhash

from datasets_prep.errors import SourceError

_PIECE: Final = 1 << 20  # bytes to hash at once


@dataclass(frozen=True, slots=True)
class Source:
    """A local file, as it was when it was looked at.

    Attributes
    ----------
    path : str
        Absolute; links in it are not followed, because ``datasets`` does not either.
    size : int
        Bytes.
    mtime_ns, ctime_ns : int
        When its bytes, and anything about it, changed, in nanoseconds since 1970.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Self:
        """Look at a file.

        Raises
        ------
        SourceError
            When it is missing, or no file.
        """
        path = os.path.abspath(os.path.expanduser(path))
        try:
            found = os.stat(path)
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}; expected a data file") from None
        if not os.path.isfile(path):
            raise SourceError(f"{path}: no file; expected a data file")
        return cls(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def digest(self) -> str:
        """128-bit XXH3 of its bytes: ``xxh3-128:`` and 32 hexadecimal digits.

        Raises
        ------
        SourceError
            When it cannot be read, or changes meanwhile.
        """
        hasher = xxhash.xxh3_128()
        try:
            with open(self.path, "rb", buffering=0) as file:
                piece = bytearray(_PIECE)
                while count := file.readinto(piece):
                    hasher.update(memoryview(piece)[:count])
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read: {error.strerror}") from None
        self.check()
        return f"xxh3-128:{hasher.hexdigest()}"

    def check(self) -> None:
        """Make sure that it is what it was.

        Raises
        ------
        SourceError
            When it is not.
        """
        if type(self).of(self.path) != self:
            raise SourceError(f"{self.path}: changed while it was read; run it again")
