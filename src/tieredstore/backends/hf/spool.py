"""One file's bytes between being written here and being sent: in memory, or in a file without name.

A large file's SHA-256 has to be known before the Hub takes its first byte, so it is kept whole for
that time. The file on disk has no name, so nothing of it outlives the process.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Final

IN_MEMORY: Final = 1 << 20  # bytes; a larger file goes to disk
_PIECE: Final = 1 << 20


class Spool:
    """Bytes written in order, digested while they come, and read any number of times.

    Parameters
    ----------
    size : int
        How many bytes there will be.

    Attributes
    ----------
    on_close : callable or None
        Called once, when the bytes are dropped.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._sum = hashlib.sha256()
        self._bytes = bytearray()
        self._file = -1
        self.on_close: Callable[[], None] | None = None
        self._at = 0
        if size > IN_MEMORY:
            self._file = _nameless()

    def write(self, data: memoryview) -> None:
        """Take the next bytes.

        Raises
        ------
        OSError
            When the disk is full; names the folder.
        """
        self._sum.update(data)
        if self._file < 0:
            self._bytes += data
            return
        while len(data):
            try:
                got = os.pwrite(self._file, data, self._at)
            except OSError as error:
                folder = tempfile.gettempdir()
                raise OSError(error.errno, os.strerror(error.errno or 0), folder) from None
            self._at += got
            data = data[got:]

    @property
    def sha256(self) -> str:
        """Digest of what was written."""
        return self._sum.hexdigest()

    def read(self, offset: int, size: int) -> bytes:
        """Some of the bytes."""
        if self._file < 0:
            return bytes(self._bytes[offset : offset + size])
        return os.pread(self._file, size, offset)

    def pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """A range of the bytes, piece by piece."""
        end = min(offset + size, self.size)
        while offset < end:
            piece = self.read(offset, min(_PIECE, end - offset))
            if not piece:
                raise OSError(f"the spooled file ends at byte {offset} of {self.size}")
            yield piece
            offset += len(piece)

    def path_or_bytes(self) -> str | bytes:
        """What a library takes that opens files itself."""
        return bytes(self._bytes) if self._file < 0 else f"/proc/self/fd/{self._file}"

    def close(self) -> None:
        """Drop the bytes."""
        self._bytes = bytearray()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        done, self.on_close = self.on_close, None
        if done is not None:
            done()

    def __del__(self) -> None:
        self.close()


def _nameless() -> int:
    """A file that is removed with its last descriptor, whatever happens to the process."""
    folder = tempfile.gettempdir()
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # a file system that has no such files
        descriptor, path = tempfile.mkstemp(prefix="tieredstore-", dir=folder)
        os.unlink(path)
        return descriptor
