"""Bytes in order, read and decompressed by a thread that is ahead of who takes them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, Final, Self

from datasets_prep.download.archives.kinds import Codec, Decompressor
from datasets_prep.download.archives.rules import SLACK
from datasets_prep.errors import ArchiveError

PIECE: Final = 1 << 20  # bytes
Bytes = bytes | memoryview
_AHEAD: Final = 8  # pieces
_MAGIC: Final = 8  # bytes in which every codec is recognised
_LEAVE: Final = 1.0  # seconds that a thread has to end which nobody needs any more


class Truncated(Exception):
    """The stream ends where more had to come."""


class Ahead:
    """What an iterator gives, asked for by a thread of its own; used in a ``with`` statement."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decompress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._thread.join(_LEAVE)

    def __iter__(self) -> Iterator[bytes]:
        while (got := self._queue.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            yield got

    def _run(self) -> None:
        try:
            for piece in self._pieces:
                if not self._put(piece):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - raised by who takes
            self._put(error)

    def _put(self, item: bytes | BaseException | None) -> bool:
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=0.2)
                return True
        return False


class Feed:
    """Takes from pieces what is asked for."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""
        self._at = 0

    def take(self, size: int) -> Bytes:
        """The next ``size`` bytes; a view of them where they are in one piece.

        Raises
        ------
        Truncated
            When there are fewer.
        """
        end = self._at + size
        if end <= len(self._held):
            got: Bytes = memoryview(self._held)[self._at : end]
            self._at = end
            return got
        return b"".join(self.pieces(size))

    def block(self, size: int) -> bytes:
        """Like `take`, as bytes; empty when there is nothing more at all."""
        end = self._at + size
        if end > len(self._held) and not self._more(size):
            if self._at == len(self._held):
                return b""
            raise Truncated
        got = self._held[self._at : self._at + size]
        self._at += size
        return got

    def peek(self, size: int) -> bytes:
        """Up to so many of the next bytes, which stay."""
        self._more(size)
        return self._held[self._at : self._at + size]

    def pieces(self, size: int) -> Iterator[Bytes]:
        """The next ``size`` bytes in pieces; see `take`."""
        while size:
            if self._at == len(self._held) and not self._more(1):
                raise Truncated
            got = memoryview(self._held)[self._at : self._at + size]
            self._at += len(got)
            size -= len(got)
            yield got

    def rest(self) -> Iterator[Bytes]:
        """All that is left, in pieces."""
        while self._at < len(self._held) or self._more(1):
            yield memoryview(self._held)[self._at :]
            self._at = len(self._held)

    def _more(self, size: int) -> bool:
        """Have at least so many bytes in one piece; false when there are fewer."""
        while len(self._held) - self._at < size:
            further = next(self._pieces, b"")
            if not further:
                return False
            left = self._held[self._at :]
            self._held = left + further if left else further
            self._at = 0
        return True


def pieces_of(source: BinaryIO, head: bytes) -> Iterator[bytes]:
    """What a file holds, of which ``head`` has been read already."""
    if head:
        yield head
    while data := source.read(PIECE):
        yield data


class Decompressed:
    """What comes of compressed pieces: one stream, or several after each other.

    Parameters
    ----------
    codec : Codec
        How they are compressed.
    pieces : iterator of bytes
        They.
    what : str
        The archive, for messages.
    ratio : int
        How many bytes may come of one.
    """

    def __init__(self, codec: Codec, pieces: Iterator[bytes], what: str, ratio: int) -> None:
        self._codec = codec
        self._pieces = pieces
        self._what = what
        self._ratio = ratio
        self._taken = self._given = 0

    def __iter__(self) -> Iterator[bytes]:
        data = self._next()
        while data:
            while len(data) < _MAGIC and (more := self._next()):
                data += more
            if not self._codec.begins(data):
                self._check_padding(data)
                return
            decoder, errors = self._codec.make()
            yield from self._one(decoder, data, errors)
            data = decoder.unused_data or self._next()

    def _one(
        self, decoder: Decompressor, data: bytes, errors: tuple[type[Exception], ...]
    ) -> Iterator[bytes]:
        while not decoder.eof:
            try:
                got = decoder.decompress(data, PIECE)
            except errors as error:
                why = " ".join(str(error).split())
                raise ArchiveError(f"{self._what}: damaged: {why}") from None
            data = b""
            if got:
                self._count(len(got))
                yield got
            elif not decoder.eof and decoder.needs_input:
                data = self._next()
                if not data:
                    raise ArchiveError(f"{self._what}: truncated: its end is missing")

    def _next(self) -> bytes:
        data = next(self._pieces, b"")
        self._taken += len(data)
        return data

    def _count(self, size: int) -> None:
        self._given += size
        if self._given > SLACK + self._ratio * self._taken:
            raise ArchiveError(
                f"{self._what}: expands to more than {self._ratio} times its size, "
                f"{self._given} bytes so far"
            )

    def _check_padding(self, data: bytes) -> None:
        while data:
            if not self._codec.padded or data.strip(b"\0"):
                raise ArchiveError(f"{self._what}: trailing garbage after the compressed data")
            data = self._next()
