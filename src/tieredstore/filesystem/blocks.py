"""A file of a lower tier that is read block by block: fetched when needed, verified, and kept."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Protocol, cast

from tieredstore.errors import TierTimeout, TierUnavailable, reason
from tieredstore.manifest.records import ENTRY, Block, FileRecord
from tieredstore.moving.fetching import Copies, Copy
from tieredstore.reporter import Reporter
from tieredstore.seeking import Positioned
from tieredstore.workers import Watch, patience, within

_AHEAD: Final = 16 << 20  # bytes that are fetched at once of a file that is read in order
_HELD: Final = 32 << 20  # bytes of blocks that stay in memory where none are kept on the disk


class Shelf(Protocol):
    """Where blocks are that have been fetched."""

    def known(self, number: int) -> bool:
        """Whether a block is known to be here."""

    def has(self, number: int, block: Block) -> bool:
        """Whether a block is here."""

    def readinto(self, offset: int, view: memoryview) -> int:
        """Fill ``view`` from blocks that are here; fewer bytes where the next one is not."""

    def keep(self, number: int, block: Block, data: memoryview) -> None:
        """Keep a verified block; `OSError` where that cannot be done."""

    @property
    def whole(self) -> bool:
        """Whether all blocks are here."""

    def close(self) -> None:
        """Let go of what is held."""


class MemoryShelf:
    """The blocks that were read last, in memory."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, tuple[int, bytes]] = OrderedDict()
        self._size = 0
        self.whole = False

    def known(self, number: int) -> bool:
        """See `Shelf.known`."""
        return number in self._blocks

    def has(self, number: int, block: Block) -> bool:
        """See `Shelf.has`."""
        del block
        return number in self._blocks

    def readinto(self, offset: int, view: memoryview) -> int:
        """See `Shelf.readinto`."""
        for begin, data in self._blocks.values():
            if begin <= offset < begin + len(data):
                part = data[offset - begin : offset - begin + len(view)]
                view[: len(part)] = part
                return len(part)
        return 0

    def keep(self, number: int, block: Block, data: memoryview) -> None:
        """See `Shelf.keep`."""
        self._blocks[number] = (block.offset, bytes(data))
        self._size += block.length
        while self._size > _HELD and len(self._blocks) > 1:
            _, (_, gone) = self._blocks.popitem(last=False)
            self._size -= len(gone)

    def close(self) -> None:
        """See `Shelf.close`."""
        self._blocks.clear()


class Fetch:
    """Blocks of one file from the first copy of its generation that gives them right."""

    def __init__(self, copies: Sequence[Copy], record: FileRecord, reporter: Reporter) -> None:
        self._copies = Copies(copies, reporter, Watch())
        self._record = record
        self.request = max(min(self._copies.request, _AHEAD), 1)

    def __call__(self, blocks: list[Block]) -> memoryview:
        """The bytes of neighbouring blocks, verified.

        Raises
        ------
        CorruptData, TierUnavailable
            When no copy gives them.
        """
        view = memoryview(bytearray(sum(block.length for block in blocks)))
        while self._copies.alive:
            tier = self._copies.first
            seconds = patience(self._copies.deadline(tier), len(view))
            call = partial(self._copies.fetch, self._record, blocks, view)
            try:
                within(seconds, call, f"tier {tier!r}")
            except TierTimeout as error:
                self._copies.fail(tier, reason(error))
                view = memoryview(bytearray(len(view)))  # the late one may still write to the old
            else:
                return view
        why = "; ".join(self._copies.failed.values()) or "no copy is left"
        raise TierUnavailable(f"{self._record.path}: {why}")

    def close(self) -> None:
        """Let go of the copies."""
        self._copies.close()


class BlockFile(Positioned):
    """One file, read through a shelf.

    Parameters
    ----------
    record : FileRecord
        The file.
    shelf : Shelf
        Where its blocks are kept.
    fetch : Fetch
        Where those come from that are not there.
    """

    def __init__(self, record: FileRecord, shelf: Shelf, fetch: Fetch) -> None:
        super().__init__(record.size)
        self._record = record
        self._shelf: Shelf = shelf
        self._fetch = fetch
        self._ends = _ends(record)
        self._end = 0  # of the last read
        self._streak = 0  # bytes read one after the other

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._record.size

    def readinto(self, buffer: object) -> int:
        """Verified bytes, at most as far as blocks lie here one after the other."""
        view = memoryview(cast(bytearray, buffer)).cast("B")
        view = view[: max(0, self.size - self._at)]
        if not view:
            return 0
        number = bisect_right(self._ends, self._at)
        if not self._shelf.known(number) and not self._shelf.has(number, self._block(number)):
            self._bring(number, self._at + len(view))
        got = self._shelf.readinto(self._at, view[: self._lying(number, len(view))])
        self._streak = self._streak + got if self._at == self._end else got
        self._at = self._end = self._at + got
        return got

    @property
    def whole(self) -> bool:
        """Whether all blocks are kept, so that it could be restored without fetching."""
        return self._shelf.whole

    def close(self) -> None:
        """Let go of copies and shelf."""
        if not self.closed:
            self._fetch.close()
            self._shelf.close()
        super().close()

    def _block(self, number: int) -> Block:
        begin = self._ends[number - 1] if number else 0
        at = number * ENTRY
        digest = self._record.table[at + 4 : at + ENTRY]
        return Block(begin, self._ends[number] - begin, digest)

    def _lying(self, number: int, wanted: int) -> int:
        """Bytes from here on that are known to be here, up to as many as wanted."""
        until = self._at + wanted
        while (
            self._ends[number] < until
            and number + 1 < len(self._ends)
            and self._shelf.known(number + 1)
        ):
            number += 1
        return min(until, self._ends[number]) - self._at

    def _bring(self, number: int, until: int) -> None:
        """Fetch a block, and those after it that are asked for too, or soon will be."""
        if self._at == self._end:
            until = max(until, self._at + min(_AHEAD, self._streak))
        blocks = [self._block(number)]
        size = blocks[0].length
        for other in range(number + 1, len(self._ends)):
            block = self._block(other)
            size += block.length
            if block.offset >= until or size > self._fetch.request or self._shelf.has(other, block):
                break
            blocks.append(block)
        data = self._fetch(blocks)
        start = blocks[0].offset
        self._keep(
            [
                (number + count, block, data[block.offset - start :][: block.length])
                for count, block in enumerate(blocks)
            ]
        )

    def _keep(self, fetched: Sequence[tuple[int, Block, memoryview]]) -> None:
        try:
            for each in fetched:
                self._shelf.keep(*each)
        except OSError:  # no room, or a restore has taken the pair: what is fetched is read once
            with suppress(OSError):
                self._shelf.close()
            self._shelf = MemoryShelf()
            for each in fetched:
                self._shelf.keep(*each)


def _ends(record: FileRecord) -> array[int]:
    lengths = memoryview(record.table)
    ends = array("q")
    at = 0
    for begin in range(0, len(lengths), ENTRY):
        at += int.from_bytes(lengths[begin : begin + 4], "little")
        ends.append(at)
    return ends
