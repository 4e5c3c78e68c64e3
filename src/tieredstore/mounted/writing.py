"""Files of a generation while they are written to its stage, by one process or by several."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from tieredstore.backend import FileReader, FileWriter
from tieredstore.manifest.names import RESERVED
from tieredstore.manifest.records import FileRecord
from tieredstore.mounted import beneath
from tieredstore.mounted.alive import temporary
from tieredstore.mounted.descriptor import DescriptorReader, matches
from tieredstore.mounted.kept import take_kept
from tieredstore.mounted.staged import BLOCKS, Staged, has

_TAKEN: Final = f"{RESERVED}.taken-"


class StagedFolders:
    """The folders of a `Staged`, held open by one thread that moves many files.

    They stay the folders that they were: when another that moves the same generation publishes
    ``files``, what is accepted later joins the published folder, verified as it is.
    """

    def __init__(self, staged: Staged) -> None:
        self._wip = beneath.Folders(staged.open("wip", make=True))
        self._files = beneath.Folders(staged.open("files", make=True))
        self._home = beneath.Folders(staged.open(""))
        self._kept = beneath.exists(self._home.at(""), BLOCKS)

    def open(self, path: str) -> int:
        """Open a file in ``wip`` for writing; what it holds already stays."""
        self._wip.make(beneath.split(path)[0])
        return self._wip.open_file(path, os.O_RDWR | os.O_CREAT)

    def begun(self, file: FileRecord) -> FileReader | None:
        """What an earlier attempt left of a file in ``wip``, or readers have kept of it."""
        if self._kept:
            take_kept(self._home.at(""), self._wip.at(""), file)
        try:
            return DescriptorReader(self._wip.open_file(file.path))
        except FileNotFoundError:
            return None

    def accepted(self, file: FileRecord) -> DescriptorReader:
        """Open a file that lies in ``files``."""
        return DescriptorReader(self._files.open_file(file.path))

    def holds(self, file: FileRecord) -> bool:
        """Whether a file lies in ``files`` and still is what it was when it was verified."""
        try:
            reader = self.accepted(file)
        except FileNotFoundError:
            return False
        with reader:
            return matches(reader, file)

    def accept(self, file: FileRecord, own: os.stat_result) -> None:
        """Move a file whose bytes are verified from ``wip`` to ``files``, and no other.

        Another that writes the same file may have moved it already, and a third have begun anew
        under its name: what is taken away is looked at before it is accepted.

        Parameters
        ----------
        file : FileRecord
            What it is.
        own : os.stat_result
            Of the file that was written.

        Raises
        ------
        FileNotFoundError
            When another has taken it, and has not accepted it yet.
        """
        folder, name = beneath.split(file.path)
        source, wip, target = self._wip.at(folder), self._wip.at(""), self._files.make(folder)
        taken = temporary(_TAKEN)
        try:
            os.rename(name, taken, src_dir_fd=source, dst_dir_fd=wip)
            if os.path.samestat(os.stat(taken, dir_fd=wip, follow_symlinks=False), own):
                os.rename(taken, name, src_dir_fd=wip, dst_dir_fd=target)
                return
            os.rename(taken, name, src_dir_fd=wip, dst_dir_fd=source)
        except FileNotFoundError:  # another that moves this generation was faster
            pass
        if not has(self._files.at(""), file):
            raise FileNotFoundError(errno.ENOENT, "was taken by another that stages it", file.path)


class StagedWriter(FileWriter):
    """A file under ``wip/``; closing it gives it its mode and time and moves it to ``files/``."""

    def __init__(self, folders: Callable[[], StagedFolders], record: FileRecord) -> None:
        self._folders = folders  # of the calling thread: the last of several closes the file
        self._record = record
        self._fd = folders().open(record.path)
        if os.fstat(self._fd).st_size > record.size:
            os.ftruncate(self._fd, record.size)

    def write(self, offset: int, data: memoryview) -> None:
        """See `FileWriter.write`."""
        beneath.write_all(self._fd, data, offset)

    def continues(self, begun: FileReader) -> bool:
        """See `FileWriter.continues`."""
        if not isinstance(begun, DescriptorReader):
            return False
        return os.path.samestat(begun.stat(), os.fstat(self._fd))

    def close(self) -> None:
        """See `FileWriter.close`."""
        try:
            own = os.fstat(self._fd)
            if own.st_size != self._record.size:
                found = f"{own.st_size} bytes staged, expected {self._record.size}"
                raise OSError(errno.EIO, found)
            self._finish(self._fd)
        finally:
            self.abort()
        self._folders().accept(self._record, own)

    def _finish(self, file: int) -> None:
        os.fchmod(file, self._record.mode & 0o777)
        self._set_time(file)

    def _set_time(self, file: int) -> None:
        """The file's own time; that it was used just now stays, or a purge would take it."""
        if self._record.mtime_ns > 0:
            os.utime(file, ns=(os.fstat(file).st_atime_ns, self._record.mtime_ns))

    def abort(self) -> None:
        """See `FileWriter.abort`: what was written stays for the next attempt."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
