"""A file that is read from its beginning while it is still arriving out of order.

Whoever follows reads what lies in the staging, never the place that it comes from. Digests of
whole files are computed so, and archives extracted.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, Final, cast

from tieredstore.backend import FileReader
from tieredstore.errors import CorruptData, TieredStoreError, reason

_PIECE: Final = 1 << 20
_LETS_GO: Final = 5.0  # seconds that a follower has to end when the file does not arrive

Follower = Callable[[BinaryIO], None]


class Arrival:
    """How far a file has arrived without a gap; told by several threads, waited for by others."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._beyond: dict[int, int] = {}
        self._to = 0
        self._error: BaseException | None = None
        self._moved = threading.Condition()

    def add(self, offset: int, end: int) -> None:
        """Bytes have arrived."""
        with self._moved:
            self._beyond[offset] = end
            while self._to in self._beyond:
                self._to = self._beyond.pop(self._to)
            self._moved.notify_all()

    def fail(self, error: BaseException) -> None:
        """No more will arrive."""
        with self._moved:
            self._error = self._error or error
            self._moved.notify_all()

    def wait(self, position: int) -> int:
        """Wait for the byte at a position; how far the file has arrived then.

        Raises
        ------
        OSError
            When it will not come.
        """
        with self._moved:
            while self._error is None and self._to <= position < self.size:
                self._moved.wait()
            if self._error is not None:  # of what is here already nothing is of use any more
                raise OSError(f"the rest does not arrive: {reason(self._error)}")
            return self._to


class Arriving(io.RawIOBase):
    """What has arrived, in order; a read waits for it."""

    def __init__(self, reader: FileReader, arrival: Arrival) -> None:
        self._reader = reader
        self._arrival = arrival
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: object) -> int:
        """Hand on what is there, at least one byte before the end."""
        view = memoryview(cast(bytearray, buffer)).cast("B")
        if not len(view):
            return 0
        end = self._arrival.wait(self._at)
        got = self._reader.readinto(self._at, view[: max(0, end - self._at)])
        self._at += got
        return got


class Following:
    """One follower in a thread of its own.

    Parameters
    ----------
    reader : FileReader
        Of the file in the staging; closed when the follower has ended.
    arrival : Arrival
        How far the file has come.
    follow : callable
        Called with the file as a stream, once; has to read it to its end.
    """

    def __init__(self, reader: FileReader, arrival: Arrival, follow: Follower) -> None:
        self._reader = reader
        self._arrival = arrival
        self._follow = follow
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="tieredstore-follows", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            raw = Arriving(self._reader, self._arrival)
            with io.BufferedReader(raw, _PIECE) as stream:
                self._follow(cast(BinaryIO, stream))
        except Exception as error:  # noqa: BLE001 - raised where the file is awaited
            self._error = error
        finally:
            self._reader.close()

    def check(self) -> None:
        """Raise what the follower has raised."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Wait for it to have read all, and raise what it has raised."""
        self._thread.join()
        self.check()

    def let_go(self) -> None:
        """Wait a while for it to end; the file will not arrive."""
        self._thread.join(_LETS_GO)


class Digesting:
    """Computes the digest of a whole file and compares it; a `Follower`.

    Parameters
    ----------
    where : str
        How messages call the file.
    digest : str
        What it has to be, as `FileStat` has it.
    size : int
        Bytes of the file.

    Raises
    ------
    CorruptData
        From the call, when it is another.
    """

    def __init__(self, where: str, digest: str, size: int) -> None:
        self._where = where
        self._kind, _, self._wanted = digest.partition(":")
        self._size = size

    def __call__(self, stream: BinaryIO) -> None:
        """Read the stream to its end."""
        found = self._begin()
        buffer = memoryview(bytearray(_PIECE))
        while got := stream.readinto(buffer):  # type: ignore[attr-defined]
            found.update(buffer[:got])
        if found.hexdigest() != self._wanted:
            raise CorruptData(
                f"{self._where}: {self._kind} {found.hexdigest()}, expected {self._wanted}; what "
                "was fetched is dropped, fetch it again or ask for the right digest"
            )

    def _begin(self) -> Any:
        import hashlib  # takes 5 ms, and most restores need none of it

        if self._kind == "git":
            return hashlib.sha1(b"blob %d\0" % self._size, usedforsecurity=False)
        try:
            return hashlib.new(self._kind, usedforsecurity=False)
        except ValueError:
            raise TieredStoreError(f"{self._where}: no digest {self._kind!r} is known") from None
