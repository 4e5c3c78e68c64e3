"""A folder behind FUSE, passed on as it is: to be mounted twice, or stopped so that it hangs.

The daemon is not asked about locks, so those of two mounts do not know of one another.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

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


class Mounted:
    """A mounted folder and its daemon."""

    def __init__(self, back, at):
        self.at = Path(at)
        self.at.mkdir()
        environment = {**os.environ, "FUSE_LIBRARY_NAME": "fuse3"}
        command = [sys.executable, __file__, str(back), str(at)]
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
    """What the daemon answers; the rest comes from the library, see `serve`."""

    use_ns = True

    def __init__(self, back):
        self.back = back

    def real(self, path):
        return self.back + path

    def getattr(self, path, fh=None):
        found = os.lstat(self.real(path)) if fh is None else os.fstat(fh)
        times = {name: getattr(found, f"{name}_ns") for name in _TIMES}
        return {name: getattr(found, name) for name in _PLAIN} | times

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self.real(path))]

    def statfs(self, path):
        found = os.statvfs(self.real(path))
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_")}

    def open(self, path, flags):
        return os.open(self.real(path), flags & ~os.O_NOFOLLOW)

    def create(self, path, mode, fi=None):
        return os.open(self.real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(self.real(path) if fh is None else fh, length)

    def release(self, path, fh):
        os.close(fh)

    def fsync(self, path, datasync, fh):
        os.fsync(fh)

    def chmod(self, path, mode):
        os.chmod(self.real(path), mode)

    def utimens(self, path, times=None):
        os.utime(self.real(path), ns=times)

    def mkdir(self, path, mode):
        os.mkdir(self.real(path), mode)

    def rename(self, old, new):
        os.rename(self.real(old), self.real(new))

    def unlink(self, path):
        os.unlink(self.real(path))

    def rmdir(self, path):
        os.rmdir(self.real(path))


def serve(back, at):
    """Mount and answer until unmounted."""
    import mfusepy as fuse

    class Served(Passing, fuse.Operations):
        """What both know."""

    options = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
    fuse.FUSE(Served(back), at, foreground=True, nothreads=True, hard_remove=True, **options)


if __name__ == "__main__":
    serve(*sys.argv[1:])
