"""A folder behind FUSE that writes down every change made to it, in order, and every sync.

``tests/crash/powerloss.py`` reads that trace and says what a loss of power at any moment of it
would have left. Only what has to be a file system stands here: it passes everything on to a folder
in memory and decides nothing. Each folder directly below the root counts as a file system of its
own: a rename from one to another is refused, and a flush of the whole file system flushes one.

The kernel passes ``fsync`` of files and folders to a FUSE daemon, and ``syncfs`` to none: who
calls that also sets the attribute `SYNCFS` of the folder, see ``tests/crash/child.py``. Setting
`MARK` writes its value into the trace.
"""

from __future__ import annotations

import errno
import itertools
import os
import pickle
import sys
from contextlib import suppress
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # this folder is no package
from fuse_folder import Daemon, Passing, missing, serve

__all__ = ["MARK", "SYNCFS", "Mounted", "missing", "numbered"]

SYNCFS, MARK = "user.lossyfs.syncfs", "user.lossyfs.mark"
EXCHANGE, NO_REPLACE = 2, 1  # flags of renameat2


def numbered(folder):
    """Every folder and file below one, with its number: the same for equal trees.

    Yields path, relative to the folder, and number; the root itself first, as ``""`` and 1.
    """
    count = itertools.count(1)
    yield "", next(count)
    for above, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted([*folders, *files]):
            yield os.path.relpath(os.path.join(above, name), folder), next(count)


class Mounted(Daemon):
    """A mounted folder, its daemon and its trace."""

    def __init__(self, back, at):
        self.trace_path = Path(f"{at}.trace")
        super().__init__(__file__, back, at, self.trace_path)

    def stop(self):
        """Unmount; the trace, a list of tuples that begin with what was done."""
        super().stop()
        trace = []
        with self.trace_path.open("rb") as file, suppress(EOFError):
            while True:
                trace.append(pickle.load(file))
        self.trace_path.unlink()
        return trace


class Recorder(Passing):
    """What the daemon answers."""

    def __init__(self, back, trace):
        super().__init__(back)
        self.trace = trace
        self.next, self.known = 1, {}
        for path, number in numbered(back):
            self.known[os.lstat(self.real("/" + path)).st_ino] = number
            self.next = number + 1

    # -- the trace ------------------------------------------------------------------------

    def note(self, *what):
        pickle.dump(what, self.trace)

    def number(self, path):
        return self.known[os.lstat(self.real(path)).st_ino]

    def slot(self, path):
        above, name = os.path.split(path)
        return self.number(above), name

    def made(self, path, kind):
        found = os.lstat(self.real(path))
        number = self.known[found.st_ino] = self.next
        self.next += 1
        self.note("make", *self.slot(path), number, kind, found.st_mode & 0o7777)

    def changed(self, path):
        found = os.lstat(self.real(path))
        self.note("meta", self.known[found.st_ino], found.st_mode & 0o7777, found.st_mtime_ns)

    # -- changing -------------------------------------------------------------------------

    def create(self, path, mode, fi=None):
        file = super().create(path, mode)
        self.made(path, "file")
        return file

    def mkdir(self, path, mode):
        super().mkdir(path, mode)
        self.made(path, "folder")

    def write(self, path, data, offset, fh):
        done = os.pwrite(fh, data, offset)
        self.note("write", self.known[os.fstat(fh).st_ino], offset, data[:done])
        return done

    def truncate(self, path, length, fh=None):
        os.truncate(self.real(path), length)
        self.note("truncate", self.number(path), length)

    def chmod(self, path, mode):
        os.chmod(self.real(path), mode)
        self.changed(path)

    def utimens(self, path, times=None):
        os.utime(self.real(path), ns=times)
        self.changed(path)

    def rename(self, old, new, flags=0):
        if old.split("/")[1] != new.split("/")[1]:
            raise OSError(errno.EXDEV, old)
        there = os.path.lexists(self.real(new))
        if flags & NO_REPLACE and there:
            raise OSError(errno.EEXIST, new)
        slots = *self.slot(old), *self.slot(new)
        if flags & EXCHANGE:
            aside = f"{self.back}/exchanged"
            os.rename(self.real(old), aside)
            os.rename(self.real(new), self.real(old))
            os.rename(aside, self.real(new))
            self.note("exchange", *slots)
        else:
            os.rename(self.real(old), self.real(new))
            self.note("rename", *slots)

    def unlink(self, path):
        slot = self.slot(path)
        os.unlink(self.real(path))
        self.note("unlink", *slot)

    def rmdir(self, path):
        slot = self.slot(path)
        os.rmdir(self.real(path))
        self.note("unlink", *slot)

    # -- syncing --------------------------------------------------------------------------

    def fsync(self, path, datasync, fh):
        self.note("fsync", self.known[os.fstat(fh).st_ino])

    def fsyncdir(self, path, datasync, fh):
        self.note("fsync", self.number(path))

    def setxattr(self, path, name, value, options, position=0):
        if name == SYNCFS:
            self.note("syncfs", self.number("/" + path.split("/")[1]))
        elif name == MARK:
            self.note("mark", value.decode())
        else:
            raise OSError(errno.ENOTSUP, name)


if __name__ == "__main__":
    with open(sys.argv[3], "wb") as opened:
        serve(Recorder(sys.argv[1], opened), sys.argv[2])
