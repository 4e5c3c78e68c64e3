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
import importlib.util
import itertools
import os
import pickle
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

SYNCFS, MARK = "user.lossyfs.syncfs", "user.lossyfs.mark"
EXCHANGE, NO_REPLACE = 2, 1  # flags of renameat2
_TIMES = ("st_mtime", "st_atime", "st_ctime")
_PLAIN = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino")


def missing():
    """Why it cannot be mounted here, or an empty text."""
    if importlib.util.find_spec("mfusepy") is None:
        return "mfusepy is not installed"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened"
    if shutil.which("fusermount3") is None:
        return "fusermount3 is not installed (Debian: fuse3)"
    return ""


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


class Mounted:
    """A mounted folder, its daemon and its trace."""

    def __init__(self, back, at):
        self.trace_path = Path(f"{at}.trace")
        self.at = Path(at)
        self.at.mkdir()
        arguments = [sys.executable, __file__, str(back), str(at), str(self.trace_path)]
        environment = {**os.environ, "FUSE_LIBRARY_NAME": "fuse3"}
        self.process = subprocess.Popen(arguments, env=environment)
        until = time.monotonic() + 20
        while not os.path.ismount(self.at):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.at}: was not mounted")
            time.sleep(0.01)

    def stop(self):
        """Unmount; the trace, a list of tuples that begin with what was done."""
        subprocess.run(["fusermount3", "-u", "-z", str(self.at)], check=True)
        self.process.wait(20)
        self.at.rmdir()
        trace = []
        with self.trace_path.open("rb") as file, suppress(EOFError):
            while True:
                trace.append(pickle.load(file))
        self.trace_path.unlink()
        return trace


class Recorder:
    """What the daemon answers; the rest comes from the library, see `serve`."""

    use_ns = True

    def __init__(self, back, trace):
        self.back, self.trace = back, trace
        self.next, self.known = 1, {}
        for path, number in numbered(back):
            self.known[os.lstat(self.real("/" + path)).st_ino] = number
            self.next = number + 1

    # -- the trace ------------------------------------------------------------------------

    def note(self, *what):
        pickle.dump(what, self.trace)

    def real(self, path):
        return self.back + path

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

    # -- reading --------------------------------------------------------------------------

    def getattr(self, path, fh=None):
        found = os.lstat(self.real(path)) if fh is None else os.fstat(fh)
        times = {name: getattr(found, f"{name}_ns") for name in _TIMES}
        return {name: getattr(found, name) for name in _PLAIN} | times

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self.real(path))]

    def opendir(self, path):
        return 0

    def releasedir(self, path, fh):
        return 0

    def access(self, path, mode):
        return 0

    def open(self, path, flags):
        return os.open(self.real(path), flags & ~os.O_APPEND)

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def release(self, path, fh):
        os.close(fh)

    def flush(self, path, fh):
        return 0

    def statfs(self, path):
        found = os.statvfs(self.real(path))
        return {n: getattr(found, n) for n in dir(found) if n.startswith("f_")}

    # -- changing -------------------------------------------------------------------------

    def create(self, path, mode, fi=None):
        file = os.open(self.real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        self.made(path, "file")
        return file

    def mkdir(self, path, mode):
        os.mkdir(self.real(path), mode)
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

    def chown(self, path, uid, gid):
        return 0

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


def serve(back, at, trace):
    """Mount and answer until unmounted."""
    import mfusepy as fuse

    class Served(Recorder, fuse.Operations):
        """What both know."""

    class Fuse(fuse.FUSE):
        """The library's own, which leaves out the flags of a rename."""

        def rename_fuse_3(self, old, new, flags):
            return self.operations.rename(os.fsdecode(old), os.fsdecode(new), flags)

    with open(trace, "wb") as file:
        options = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
        Fuse(Served(back, file), at, foreground=True, nothreads=True, hard_remove=True, **options)


if __name__ == "__main__":
    serve(*sys.argv[1:])
