"""Which parts a file is put together of inside a bucket: what is copied there, what is sent.

Nothing here asks a server. Limits are those of the S3 API reference: a multipart upload has at
most 10,000 parts of 5 MiB to 5 GiB, the last one may be shorter, and a range is copied only from
an object of more than 5 MiB.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Final

from tieredstore.backend import Segment
from tieredstore.manifest.records import ENTRY, Block, FileRecord

LEAST: Final = 5 << 20  # bytes of a part that is not the last one
MOST_PARTS: Final = 10_000
_RANGE: Final = 256 << 20  # bytes copied by one request: answered well before a client gives up
_RANGES: Final = 5_000  # about so many requests at most for one file
_SENT: Final = 16 << 20  # bytes from which on small segments are no longer gathered


class BlockTable:
    """The blocks of a file, looked up by where they end; eight bytes for each."""

    def __init__(self, file: FileRecord) -> None:
        self._file = file
        self._ends = array("Q", accumulate(block.length for block in file.blocks()))

    def end_from(self, offset: int) -> int:
        """The first end of a block at ``offset`` or behind it; the file's end where none is."""
        at = bisect_left(self._ends, offset)
        return self._ends[at] if at < len(self._ends) else self._file.size

    def within(self, offset: int, length: int) -> Iterator[Block]:
        """The blocks of a run that begins and ends with a block; counted from its beginning."""
        first = bisect_right(self._ends, offset)
        last = bisect_right(self._ends, offset + length)
        table = self._file.table[first * ENTRY : last * ENTRY]
        return replace(self._file, table=table).blocks()


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """One part of the file that comes out.

    Attributes
    ----------
    offset : int
        Where it begins in that file.
    segments : tuple of Segment
        What it is made of, one after the other.
    copied : bool
        The server copies it, from its one segment; otherwise its bytes are read and sent.
    """

    offset: int
    segments: tuple[Segment, ...]
    copied: bool

    @property
    def length(self) -> int:
        """Bytes of the part."""
        return sum(segment.length for segment in self.segments)


def plan(segments: Sequence[Segment], blocks: BlockTable) -> list[PlannedPart]:
    """Cut a file into parts, of which the server copies as many bytes as it can.

    A segment of 5 MiB or more is copied, in ranges of equal length where it is long. Shorter ones
    are gathered and sent; where what was gathered before a long segment is no part yet, the long
    one's first blocks are sent with it, so that whatever is sent can be compared with its blocks.

    Parameters
    ----------
    segments : sequence of Segment
        What the file is made of, none of them empty.
    blocks : BlockTable
        The file's blocks; a segment begins and ends with one.

    Returns
    -------
    list of PlannedPart
        In order; each but the last has at least 5 MiB.
    """
    size = sum(segment.length for segment in segments)
    longest = max(_RANGE, -(-size // _RANGES))
    parts: list[PlannedPart] = []
    gathered: list[Segment] = []
    begin = at = 0  # of what is gathered, of this segment
    for segment in segments:
        end = at + segment.length
        start = at  # of what can be copied
        if 0 < at - begin < LEAST:
            start = min(blocks.end_from(begin + LEAST), end)
        last_alone = end == size and not gathered and segment.whole
        if end - start >= LEAST or last_alone:
            first, rest = _cut(segment, start - at)
            if first.length:
                gathered.append(first)
            parts.extend(_sent(begin, gathered))
            parts.extend(_copied(start, rest, longest))
            gathered, begin = [], end
        else:
            gathered.append(segment)
            if end - begin >= _SENT:
                parts.extend(_sent(begin, gathered))
                gathered, begin = [], end
        at = end
    return parts + _sent(begin, gathered)


def _cut(segment: Segment, at: int) -> tuple[Segment, Segment]:
    rest = replace(segment, offset=segment.offset + at, length=segment.length - at)
    return replace(segment, length=at), rest


def _sent(offset: int, segments: Sequence[Segment]) -> list[PlannedPart]:
    return [PlannedPart(offset, tuple(segments), copied=False)] if segments else []


def _copied(offset: int, segment: Segment, longest: int) -> Iterator[PlannedPart]:
    count = -(-segment.length // longest)
    cuts = [segment.length * n // count for n in range(count + 1)]
    for begin, end in pairwise(cuts):
        part = replace(segment, offset=segment.offset + begin, length=end - begin)
        yield PlannedPart(offset + begin, (part,), copied=True)
