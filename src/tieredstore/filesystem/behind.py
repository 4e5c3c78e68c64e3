"""A shelf that is written to in a thread: who reads goes on while a block is put on the disk."""

from __future__ import annotations

import os
import queue
import threading
from contextlib import suppress
from typing import Final

from tieredstore.filesystem.blocks import Shelf
from tieredstore.manifest.records import Block

_MOST: Final = 32 << 20  # bytes of blocks that wait to be written

_Kept = tuple[int, Block, memoryview]


class Behind:
    """Blocks that are here, or on their way to a shelf; used by one thread.

    Parameters
    ----------
    shelf : Shelf
        Where they are put; it is taken over.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._waiting: dict[int, tuple[Block, memoryview]] = {}  # what is in memory serves reads
        self._size = 0
        self._room = threading.Condition()
        self._tasks: queue.SimpleQueue[_Kept | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._process = 0
        self._error: OSError | None = None

    def known(self, number: int) -> bool:
        """See `Shelf.known`."""
        return number in self._waiting or self._shelf.known(number)

    def has(self, number: int, block: Block) -> bool:
        """See `Shelf.has`."""
        return number in self._waiting or self._shelf.has(number, block)

    def readinto(self, offset: int, view: memoryview) -> int:
        """See `Shelf.readinto`."""
        end = offset + len(view)
        for block, data in list(self._waiting.values()):
            if block.offset <= offset < block.offset + block.length:
                part = data[offset - block.offset :][: len(view)]
                view[: len(part)] = part
                return len(part)
            if offset < block.offset < end:
                end = block.offset
        return self._shelf.readinto(offset, view[: end - offset])

    def keep(self, number: int, block: Block, data: memoryview) -> None:
        """See `Shelf.keep`; what went wrong behind is raised by the next one."""
        self._go_on()
        with self._room:
            while self._size >= _MOST and self._error is None:
                self._room.wait()
            if self._error is not None:
                raise self._error
            self._waiting[number] = block, data
            self._size += block.length
        self._tasks.put((number, block, data))

    @property
    def whole(self) -> bool:
        """See `Shelf.whole`; waits until all has been written."""
        self._settle()
        return self._error is None and self._shelf.whole

    def close(self) -> None:
        """See `Shelf.close`; waits until all has been written."""
        self._settle()
        self._waiting.clear()
        self._shelf.close()

    def _go_on(self) -> None:
        """Have a thread in this process; that of the process it was forked from is not here."""
        if self._thread is not None and self._process != os.getpid():
            self._room, self._thread = threading.Condition(), None
            self._tasks, left = queue.SimpleQueue(), self._waiting
            self._waiting, self._size = {}, 0
            for number, (block, data) in left.items():
                self._shelf.keep(number, block, data)
        if self._thread is None:
            self._process = os.getpid()
            self._thread = threading.Thread(target=self._work, name="tieredstore-kept", daemon=True)
            self._thread.start()

    def _settle(self) -> None:
        if self._thread is None:
            return
        if self._process != os.getpid():
            with suppress(OSError):
                self._go_on()
        self._tasks.put(None)
        self._thread.join()
        self._thread = None

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            number, block, data = task
            try:
                if self._error is None:
                    self._shelf.keep(number, block, data)
            except OSError as error:
                self._error = error
            with self._room:
                if self._error is None:  # else it stays in memory: it was promised to be here
                    self._waiting.pop(number, None)
                self._size -= block.length
                self._room.notify_all()
