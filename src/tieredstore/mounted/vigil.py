"""Who is dead of those that work in the store's own area of a mounted place.

Signs of life (``alive.py``), reservations and lease markers name their process and are refreshed.
On this machine the kernel says whether it lives. Of others it is known only that they have been
silent: by the file system's clock first, and then they are watched by one's own, because the clock
that wrote a time may be wrong.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from tieredstore.errors import TieredStoreError
from tieredstore.mounted import alive, beneath

SILENT: Final = 600.0  # seconds after which one that is not seen from here may be dead
WATCH: Final = 3.5 * alive.BEAT  # seconds for which it is watched then
_MARKER: Final = 1024  # bytes
_FIELD: Final = re.compile(rb"^(pid|host)=(.{1,255})$", re.MULTILINE)

Stamp = tuple[int, int, int]


class Vigil:
    """One look at all who work, a longer one where that leaves doubts.

    Parameters
    ----------
    area : int
        The store's own area, held open.
    now : float
        Seconds since 1970, by the file system's clock.
    grace : float
        Seconds of silence that may always pass.

    Attributes
    ----------
    dead : frozenset of str
        Paths, below the area, of files of those who work no more.
    living : frozenset of str
        What the others work on: keys of signs.
    """

    def __init__(self, area: int, now: float, grace: float) -> None:
        self._area = area
        self._seen = {path: stamp for path in self._paths() if (stamp := _stamp(area, path))}
        seen = self._seen
        lives = {path: self._lives(path) for path in seen}
        silent = (now - max(grace, SILENT)) * 1e9
        doubtful = {p for p in seen if lives[p] is None and seen[p][0] <= silent}
        if doubtful:
            time.sleep(WATCH)
            doubtful = {path for path in doubtful if _stamp(area, path) == seen[path]}
        self.dead = frozenset(doubtful | {p for p in seen if lives[p] is False})
        signs = (p for p in seen if p.startswith(f"{alive.AREA}/") and p not in self.dead)
        self.living = frozenset(alive.key_of(path.partition("/")[2]) for path in signs)

    def dead_of(self, key: str) -> list[str]:
        """The signs that the dead have left of their work on this, as `living_on` takes them."""
        signs = (p.partition("/")[2] for p in self.dead if p.startswith(f"{alive.AREA}/"))
        own = (name for name in signs if alive.key_of(name) == key)
        return sorted(f"{name}@{self._seen[f'{alive.AREA}/{name}'][1]}" for name in own)

    def _paths(self) -> Iterator[str]:
        for area in (alive.AREA, "space"):
            yield from (f"{area}/{name}" for name in listed(self._area, area) if name[0] != ".")
        locks = (n for n in listed(self._area, "lease") if n.endswith(".lock"))
        yield from (f"lease/{n}" for n in locks if not is_empty(self._area, f"lease/{n}"))

    def _lives(self, path: str) -> bool | None:
        if not path.startswith("lease/"):
            return alive.lives(path)
        fields: dict[bytes, bytes] = {}
        with suppress(OSError, TieredStoreError):
            fields = dict(_FIELD.findall(beneath.read_small(self._area, path, _MARKER)))
        with suppress(ValueError):
            own = fields.get(b"host") == os.uname().nodename.encode()
            if own and not alive.there(int(fields[b"pid"])):
                return False
        return None


def living_on(area: int, key: str, but: Iterable[str]) -> bool:
    """Whether there is a sign of work on this, other than those of the dead as they were."""
    signs = [name for name in listed(area, alive.AREA) if alive.key_of(name) == key]
    stamps = {name: _stamp(area, f"{alive.AREA}/{name}") for name in signs}
    return bool({f"{name}@{stamp[1]}" for name, stamp in stamps.items() if stamp} - set(but))


def listed(area: int, folder: str) -> list[str]:
    """What lies in a folder of the area, in order; nothing where it is none."""
    try:
        with beneath.opened(beneath.open_folder(area, folder)) as fd:
            return sorted(os.listdir(fd))
    except FileNotFoundError:
        return []


def is_empty(area: int, path: str) -> bool:
    """Whether a file has no bytes: a lock's that the kernel keeps, which names nobody."""
    with suppress(FileNotFoundError):
        return os.stat(path, dir_fd=area, follow_symlinks=False).st_size == 0
    return True


def _stamp(area: int, path: str) -> Stamp | None:
    """Another after every refreshment; its first number says when that was."""
    try:
        found = os.stat(path, dir_fd=area, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return max(found.st_mtime_ns, found.st_ctime_ns), found.st_mtime_ns, found.st_ino
