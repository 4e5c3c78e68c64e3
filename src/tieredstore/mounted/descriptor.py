"""A regular file that is held open: read by position, and compared with what it should be."""

from __future__ import annotations

import os
from contextlib import suppress

from tieredstore.backend import FileReader
from tieredstore.manifest.records import FileRecord, block_digest


class DescriptorReader(FileReader):
    """A regular file read by position."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        done = 0
        while done < len(buffer):
            got = os.preadv(self._fd, [buffer[done:]], offset + done)
            if got == 0:
                break
            done += got
        return done

    def fileno(self) -> int:
        """The descriptor, which stays this reader's."""
        return self._fd

    def stat(self) -> os.stat_result:
        """Stat the open file."""
        return os.fstat(self._fd)

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):  # who makes it may be interrupted
            self.close()


def matches(reader: DescriptorReader, file: FileRecord) -> bool:
    """Whether an open file has the bytes that a record names."""
    if reader.stat().st_size != file.size:
        return False
    longest = max((b.length for b in file.blocks()), default=0)
    buffer = memoryview(bytearray(longest))
    for block in file.blocks():
        view = buffer[: block.length]
        if reader.readinto(block.offset, view) != block.length:
            return False
        if block_digest(view) != block.digest:
            return False
    return True
