"""Tokens of shards to final files, in the order of the splits.

Documents are read from the shards by their places, and written by several processes, each at its
own offsets; memory holds a few numbers for each document where these are shuffled, else only for
those of the shards in which a split begins or ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from datasets_prep.corpora.shards import LENGTH_TYPE, LENGTHS, TOKENS, Setting
from datasets_prep.corpora.telling import Tell
from datasets_prep.errors import PrepError
from datasets_prep.splits import Order, Run, Shuffled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

_TASK: Final = 16 << 20  # bytes that one process writes before it is asked for more
_BUFFER: Final = 4 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Standing:
    """A shard in the first tier: its folder, and what it has."""

    folder: Path
    documents: int
    tokens: int


class Gathering:
    """Where in which shard the tokens of each document lie.

    Parameters
    ----------
    shards : sequence of Standing
        In the order of their documents.
    width : int
        Bytes of a token.
    """

    def __init__(self, shards: Sequence[Standing], width: int) -> None:
        import numpy as np

        self._shards = shards
        self._width = width
        self._firsts = np.cumsum([0, *(shard.documents for shard in shards)])

    def tokens(self, order: Order) -> int:
        """How many tokens the documents of a split have."""
        if isinstance(order, Shuffled):
            return int(self._lengths[order.numbers].sum(dtype="i8"))
        return sum(end - start for _, start, end in self._spans(order)) // self._width

    def tasks(self, order: Order, file: Path) -> Iterator[Write]:
        """What has to be done to write a split, in parts that do not depend on one another."""
        folders = [str(shard.folder) for shard in self._shards]
        at = 0
        parts = self._drawn(order) if isinstance(order, Shuffled) else self._runs(order)
        for shards, starts, sizes in parts:
            yield Write(folders, str(file), at, shards, starts, sizes)
            at += int(sizes.sum())

    # -- shuffled -------------------------------------------------------------------------------

    @cached_property
    def _lengths(self) -> NDArray[np.uint32]:
        """Tokens of every document."""
        import numpy as np

        return np.concatenate([_lengths(shard) for shard in self._shards])

    @cached_property
    def _starts(self) -> Numbers:
        """The first token of every document, counted over all shards."""
        import numpy as np

        starts = np.zeros(len(self._lengths), "i8")
        np.cumsum(self._lengths[:-1], out=starts[1:])
        return starts

    def _drawn(self, order: Shuffled) -> Iterator[tuple[Any, Any, Any]]:
        import numpy as np

        tokens = sum(shard.tokens for shard in self._shards)
        each = max(tokens * self._width // max(len(self._lengths), 1), 1)
        step = max(_TASK // each, 1)
        firsts = np.cumsum([0, *(shard.tokens for shard in self._shards)])
        for begin in range(0, len(order), step):
            numbers = order.numbers[begin : begin + step]
            shards = np.searchsorted(self._firsts, numbers, "right") - 1
            starts = (self._starts[numbers] - firsts[shards]) * self._width
            yield shards.astype("u4"), starts, self._lengths[numbers].astype("i8") * self._width

    # -- in order -------------------------------------------------------------------------------

    def _runs(self, run: Run) -> Iterator[tuple[Any, Any, Any]]:
        import numpy as np

        for shard, start, end in self._spans(run):
            for begin in range(start, end, _TASK):
                size = min(_TASK, end - begin)
                yield np.array([shard], "u4"), np.array([begin], "i8"), np.array([size], "i8")

    def _spans(self, run: Run) -> Iterator[tuple[int, int, int]]:
        """The bytes of each shard that belong to a run: shard, first byte, end."""
        for number, shard in enumerate(self._shards):
            first = int(self._firsts[number])
            start, end = max(run.start - first, 0), min(run.end - first, shard.documents)
            if start >= end:
                continue
            edges = [0, shard.tokens]
            if (start, end) != (0, shard.documents):
                lengths = _lengths(shard)
                edges = [int(lengths[:n].sum(dtype="i8")) for n in (start, end)]
            yield number, edges[0] * self._width, edges[1] * self._width


@dataclass(frozen=True, slots=True)
class Write:
    """A range of a final file: which bytes of which shards, one after the other.

    Attributes
    ----------
    folders : list of str
        All shards'.
    file : str
        Is there already, as large as it will be.
    at : int
        The first byte of the range.
    shards, starts, sizes : numpy.ndarray
        From which shard, from which byte on, and how many.
    """

    folders: list[str]
    file: str
    at: int
    shards: NDArray[np.uint32]
    starts: Numbers
    sizes: Numbers

    def run(self, setting: Setting, tell: Tell) -> int:
        """Write it."""
        del setting
        opened: dict[int, int] = {}
        with ExitStack() as files:
            target = files.enter_context(_Buffered(self.file, self.at))
            ranges = zip(
                self.shards.tolist(), self.starts.tolist(), self.sizes.tolist(), strict=True
            )
            for shard, start, size in ranges:
                if shard not in opened:
                    path = os.path.join(self.folders[shard], TOKENS)
                    opened[shard] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    files.callback(os.close, opened[shard])
                target.copy(opened[shard], start, size)
        total = int(self.sizes.sum())
        tell(0, total, 0)
        return total


class _Buffered:
    """Writes to a file from an offset on, a buffer at a time."""

    def __init__(self, path: str, at: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._path = path
        self._at = at
        self._buffer = memoryview(bytearray(_BUFFER))
        self._used = 0

    def copy(self, source: int, start: int, size: int) -> None:
        """Put so many bytes of another file in."""
        while size:
            part = self._buffer[self._used : self._used + size]
            count = os.preadv(source, [part], start)
            if not count:
                raise PrepError("a shard is shorter than its manifest says; run the command again")
            self._used += count
            start += count
            size -= count
            if self._used == len(self._buffer):
                self._flush()

    def _flush(self) -> None:
        rest = self._buffer[: self._used]
        while rest:
            count = os.pwrite(self._file, rest, self._at)
            self._at += count
            rest = rest[count:]
        self._used = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            os.close(self._file)


def _lengths(shard: Standing) -> NDArray[np.uint32]:
    import numpy as np

    found = np.fromfile(shard.folder / LENGTHS, LENGTH_TYPE)
    if len(found) != shard.documents:
        raise PrepError(
            f"{shard.folder}: lengths of {len(found)} documents, expected {shard.documents}; "
            f"remove it and run the command again"
        )
    return found
