"""One generation while it is put together on a mounted file system.

``<root>/.tieredstore/<area>/<generation>/wip/`` holds files that are being written; a file whose
bytes have all been verified is renamed to ``files/``, and publication takes ``files/`` as a whole.
In the area ``part`` several processes may write the same generation: they write equal bytes. How
files are written is in ``writing.py``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tieredstore.errors import ManifestError, TieredStoreError, UnsafePath
from tieredstore.manifest.artifact import (
    HEAD,
    MAX_HEAD,
    RECORDS,
    Head,
    check_generation,
    random_hex,
)
from tieredstore.manifest.names import RESERVED
from tieredstore.manifest.records import FileRecord, Records
from tieredstore.mounted import beneath
from tieredstore.mounted.alive import Sign, temporary
from tieredstore.mounted.descriptor import DescriptorReader, matches

AREA: Final = RESERVED
PARTIAL: Final = ".tieredstore.partial"
BLOCKS: Final = "blocks"  # what was read of files that are not restored yet, see kept.py
RECORDS_KEPT: Final = "records"  # beside those
ARRIVED: Final = "arrived"  # what is known of blocks whose files have no manifest
_GOING: Final = "going-"
_MANIFEST: Final = "manifest-"  # begins the name of what becomes a head or records
_MEASURED: Final = f"{_MANIFEST}alone"
_TRIES: Final = 8


@dataclass(frozen=True, slots=True)
class Staged:
    """The folder of one generation in the store's own area of a root."""

    root: str
    area: str
    generation: str
    sign: Sign | None = field(default=None, compare=False, repr=False)  # of who works on it

    @classmethod
    def of_path(cls, root: str, path: str) -> Staged | None:
        """The staged folder that a path of `path` names, or ``None`` when it names none."""
        parts = path.split("/")
        with suppress(ManifestError, ValueError):
            own, area, generation, files = parts
            if own == AREA and area in {"stage", "part"} and files == "files":
                return cls(root, area, check_generation(generation))
        return None

    @property
    def home(self) -> str:
        """Relative to the root: the folder of this generation."""
        return f"{AREA}/{self.area}/{self.generation}"

    @property
    def path(self) -> str:
        """Relative to the root: the folder that becomes the artifact."""
        return f"{self.home}/files"

    def open(self, part: str = "files", *, make: bool = False) -> int:
        """Open ``files``, ``wip`` or (``""``) the generation's own folder."""
        folder = f"{self.home}/{part}".rstrip("/")
        with beneath.opened(beneath.open_root(self.root)) as root:
            if not make:
                return beneath.open_folder(root, folder)
            for _ in range(_TRIES):
                with suppress(FileNotFoundError):  # another has published it, and tidied up
                    return beneath.make_folder(root, folder)
            return beneath.make_folder(root, folder)

    def exists(self) -> bool:
        """Whether there is something to publish."""
        try:
            os.close(self.open())
        except FileNotFoundError:
            return False
        return True

    def begun(self) -> bool:
        """Whether an earlier attempt has left anything, whole or half."""
        for part in ("files", "wip", BLOCKS):
            with suppress(FileNotFoundError), beneath.opened(self.open(part)) as fd:
                with os.scandir(fd) as entries:
                    if next(entries, None) is not None:
                        return True
        return False

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Every regular file in ``files`` but the store's own, with its stat.

        Raises
        ------
        UnsafePath
            For a link or special file.
        """
        with beneath.opened(self.open()) as fd:
            yield from _stats(fd)

    def write_manifest(self, head: Head, records: Records) -> bool:
        """Write records and head beside the staged files, and whether all of them are here.

        What lies there but is not of this generation (an older copy, where an earlier
        replacement was stopped right after its exchange) is dropped. All is flushed at once.

        Returns
        -------
        bool
            False when nothing is staged: another that moves this generation has published it.
        """
        with (
            suppress(FileNotFoundError),
            beneath.opened(self.open("")) as home,
            beneath.opened(self.open()) as fd,
        ):
            there = _which(fd, records) if self.area == "part" else _named(fd, records)
            if not any(there):
                return False
            if self.area == "part":
                for path in [p for p, _ in beneath.walk(fd, RESERVED) if p not in records.files]:
                    with suppress(FileNotFoundError):
                        _unlink(fd, path)
            if all(there):
                with suppress(FileNotFoundError):
                    os.unlink(PARTIAL, dir_fd=fd)
            else:
                _put_whole(home, fd, PARTIAL, b"")
            _put_whole(home, fd, RECORDS, records.emit())
            _put_whole(home, fd, HEAD, head.emit())
            beneath.syncfs(fd)
            return True
        return False

    def write_measured(self, head: Head, records: Records) -> None:
        """Write records and head alone: of files that lie where they belong, and were measured."""
        with beneath.opened(self.open("")) as home, beneath.opened(self.open()) as fd:
            beneath.write_small(home, _MEASURED, b"")
            _put_whole(home, fd, RECORDS, records.emit())
            _put_whole(home, fd, HEAD, head.emit())
            beneath.syncfs(fd)

    def measured(self) -> bool:
        """Whether its files lie where they belong already."""
        with suppress(FileNotFoundError), beneath.opened(self.open("")) as home:
            return beneath.exists(home, _MEASURED)
        return False

    def going(self) -> str:
        """A path for the staged folder while it is exchanged with what it replaces."""
        return f"{self.home}/{_GOING}{random_hex(8)}"

    def recover(self, old: int) -> None:
        """Take back what a replacement that was stopped left under the name of `going`.

        Parameters
        ----------
        old : int
            Where it goes when the exchange was done and it is the copy that was replaced; closed.
        """
        with beneath.opened(old), suppress(FileNotFoundError):
            with beneath.opened(self.open("")) as home:
                for name in os.listdir(home):
                    if name.startswith(_GOING):
                        with suppress(FileNotFoundError):
                            self._recover_one(home, name, old)

    def _recover_one(self, home: int, name: str, old: int) -> None:
        if not self._is_own(home, name):
            os.rename(name, f"{self.generation}-{name}", src_dir_fd=home, dst_dir_fd=old)
            return
        try:
            os.rename(name, "files", src_dir_fd=home, dst_dir_fd=home)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            with beneath.opened(beneath.open_folder(home, name)) as source:
                with beneath.opened(self.open(make=True)) as files:
                    for path in [p for p, _ in beneath.walk(source, RESERVED)]:
                        move_in(source, path, files, path)
            beneath.delete_tree(home, name)
            return
        if not self._is_own(home, "files"):  # exchanged between the two looks
            os.rename("files", f"{self.generation}-{name}", src_dir_fd=home, dst_dir_fd=old)

    def _is_own(self, home: int, name: str) -> bool:
        with suppress(FileNotFoundError, TieredStoreError):
            data = beneath.read_small(home, f"{name}/{HEAD}", MAX_HEAD)
            return Head.parse(data, HEAD).generation == self.generation
        return False

    def delete(self) -> None:
        """Drop everything staged."""
        with suppress(FileNotFoundError), beneath.opened(beneath.open_root(self.root)) as root:
            beneath.delete_tree(root, self.home)
        self.leave()

    def leave(self) -> None:
        """Say that this process works on it no more."""
        if self.sign is not None:
            self.sign.end()

    def tidy(self) -> None:
        """Remove what is left after publication; what another writer still uses stays."""
        with suppress(OSError), beneath.opened(self.open("")) as home:
            with suppress(OSError), beneath.opened(beneath.open_folder(home, BLOCKS)) as kept:
                if beneath.names(kept) == [RECORDS_KEPT]:
                    os.unlink(RECORDS_KEPT, dir_fd=kept)
            for part in ("wip", BLOCKS):
                with suppress(OSError):
                    _remove_empty(home, part)
            names = os.listdir(home)
            for name in [n for n in names if n.startswith(_MANIFEST) or n == ARRIVED]:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=home)
            with suppress(OSError), beneath.opened(self.open()) as files:
                if not any(True for _ in beneath.walk(files, RESERVED)):
                    for name in (HEAD, RECORDS, PARTIAL):
                        with suppress(FileNotFoundError):
                            os.unlink(name, dir_fd=files)
            with suppress(OSError):
                _remove_empty(home, "files")
        with suppress(OSError):
            os.rmdir(os.path.join(self.root, self.home))


def _put_whole(home: int, fd: int, name: str, data: bytes) -> None:
    """Put one of the store's own files beside the staged ones, unless it is there.

    At once: another that moves this generation may have published the folder just now, and who
    reads it must never find half a head.
    """
    with suppress(FileNotFoundError):
        if beneath.read_small(fd, name, len(data)) == data:
            return
    written = temporary(_MANIFEST)
    beneath.write_small(home, written, data)
    beneath.rename(home, written, fd, name)


def _unlink(fd: int, path: str) -> None:
    folder, name = beneath.split(path)
    with beneath.opened(beneath.open_folder(fd, folder)) as above:
        os.unlink(name, dir_fd=above)


def _remove_empty(fd: int, folder: str) -> None:
    with beneath.opened(beneath.open_folder(fd, folder)) as here, os.scandir(here) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _remove_empty(here, entry.name)
    os.rmdir(folder, dir_fd=fd)


def has(fd: int, file: FileRecord) -> bool:
    """Whether a file of that size lies below ``fd``."""
    try:
        return beneath.stat_file(fd, file.path).st_size == file.size
    except OSError:
        return False


def _stats(fd: int) -> Iterator[tuple[str, os.stat_result]]:
    """Every file below ``fd`` but the store's own; each folder is opened once."""
    for path, entry in beneath.walk(fd, RESERVED):
        try:
            found: os.stat_result | None = entry.stat(follow_symlinks=False)
        except OSError:  # a network mount may remember what is no more
            found = None
        if found is None or not stat.S_ISREG(found.st_mode):
            found = beneath.stat_file(fd, path)
        yield path, found


def _which(fd: int, records: Records) -> list[bool]:
    """Which of the files `has` finds below ``fd``, each folder being read once."""
    sizes: dict[str, int] = {}
    with suppress(OSError):  # then each is looked at by itself
        sizes.update((path, found.st_size) for path, found in _stats(fd))
    return [sizes.get(f.path) == f.size or has(fd, f) for f in records.files.values()]


def _named(fd: int, records: Records) -> list[bool]:
    """Which of the files there are below ``fd``, whose sizes the builder has just looked at."""
    names: set[str] = set()
    with suppress(OSError):  # then each is looked at by itself
        names.update(path for path, _ in beneath.walk(fd, RESERVED))
    return [f.path in names or has(fd, f) for f in records.files.values()]


def same_bytes(fd: int, file: FileRecord) -> bool:
    """Whether a file below ``fd`` has the bytes that its record says."""
    with suppress(FileNotFoundError, UnsafePath):
        with DescriptorReader(beneath.open_file(fd, file.path)) as reader:
            return matches(reader, file)
    return False


def move_in(source: int, name: str, target: int, path: str) -> bool:
    """Rename a file into place, its folder made where missing; False when it is not there."""
    folder, _ = beneath.split(path)
    if folder:
        os.close(beneath.make_folder(target, folder))
    try:
        beneath.rename(source, name, target, path)
    except FileNotFoundError:
        return False
    return True
