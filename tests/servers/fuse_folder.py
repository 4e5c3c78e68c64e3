"""What the FUSE daemons of this folder share: mounting, and handing everything to a folder behind.

Each of them is a script of its own that is started with what it serves; see ``passingfs.py``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

_TIMES = ("st_mtime", "st_atime", "st_ctime")
_PLAIN = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino")
_HERE = -100  # AT_FDCWD


def missing():
    """Why nothing can be mounted here, or an empty text."""
    if importlib.util.find_spec("mfusepy") is None:
        return "mfusepy is not installed"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened"
    if shutil.which("fusermount3") is None:
        return "fusermount3 is not installed (Debian: fuse3)"
    return ""


class Daemon:
    """A mounted folder and the process that serves it.

    Attributes
    ----------
    at : Path
        Where it is mounted.
    """

    def __init__(self, script, back, at, *more):
        self.at = Path(at)
        self.at.mkdir()
        environment = {**os.environ, "FUSE_LIBRARY_NAME": "fuse3"}
        command = [sys.executable, script, str(back), str(at), *map(str, more)]
        self.process = subprocess.Popen(command, env=environment)
        until = time.monotonic() + 20
        while not os.path.ismount(self.at):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.at}: was not mounted")
            time.sleep(0.01)

    def stop(self):
        """Unmount it."""
        subprocess.run(["fusermount3", "-u", "-z", str(self.at)], check=True)
        self.process.wait(20)
        self.at.rmdir()


class Passing:
    """Hands everything to the folder behind; the rest comes from the library, see `serve`."""

    use_ns = True

    def __init__(self, back):
        self.back = back
        self.libc = ctypes.CDLL(None, use_errno=True)

    def real(self, path):
        return self.back + path

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
        return os.open(self.real(path), flags & ~(os.O_APPEND | os.O_NOFOLLOW))

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def release(self, path, fh):
        os.close(fh)

    def flush(self, path, fh):
        return 0

    def statfs(self, path):
        found = os.statvfs(self.real(path))
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_")}

    def readlink(self, path):
        return os.readlink(self.real(path))

    # -- changing -------------------------------------------------------------------------

    def create(self, path, mode, fi=None):
        return os.open(self.real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def mkdir(self, path, mode):
        os.mkdir(self.real(path), mode)

    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(self.real(path) if fh is None else fh, length)

    def chmod(self, path, mode):
        os.chmod(self.real(path), mode)

    def chown(self, path, uid, gid):
        return 0

    def utimens(self, path, times=None):
        os.utime(self.real(path), ns=times)

    def rename(self, old, new, flags=0):
        names = os.fsencode(self.real(old)), os.fsencode(self.real(new))
        if self.libc.renameat2(_HERE, names[0], _HERE, names[1], flags):
            raise OSError(ctypes.get_errno(), new)

    def unlink(self, path):
        os.unlink(self.real(path))

    def rmdir(self, path):
        os.rmdir(self.real(path))

    # -- syncing --------------------------------------------------------------------------

    def fsync(self, path, datasync, fh):
        os.fsync(fh)

    def fsyncdir(self, path, datasync, fh):
        return 0


def serve(operations, at, threads=False):
    """Mount and answer until unmounted; ``operations`` are those of a `Passing`."""
    import mfusepy as fuse

    class Served(type(operations), fuse.Operations):
        """What both know."""

        def __init__(self):
            vars(self).update(vars(operations))

    class Fuse(fuse.FUSE):
        """The library's own, which leaves out the flags of a rename."""

        def rename_fuse_3(self, old, new, flags):
            return self.operations.rename(os.fsdecode(old), os.fsdecode(new), flags)

    options = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
    Fuse(Served(), at, foreground=True, nothreads=not threads, hard_remove=True, **options)
