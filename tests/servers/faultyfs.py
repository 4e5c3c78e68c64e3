"""A folder behind FUSE whose operations fail, or take their time, as a control file says.

The file holds a JSON list of rules: ``{"op": ["open", "read"], "glob": "*/set/*", "errno": "EIO",
"delay": 0.5, "skip": 3, "times": 1}``. The first rule that fits an operation and its path counts;
of those that fit, ``skip`` pass and ``times`` fail. It knows nothing of what is stored.
"""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # this folder is no package
from fuse_folder import Daemon, Passing, missing, serve

__all__ = ["READING", "WRITING", "Mounted", "missing"]

READING = ("getattr", "readdir", "open", "read")
WRITING = ("create", "mkdir", "write", "rename", "unlink", "rmdir", "truncate", "fsync", "utimens")


class Mounted(Daemon):
    """A mounted folder and its daemon.

    Attributes
    ----------
    back : Path
        Where what lies there really lies.
    at : Path
        Where it is mounted.
    """

    def __init__(self, folder):
        self.back, self.control = folder / "back", folder / "control.json"
        self.back.mkdir(parents=True)
        self.heal()
        super().__init__(__file__, self.back, folder / "mnt", self.control)

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


def failing(op, call, rules):
    def ruled(self, path, *rest, **more):
        rules.meet(op, path)
        return call(self, path, *rest, **more)

    return ruled


def ruled(control):
    """A class of operations that fail by the rules of a file."""
    rules = Rules(control)
    operations = (*READING, *WRITING, "fsyncdir")
    return type(
        "Ruled", (Passing,), {op: failing(op, getattr(Passing, op), rules) for op in operations}
    )


if __name__ == "__main__":
    serve(ruled(sys.argv[3])(sys.argv[1]), sys.argv[2], threads=True)
