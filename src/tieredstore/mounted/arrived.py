"""Which blocks of files without a manifest have arrived in a stage, so that they need not again.

One file beside what is staged, written at its end only. An entry counts for nothing by itself:
whoever goes on with the stage reads the block and compares it with the digest that is noted.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from tieredstore.mounted import beneath
from tieredstore.mounted.staged import ARRIVED, Staged
from tieredstore.pinned import BlockLog

_ENTRY: Final = struct.Struct("<IQ16s")  # the file's number, the block's offset, its digest
_LONGEST: Final = 1 << 30  # bytes of a log that is read


class ArrivedBlocks(BlockLog):
    """The blocks that have arrived in one stage; several threads, and processes, may note some.

    Parameters
    ----------
    staged : Staged
        The stage; its generation says which files these are, and in which version.
    """

    def __init__(self, staged: Staged) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        with beneath.opened(staged.open("", make=True)) as home:
            self._fd = beneath.open_file(home, ARRIVED, flags)
        self._before = self._read()

    def _read(self) -> dict[int, dict[int, bytes]]:
        size = os.fstat(self._fd).st_size
        whole = size - size % _ENTRY.size
        if size != whole or size > _LONGEST:  # a write that was cut short by a full disk
            whole = 0 if size > _LONGEST else whole
            os.ftruncate(self._fd, whole)
        found: dict[int, dict[int, bytes]] = {}
        data, at = bytearray(whole), 0
        while at < whole and (got := os.preadv(self._fd, [memoryview(data)[at:]], at)):
            at += got
        for number, offset, digest in _ENTRY.iter_unpack(data[: at - at % _ENTRY.size]):
            found.setdefault(number, {})[offset] = digest
        return found

    def known(self, number: int) -> Mapping[int, bytes]:
        """See `BlockLog.known`."""
        return self._before.get(number, {})

    def add(self, number: int, blocks: Sequence[tuple[int, bytes]]) -> None:
        """See `BlockLog.add`."""
        data = b"".join(_ENTRY.pack(number, *block) for block in blocks)
        if os.write(self._fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """See `BlockLog.close`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            self.close()
