"""A folder of our own below a root, to try things in; all that was made is taken away again."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import Final

from tieredstore.manifest.artifact import random_hex
from tieredstore.manifest.names import RESERVED
from tieredstore.mounted import beneath

AREA: Final = f"{RESERVED}/doctor"
_STALE: Final = 24 * 3600  # seconds after which what a killed run left is taken away


class Ground:
    """A folder of our own below a root.

    Parameters
    ----------
    path : str
        The root; made where it is missing.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.run = f"{socket.gethostname()[:40]}-{os.getpid()}-{random_hex(4)}"
        self._made: list[str] = []
        self._shared: list[str] = []
        self._root = -1

    def open(self) -> None:
        """Make the folder, and make it the current one."""
        missing = self.path
        while not os.path.lexists(missing):
            self._made.append(missing)
            missing = os.path.dirname(missing)
        os.makedirs(self.path, exist_ok=True)
        self._root = beneath.open_root(self.path)
        with beneath.opened(beneath.make_folder(self._root, f"{AREA}/{self.run}")) as folder:
            os.fchdir(folder)
        self._sweep()

    def shared(self, name: str) -> str:
        """A folder that other runs know too."""
        with beneath.opened(beneath.make_folder(self._root, f"{AREA}/{name}")):
            self._shared.append(f"{AREA}/{name}")
            return os.path.join(self.path, AREA, name)

    def close(self) -> None:
        """Take away all that was made, as far as it is empty by now."""
        os.chdir("/")
        if self._root < 0:
            return
        with suppress(OSError):
            beneath.delete_tree(self._root, f"{AREA}/{self.run}")
        for folder in (*self._shared, AREA, RESERVED):  # the store's own area is never empty
            with suppress(OSError):
                os.rmdir(os.path.join(self.path, folder))
        os.close(self._root)
        for made in self._made:
            with suppress(OSError):
                os.rmdir(made)

    def _sweep(self) -> None:
        """Take away what runs that were killed have left."""
        folder = os.path.join(self.path, AREA)
        for name in os.listdir(folder):
            with suppress(OSError):
                if time.time() - os.lstat(os.path.join(folder, name)).st_mtime > _STALE:
                    beneath.delete_tree(self._root, f"{AREA}/{name}")
