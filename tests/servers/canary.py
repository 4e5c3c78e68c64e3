"""A tree that is watched: what is opened, changed or deleted in it is told, by inotify.

For tests of what must stay outside of. Looking at a name without opening it is not told.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct

_ALL_EVENTS = 0xFFF


class Canary:
    """A tree that nobody has any business in."""

    def __init__(self, root):
        self.root = root
        self.libc = ctypes.CDLL(None, use_errno=True)

    def watch(self):
        self.before = self._state()
        self.inotify = self.libc.inotify_init1(os.O_NONBLOCK)
        for folder in [folder for folder, _, _ in os.walk(self.root)]:
            assert self.libc.inotify_add_watch(self.inotify, os.fsencode(folder), _ALL_EVENTS) > 0

    def untouched(self):
        try:
            met = os.read(self.inotify, 1 << 16)
        except BlockingIOError:
            met = b""
        os.close(self.inotify)
        assert self._state() == self.before, "something outside the roots has changed"
        return _names(met)

    def _state(self):
        found = {}
        for path in sorted(self.root.rglob("*")):
            seen = path.lstat()
            data = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (seen.st_mode, seen.st_mtime_ns, hashlib.sha256(data).hexdigest())
        return found


def _names(events):
    """The names that inotify tells of; folders that were only listed have none."""
    found = []
    while events:
        _, mask, _, length = struct.unpack_from("iIII", events)
        found.append((hex(mask), events[16 : 16 + length].rstrip(b"\0").decode()))
        events = events[16 + length :]
    return found
