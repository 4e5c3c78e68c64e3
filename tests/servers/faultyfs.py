"""A folder behind FUSE whose operations fail, or take their time, as a control file says.

The file holds a JSON list of rules: ``{"op": ["open", "read"], "glob": "*/set/*", "errno": "EIO",
"delay": 0.5, "skip": 3, "times": 1}``. The first rule that fits an operation and its path counts;
of those that fit, ``skip`` pass and ``times`` fail. It knows nothing of what is stored.
"""

from __future__ import annotations

import ctypes
import errno
import fnmatch
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

READING = ("getattr", "readdir", "open", "read")
WRITING = ("create", "mkdir", "write", "rename", "unlink", "rmdir", "truncate", "fsync", "utimens")
_TIMES = ("st_mtime", "st_atime", "st_ctime")
_PLAIN = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino")
_HERE = -100  # AT_FDCWD


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
    """A mounted folder and its daemon.

    Attributes
    ----------
    back : Path
        Where what lies there really lies.
    at : Path
        Where it is mounted.
    """

    def __init__(self, folder):
        self.back, self.at, self.control = folder / "back", folder / "mnt", folder / "control.json"
        self.back.mkdir(parents=True)
        self.at.mkdir()
        self.heal()
        arguments = [sys.executable, __file__, str(self.back), str(self.at), str(self.control)]
        environment = {**os.environ, "FUSE_LIBRARY_NAME": "fuse3"}
        self.process = subprocess.Popen(arguments, env=environment)
        until = time.monotonic() + 20
        while not os.path.ismount(self.at):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.at}: was not mounted")
            time.sleep(0.01)

    def fail(self, *rules):
        """Let these rules count from now on."""
        self.control.with_suffix(".new").write_text(json.dumps(rules))
        self.control.with_suffix(".new").rename(self.control)

    def heal(self):
        """Let everything pass."""
        self.fail()

    def hang(self):
        """Answer nothing any more."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self):
        """Answer again, what was asked meanwhile too."""
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self):
        """Unmount, and end the daemon."""
        self.go_on()
        subprocess.run(["fusermount3", "-u", "-z", str(self.at)], check=False)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


class Rules:
    """The control file, read again when it has been replaced."""

    def __init__(self, path):
        self._path, self._seen, self._rules = path, None, []
        self._lock = threading.Lock()

    def meet(self, op, path):
        """Wait or raise as the first rule says that fits."""
        rule = self._first(op, path)
        if rule is None:
            return
        time.sleep(rule.get("delay", 0))
        if "errno" in rule:
            raise OSError(getattr(errno, rule["errno"]), path)

    def _first(self, op, path):
        with self._lock:
            found = os.stat(self._path)
            if self._seen != (found.st_ino, found.st_mtime_ns):
                self._seen = (found.st_ino, found.st_mtime_ns)
                self._rules = json.loads(Path(self._path).read_text())
            for rule in self._rules:
                if op in rule["op"] and fnmatch.fnmatch(path, rule.get("glob", "*")):
                    rule["met"] = rule.get("met", 0) + 1
                    left = rule["met"] - rule.get("skip", 0)
                    return rule if 0 < left <= rule.get("times", 1 << 30) else None
        return None


class Passing:
    """Hands everything to the folder behind."""

    use_ns = True

    def __init__(self, back):
        self.back = back
        self.libc = ctypes.CDLL(None, use_errno=True)

    def real(self, path):
        return self.back + path

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

    def readlink(self, path):
        return os.readlink(self.real(path))

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

    def fsync(self, path, datasync, fh):
        os.fsync(fh)

    def fsyncdir(self, path, datasync, fh):
        return 0


def failing(op, call, rules):
    def ruled(self, path, *rest, **more):
        rules.meet(op, path)
        return call(self, path, *rest, **more)

    return ruled


def serve(back, at, control):
    """Mount and answer until unmounted."""
    import mfusepy as fuse

    rules = Rules(control)
    ruled = {
        op: failing(op, getattr(Passing, op), rules) for op in (*READING, *WRITING, "fsyncdir")
    }

    class Served(type("Ruled", (Passing,), ruled), fuse.Operations):
        """What both know."""

    class Fuse(fuse.FUSE):
        """The library's own, which leaves out the flags of a rename."""

        def rename_fuse_3(self, old, new, flags):
            return self.operations.rename(os.fsdecode(old), os.fsdecode(new), flags)

    options = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
    Fuse(Served(back), at, foreground=True, nothreads=False, hard_remove=True, **options)


if __name__ == "__main__":
    serve(*sys.argv[1:])
