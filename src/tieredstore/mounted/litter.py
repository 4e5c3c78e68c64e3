"""What is left over in the store's own area of a mounted place, found and taken away.

Something is left over when nobody who works on it lives (see ``alive.py``), nothing that is
published half-way needs it, and nothing in it has changed for the grace period. Times are those
that the file system gives, compared with one that it gives just then; the time of change counts,
because a file's time of modification is part of the data. What is dropped is renamed out of the
way first: who still holds it finds that it is gone, and can never publish half of it.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import ClassVar, Final

from tieredstore.errors import TieredStoreError
from tieredstore.litter import DAMAGED, UNKNOWN, Collectable, Litter
from tieredstore.mounted import alive, beneath
from tieredstore.mounted.pendings import Pendings
from tieredstore.mounted.stage import Mount
from tieredstore.mounted.staged import AREA
from tieredstore.mounted.vigil import SILENT, Vigil, is_empty, listed, living_on

GONE: Final = "gone"
_GENERATION: Final = re.compile(r"[0-9a-z][0-9a-z-]{7,63}")
_PERMANENT: Final = frozenset({".gitignore", "queue", "record"})
_PIN: Final = 4096  # bytes
_DOUBT: Final = 3600.0  # seconds by which the clock that a pin was made by may be wrong
_LONGEST: Final = 7 * 86400.0  # seconds that somebody on another machine may verify a copy
_TRIES: Final = 3

Look = Callable[[str], Iterator[Litter]]


class MountedLitter(Collectable):
    """A mounted place that tells what is left over in its ``.tieredstore``.

    Attributes
    ----------
    mount : Mount
        The place.
    lease_markers : bool
        Leases are files that are there while they are held; else empty files that the kernel
        locks, which stay.
    """

    mount: Mount
    lease_markers: ClassVar[bool] = False

    def litter(self, grace: float) -> Iterator[Litter]:
        """See `Collectable.litter`; publications that were interrupted are completed first."""
        try:
            with beneath.opened(self.mount.root()) as root:
                area = beneath.open_folder(root, AREA)
        except FileNotFoundError:
            return
        with beneath.opened(area):
            survey = Survey(self.mount, area, grace)
            survey.lease_markers = self.lease_markers
            yield from survey.litter()

    def drop(self, litter: Litter) -> int | None:
        """See `Collectable.drop`: renamed out of the way, looked at a last time, and deleted."""
        newest, *signs = litter.token.split(" ")
        aside = f"{GONE}/{alive.temporary('')}"
        os.close(self.mount.area(GONE))
        with beneath.opened(self.mount.root()) as root:
            area = beneath.open_folder(root, AREA)
        with beneath.opened(area):
            path = litter.path.removeprefix(f"{AREA}/")
            try:
                beneath.rename(area, path, area, aside)
            except FileNotFoundError:
                return None
            except OSError as error:
                error.filename = os.path.join(self.mount.path, litter.path)
                raise
            working = living_on(area, path.rpartition("/")[2], signs)
            if working or measured(area, aside)[0] != int(newest):
                _put_back(area, aside, path)
                return None
            _delete(area, aside)
        return litter.size


class Survey:
    """One look at the store's own area of a root.

    Parameters
    ----------
    mount : Mount
        The root.
    area : int
        The area, held open.
    grace : float
        Seconds; what has changed since is left alone.

    Attributes
    ----------
    lease_markers : bool
        See `MountedLitter`.
    """

    def __init__(self, mount: Mount, area: int, grace: float) -> None:
        self._area = area
        self._grace = grace
        self.lease_markers = False
        # In this order: who works leaves a sign first, has a stage then, and lays marks last.
        self._stages = {part: listed(area, part) for part in ("stage", "part")}
        self._ledgers = listed(area, "fill")
        self._journals = listed(area, "journal")
        self._notes = listed(area, "swap")
        self._vigil = Vigil(area, alive.clock(area), grace)
        self._pendings = Pendings(mount)
        self._now = alive.clock(area)

    def litter(self) -> Iterator[Litter]:
        """All that is left over, and what nobody knows."""
        looks: Mapping[str, Look] = {
            "stage": self._staged,
            "part": self._staged,
            "old": self._all,
            DAMAGED: self._all,
            "swap": self._swaps,
            "fill": self._fills,
            "journal": self._writings,
            "lease": self._leases,
            "space": self._refreshed,
            alive.AREA: self._refreshed,
            "pins": self._pins,
            "evict": self._evictions,
            GONE: self._temporaries,
        }
        for name in listed(self._area, ""):
            if name in looks:
                yield from looks[name](name)
            elif name.startswith("clock-"):
                yield from self._temporary(name)
            elif name not in _PERMANENT:
                yield from self._found(UNKNOWN, name, -math.inf)

    # -- by area --------------------------------------------------------------------------------

    def _staged(self, part: str) -> Iterator[Litter]:
        for name in self._stages[part]:
            path = f"{part}/{name}"
            if name.startswith(("mark-", "manifest-")):
                yield from self._temporary(path)
            elif name.startswith("fill-"):
                if not any(name.startswith(f"{key}-") for key in self._vigil.living):
                    yield from self._found("fill", path, self._grace)
            elif not _GENERATION.fullmatch(name):
                yield from self._found(UNKNOWN, path, -math.inf)
            elif name not in self._vigil.living and not self._pendings.needs(name):
                yield from self._found(part, path, self._grace)

    def _all(self, area: str) -> Iterator[Litter]:
        for name in listed(self._area, area):
            yield from self._found(area, f"{area}/{name}", self._grace)

    def _swaps(self, area: str) -> Iterator[Litter]:
        for name in self._notes:
            if name.startswith("."):
                yield from self._temporary(f"{area}/{name}")
            elif not self._pendings.notes(name, self._vigil.living):
                yield from self._found(area, f"{area}/{name}", self._grace)

    def _fills(self, area: str) -> Iterator[Litter]:
        working = any(key.startswith("fill-") for key in self._vigil.living)
        for name in self._ledgers:
            generation, _, ending = name.partition(".")
            if ending != "json":
                yield from self._temporary(f"{area}/{name}")
            elif not working and not self._pendings.fills(generation):
                yield from self._found(area, f"{area}/{name}", self._grace)

    def _writings(self, area: str) -> Iterator[Litter]:
        for name in self._journals:
            if not self._pendings.writes(name):
                yield from self._found(area, f"{area}/{name}", self._grace)

    def _leases(self, area: str) -> Iterator[Litter]:
        for name in listed(self._area, area):
            path = f"{area}/{name}"
            if name.endswith(".note"):
                yield from self._note(path)
            elif not name.endswith(".lock"):
                if name != "length.json":
                    yield from self._temporary(path)
            elif path in self._vigil.dead:
                yield from self._found(area, path, self._grace)
            elif self.lease_markers and is_empty(self._area, path):
                # Its holder was stopped before it wrote its name: nobody would ever take it over.
                yield from self._found(area, path, max(self._grace, SILENT))

    def _note(self, path: str) -> Iterator[Litter]:
        if path.rpartition("/")[2].startswith("."):
            yield from self._temporary(path)
        else:
            lock = path.removesuffix(".note")
            held = self.lease_markers and not is_empty(self._area, lock)
            if not held or lock in self._vigil.dead:
                yield from self._found("lease", path, self._grace)

    def _refreshed(self, area: str) -> Iterator[Litter]:
        for name in listed(self._area, area):
            path = f"{area}/{name}"
            if name.startswith("."):
                yield from self._temporary(path)
            elif path in self._vigil.dead:
                what = "sign" if area == alive.AREA else area
                yield from self._found(what, path, self._grace)

    def _pins(self, area: str) -> Iterator[Litter]:
        for name in listed(self._area, area):
            path = f"{area}/{name}"
            if name.startswith("."):
                yield from self._temporary(path)
                continue
            try:
                pin = json.loads(beneath.read_small(self._area, path, _PIN))
                created, length = float(pin["created"]), float(pin["length"])
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError, TieredStoreError):
                yield from self._found(UNKNOWN, path, -math.inf)
                continue
            if created + length + _DOUBT < self._now:
                yield from self._found(area, path, max(self._grace, length + _DOUBT))

    def _evictions(self, area: str) -> Iterator[Litter]:
        """Notes of those who evict: they stand for as long as verifying takes."""
        for name in listed(self._area, area):
            path = f"{area}/{name}"
            lives = alive.lives(name)
            if name.startswith("."):
                yield from self._temporary(path)
            elif not lives:
                longest = self._grace if lives is False else max(self._grace, _LONGEST)
                yield from self._found(area, path, longest)

    def _temporaries(self, area: str) -> Iterator[Litter]:
        for name in listed(self._area, area):
            yield from self._temporary(f"{area}/{name}")

    # -- what is there --------------------------------------------------------------------------

    def _temporary(self, path: str) -> Iterator[Litter]:
        """Something that is written and renamed at once, by the process that its name says."""
        lives = alive.lives(path)
        if not lives:
            grace = self._grace if lives is False else max(self._grace, SILENT)
            yield from self._found("temporary", path, grace)

    def _found(self, what: str, path: str, grace: float) -> Iterator[Litter]:
        with suppress(FileNotFoundError):
            newest, size, since = measured(self._area, path)
            if since / 1e9 <= self._now - grace:
                signs = self._vigil.dead_of(path.rpartition("/")[2])
                token = " ".join([str(newest), *signs])
                yield Litter(what, f"{AREA}/{path}", size, since / 1e9, token)


def measured(fd: int, path: str) -> tuple[int, int, int]:
    """When what lies at a path last changed, its bytes, and when it came there or changed.

    Both times in nanoseconds since 1970, by the place's clock. To be renamed is no change.
    """
    folder, name = beneath.split(path)
    with beneath.opened(beneath.open_folder(fd, folder)) as above:
        top = os.stat(name, dir_fd=above, follow_symlinks=False)
        try:
            below = beneath.open_folder(above, name)
        except (FileNotFoundError, NotADirectoryError, TieredStoreError):
            return top.st_mtime_ns, top.st_size, max(top.st_mtime_ns, top.st_ctime_ns)
    with beneath.opened(below):
        found = list(_entries(below))
    newest = max((changed for changed, _ in found), default=0)
    return newest, sum(size for _, size in found), max(newest, top.st_ctime_ns)


def _entries(fd: int) -> Iterator[tuple[int, int]]:
    """When each folder and file below one changed, and its bytes.

    Of a folder it counts when something came into it or was taken out.
    """
    queue = [""]
    while queue:
        folder = queue.pop()
        with suppress(FileNotFoundError), beneath.opened(beneath.open_folder(fd, folder)) as here:
            yield os.fstat(here).st_mtime_ns, 0
            with os.scandir(here) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        if entry.is_dir(follow_symlinks=False):
                            queue.append(f"{folder}/{entry.name}".lstrip("/"))
                        else:
                            found = entry.stat(follow_symlinks=False)
                            yield found.st_ctime_ns, found.st_size


def _put_back(area: int, aside: str, path: str) -> None:
    """Unless another is there by now: then what is aside goes with the next collection."""
    folder, name = beneath.split(path)
    with suppress(OSError), beneath.opened(beneath.open_folder(area, folder)) as fd:
        if not beneath.exists(fd, name):
            beneath.rename(area, aside, area, path)


def _delete(area: int, path: str) -> None:
    """Delete a file or a folder; who still holds it may write to it until it is gone."""
    folder, name = beneath.split(path)
    for left in reversed(range(_TRIES)):
        try:
            beneath.delete_tree(area, path)
        except NotADirectoryError:
            with beneath.opened(beneath.open_folder(area, folder)) as fd:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=fd)
        except OSError:
            if not left:
                raise
            continue
        return
