"""Files that a build writes through the store: digested while they are written, not read again.

A file counts as measured only while it is the very one that was written: the same inode, size and
times. Whatever else lies in the stage is read and measured when it is published.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import xxhash

from tieredstore.errors import TieredStoreError, cannot_write, writing_to
from tieredstore.manifest.names import check_file
from tieredstore.manifest.records import BLOCK, FileRecord, block_digest, pack_block
from tieredstore.mounted import beneath
from tieredstore.mounted.staged import Staged

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE: Final = 0o666
_MANY: Final = 2000  # files, of which a flush takes its time

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Written:
    """One file as it was when it had been written.

    Attributes
    ----------
    table : bytes
        Its block table.
    state : tuple of int
        What `state_of` gave.
    """

    table: bytes
    state: tuple[int, int, int, int]


def state_of(found: os.stat_result) -> tuple[int, int, int, int]:
    """What tells whether a file has been touched: inode, size, and both times in nanoseconds."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Measured:
    """What the writers of one build have measured, by path; and the flush that they have begun."""

    def __init__(self) -> None:
        self._files: dict[str, Written] = {}
        self._flushed = 0
        self._flush: _Flush | None = None
        self._lock = threading.Lock()

    def add(self, path: str, written: Written) -> None:
        """Note one file, from any thread."""
        self._files[path] = written

    def sizes(self) -> dict[str, int]:
        """How many bytes each file had when it had been written."""
        return {path: written.state[1] for path, written in self._files.items()}

    def flush_behind(self, staged: Staged) -> None:
        """Begin to flush what has been written, when that is much, beside whatever comes next.

        The disk works while the files are looked at. The flush of the publication comes still, and
        has little left to do.
        """
        with self._lock:
            if len(self._files) - self._flushed >= _MANY and self._flush is None:
                self._flushed = len(self._files)
                self._flush = _Flush(staged.open())

    def end_flush(self) -> None:
        """Wait for it.

        Raises
        ------
        OSError
            When it failed: a later flush would not be told.
        """
        flush, self._flush = self._flush, None
        if flush is not None:
            flush.end()

    def record(self, path: str, found: os.stat_result) -> FileRecord:
        """The record of a file in the stage; without blocks where it has to be measured."""
        written = self._files.get(path)
        state = state_of(found)
        table = written.table if written is not None and written.state == state else b""
        return FileRecord(path, state[1], found.st_mode & 0o777, state[2], table)


class _Flush:
    """A flush of a whole file system in a thread of its own."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="tieredstore-flush", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with beneath.opened(self._fd):
                beneath.syncfs(self._fd)
        except OSError as error:
            self._error = error

    def end(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error


class _Ground:
    """The folders of one stage, held open by one writer, and where it notes what it has written."""

    def __init__(self, staged: Staged, measured: Measured, tier: str) -> None:
        self._staged = staged
        self._measured = measured
        self.tier = tier
        with self.writing():
            self._folders = beneath.Folders(staged.open(make=True))

    def writing(self) -> AbstractContextManager[None]:
        return writing_to(self.tier)

    def create(self, path: str, mode: int) -> int:
        folder, name = beneath.split(check_file(path))
        try:
            return os.open(name, _NEW, mode & 0o777, dir_fd=self._folders.make(folder))
        except (FileExistsError, NotADirectoryError) as error:
            error.filename = path
            raise
        except TieredStoreError:
            raise
        except OSError as error:
            raise cannot_write(self.tier, error) from error

    def done(self, path: str, fd: int, mtime_ns: int | None, table: bytes) -> None:
        # Always to the nanosecond: by that a later change is seen even within a tick of the
        # kernel's clock.
        now = time.time_ns()
        os.utime(fd, ns=(now, now if mtime_ns is None else mtime_ns))
        self._measured.add(path, Written(table, state_of(os.fstat(fd))))

    def remove(self, path: str) -> None:
        folder, name = beneath.split(path)
        with suppress(FileNotFoundError), self.writing():
            os.unlink(name, dir_fd=self._folders.at(folder))

    def flush_behind(self) -> None:
        with self.writing():
            self._measured.flush_behind(self._staged)

    def close(self) -> None:
        self._folders.close()


class StageWriter:
    """Writes new files to a stage, each below folders that are held open; for one thread.

    Folders are made where they are missing. No link is followed, and nothing that is there is
    written to. Used in a ``with`` statement.
    """

    def __init__(self, staged: Staged, measured: Measured, tier: str) -> None:
        self._ground = _Ground(staged, measured, tier)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ground.close()
        if error is None:
            self._ground.flush_behind()

    def put(self, path: str, data: Bytes, mode: int = _MODE, mtime_ns: int | None = None) -> None:
        """Write a file that is in memory as a whole.

        Parameters
        ----------
        path : str
            Relative to the stage.
        data : bytes, bytearray or memoryview of bytes
            All of it.
        mode : int
            Permission bits, of which the umask's are taken off.
        mtime_ns : int, optional
            Its time of modification in nanoseconds since 1970; now by default.

        Raises
        ------
        InvalidName
            For a name that no artifact may have.
        FileExistsError
            When something of that name is there.
        NotADirectoryError
            When a file lies where one of its folders has to be.
        TierUnavailable
            When it cannot be written.
        """
        fd = self._ground.create(path, mode)
        try:
            beneath.write_all(fd, data, 0)
            self._ground.done(path, fd, mtime_ns, _table(data))
        except BaseException as error:
            self._ground.remove(path)
            if isinstance(error, OSError):
                raise cannot_write(self._ground.tier, error) from error
            raise
        finally:
            os.close(fd)

    def open(self, path: str, mode: int = _MODE, mtime_ns: int | None = None) -> OpenedFile:
        """Begin a file that is written piece by piece, see `put`."""
        return OpenedFile(self._ground, path, self._ground.create(path, mode), mtime_ns)


class OpenedFile:
    """A file of a stage that is being written from start to end.

    Used in a ``with`` statement; left by an exception, or by `abort`, it is removed.
    """

    def __init__(self, ground: _Ground, path: str, fd: int, mtime_ns: int | None) -> None:
        self._ground = ground
        self._path = path
        self._fd = fd
        self._mtime_ns = mtime_ns
        self._size = 0
        self._tables: list[bytes] = []
        self._block = xxhash.xxh3_128()
        self._filled = 0

    def write(self, data: Bytes) -> int:
        """Write all of the next bytes, and give their number.

        Raises
        ------
        TierUnavailable
            When they cannot be written.
        """
        view = memoryview(data)
        with self._ground.writing():
            beneath.write_all(self._fd, view, self._size)
        self._size += len(view)
        while view:
            part = view[: BLOCK - self._filled]
            self._block.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == BLOCK:
                self._end_block()
        return len(data)

    def _end_block(self) -> None:
        self._tables.append(pack_block(self._filled, self._block.digest()))
        self._block.reset()
        self._filled = 0

    def close(self) -> None:
        """The file is whole."""
        if self._fd < 0:
            return
        if self._filled:
            self._end_block()
        fd, self._fd = self._fd, -1
        try:
            with self._ground.writing():
                self._ground.done(self._path, fd, self._mtime_ns, b"".join(self._tables))
        finally:
            os.close(fd)

    def abort(self) -> None:
        """Write no more of it; what there is of it is removed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._ground.remove(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()


def _table(data: Bytes) -> bytes:
    if len(data) <= BLOCK:
        return pack_block(len(data), block_digest(data)) if data else b""
    view = memoryview(data)
    parts = [view[at : at + BLOCK] for at in range(0, len(view), BLOCK)]
    return b"".join(pack_block(len(part), block_digest(part)) for part in parts)
