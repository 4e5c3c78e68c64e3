"""What a mounted tier holds, when each artifact was last used, and what is free. Changes nothing.

Bytes are counted twice over: as they are named (a tier's ``max_size`` counts these), and in the
blocks that they take of the disk (``min_free``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from tieredstore.backends.local import LocalBackend
from tieredstore.errors import ManifestError, UnsafePath
from tieredstore.manifest.artifact import MAX_HEAD, Head
from tieredstore.manifest.names import RESERVED
from tieredstore.manifest.records import FileRecord
from tieredstore.mounted import beneath
from tieredstore.mounted.marks import Marks
from tieredstore.mounted.mount import Root
from tieredstore.mounted.staged import AREA

BLOCK: Final = 4096  # bytes in which disks give out their space, nearly everywhere
_SECTOR: Final = 512  # the unit of st_blocks
_OWN: Final = ("stage", "part", "old", "damaged")  # areas that hold files of artifacts


@dataclass(frozen=True, slots=True)
class Bytes:
    """A number of bytes.

    Attributes
    ----------
    size : int
        As they are named.
    room : int
        In whole blocks.
    """

    size: int = 0
    room: int = 0

    @classmethod
    def of(cls, files: Iterable[FileRecord]) -> Self:
        """What files will take."""
        sizes = [f.size for f in files]
        return cls(sum(sizes), sum(in_blocks(size) for size in sizes))

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(self.size + other.size, self.room + other.room)

    def beyond(self, other: Bytes) -> Bytes:
        """What is left of this when that much is done of it."""
        return Bytes(max(0, self.size - other.size), max(0, self.room - other.room))


NOTHING: Final = Bytes()


@dataclass(frozen=True, slots=True)
class Holding:
    """An artifact as it lies in a mounted tier.

    Attributes
    ----------
    folder : str
        Where, below the root.
    head : Head
        Its head.
    size : int
        Bytes of its files that are here.
    used : float
        When it was last used, seconds since 1970: the time of last access of its head.
    """

    folder: str
    head: Head
    size: int
    used: float


def in_blocks(size: int) -> int:
    """Bytes of the whole blocks that so many bytes take."""
    return -(-size // BLOCK) * BLOCK


def holdings(backend: LocalBackend) -> list[Holding]:
    """Every artifact whose head can be read, pending ones too; the least recently used first."""
    found: list[Holding] = []
    with suppress(FileNotFoundError), beneath.opened(backend.mount.root()) as root:
        for folder in backend.folders():
            for kind in ("folder", "file"):
                with suppress(FileNotFoundError, UnsafePath, ManifestError):
                    found.append(_holding(root, folder, kind))
                    break
    return sorted(found, key=lambda each: (each.used, each.folder))


def _holding(root: int, folder: str, kind: str) -> Holding:
    marks = Marks.of(folder, kind)
    with beneath.opened(beneath.open_folder(root, marks.folder)) as fd:
        used = beneath.stat_file(fd, marks.head).st_atime
        data = beneath.read_small(fd, marks.head, MAX_HEAD, beneath.UNNOTICED)
        head = Head.parse(data, folder)
        size = head.size
        if beneath.exists(fd, marks.partial):
            size = sum(e.stat(follow_symlinks=False).st_size for _, e in beneath.walk(fd, RESERVED))
    return Holding(folder, head, size, used)


def own_size(mount: Root) -> int:
    """Bytes of artifacts in the store's own areas: stages, replaced and damaged copies."""
    return sum(written(mount, area).size for area in _OWN)


def written(mount: Root, below: str, skip: frozenset[str] = frozenset()) -> Bytes:
    """What has been written so far below a folder of the store's own area.

    A file that is written in any order has holes: only its blocks count, and of blocks that the
    file system has set aside for later only what the file's size comes to.

    Parameters
    ----------
    mount : Root
        The root.
    below : str
        Such as ``part/<generation>``.
    skip : frozenset of str
        Files, as the artifact names them, that are not counted.
    """
    done = Bytes()
    with suppress(FileNotFoundError), beneath.opened(mount.root()) as root:
        with beneath.opened(beneath.open_folder(root, f"{AREA}/{below}")) as fd:
            for path, entry in beneath.walk(fd):
                if path.partition("/")[2] in skip:  # after wip/ or files/
                    continue
                with suppress(FileNotFoundError):
                    stat = entry.stat(follow_symlinks=False)
                    blocks = stat.st_blocks * _SECTOR
                    done += Bytes(min(stat.st_size, blocks), min(in_blocks(stat.st_size), blocks))
    return done


def free(place: str) -> int | None:
    """Bytes that may still be written below a folder, made or not; ``None``: it does not say."""
    while not os.path.exists(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize if found.f_blocks else None
