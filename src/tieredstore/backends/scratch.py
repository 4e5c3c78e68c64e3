"""The scratch of a cluster: a network mount that a group shares, and that is swept now and then.

Folders that the store makes belong to the group of the place, and so does what comes into them
(setgid); the user's umask says what the group may do there. What belongs to others, or was there
before, keeps its owner and mode. Who may only read uses what is there, and leases on this node.
"""

from __future__ import annotations

import grp
import math
import os
import pwd
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Final

from tieredstore import leases
from tieredstore.backend import (
    FileReader,
    FileSource,
    FileWriter,
    FoundHead,
    OnWait,
    Staging,
)
from tieredstore.backends.local import LocalBackend, MountedSource, MountedStaging
from tieredstore.errors import TieredStoreError, TierUnavailable, UnsafePath
from tieredstore.manifest.artifact import Head, digest128
from tieredstore.manifest.records import FileRecord, Records
from tieredstore.mounted import beneath
from tieredstore.mounted.descriptor import DescriptorReader
from tieredstore.mounted.marks import Held
from tieredstore.mounted.purging import DAY, Purged, Refreshed
from tieredstore.mounted.stage import Mount
from tieredstore.mounted.writing import StagedWriter

_WRITTEN: Final = ("", "stage", "part", "old", "alive", "lease")  # of the area, by a publication
_SOON: Final = DAY  # seconds; a file that was used since is not refreshed again


class SharedRoot(Mount):
    """A root below which folders belong to a group."""

    def make_root(self) -> None:
        """Make the root where it is missing, and the folders above it."""
        above, missing = self.path, []
        while not os.path.isdir(above):
            above, name = os.path.split(above)
            missing.append(name)
        if missing:
            with beneath.opened(beneath.open_root(above)) as fd:
                os.close(self.make_below(fd, "/".join(reversed(missing))))

    def make_below(self, fd: int, folder: str) -> int:
        """See `Root.make_below`: what is made belongs to the group of what it is made in."""
        here = os.dup(fd)
        for part in folder.split("/") if folder else ():
            with beneath.opened(here):
                here = _open_or_make(here, part)
        return here


class ScratchBackend(LocalBackend, Purged):
    """A folder on a file system that the nodes of a cluster, and a group of users, share.

    Parameters
    ----------
    path : str
        The root; made when something is first written.
    purge_days : float
        The cluster deletes files that nobody has used for so many days; 0: it deletes none.
    refresh_on_restore : bool
        A restore from here counts as a use of what it reads, also where the mount does not note
        when a file is read.
    """

    mount_type = SharedRoot
    lease_markers = True
    adopts = False  # of data that was purged in part nobody knows what is missing

    def __init__(
        self, path: str, purge_days: float = 0, *, refresh_on_restore: bool = False
    ) -> None:
        super().__init__(path)
        if not (purge_days >= 0 and math.isfinite(purge_days)):
            raise ValueError(f"purge_days is {purge_days!r}, expected a number of days")
        self.purge_days = float(purge_days)
        self.parallel_small = 4
        self._refreshes = refresh_on_restore

    # -- Readable -------------------------------------------------------------------------------

    def read_head(self, folder: str) -> FoundHead | None:
        """See `Readable.read_head`; a copy of which files have been purged is partial."""
        found = super().read_head(folder)
        if found is None or found.partial or not self.purge_days:
            return found
        return replace(found, partial=self._lacks(folder, found.head))

    def _lacks(self, folder: str, head: Head) -> bool:
        held = self._held(folder, head)
        try:
            files = self.mount.records_of(held).files.values()
            return any(held.stat(f.path).st_size != f.size for f in files)
        except FileNotFoundError:
            return True
        finally:
            held.close()

    def read_records(self, folder: str, head: Head) -> Records:
        """See `Readable.read_records`; records that were purged are no damage."""
        if not self.purge_days:
            return super().read_records(folder, head)
        held = self._held(folder, head)
        try:
            return self.mount.records_of(held)
        except FileNotFoundError:
            raise TierUnavailable(f"{self.place}/{folder}: its records have been purged") from None
        finally:
            held.close()

    def source(self, folder: str, head: Head | None) -> FileSource:
        """See `Readable.source`; reading counts as use where that is wanted."""
        if head is None or not self._refreshes:
            return super().source(folder, head)
        held = self._held(folder, head)
        try:
            for path in (held.marks.head, held.records_path()):
                _use_below(held, path)
            return UsingSource(os.dup(held.fd), head.data)
        finally:
            held.close()

    def _held(self, folder: str, head: Head) -> Held:
        held = self.mount.hold(folder, beneath.UNNOTICED)
        if held is None or held.head.generation != head.generation:
            raise FileNotFoundError(f"{self.place}/{folder}: replaced or removed meanwhile")
        return held

    # -- Publishable ----------------------------------------------------------------------------

    def begin(self, folder: str, head: Head) -> Staging:
        """See `Publishable.begin`.

        Raises
        ------
        TierUnavailable
            When the user may only read here.
        """
        refused = self.refused()
        if refused:
            raise TierUnavailable(refused)
        return SharedStaging(self, folder, self.mount.staged("part", head.generation))

    def refused(self) -> str:
        """Why the user may not publish here; empty for who may."""
        above = self.mount.path
        while not os.path.isdir(above) and above != os.path.dirname(above):
            above = os.path.dirname(above)
        for path in (above, *(self.mount.area_path(part).rstrip("/") for part in _WRITTEN)):
            if os.path.isdir(path) and not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
                return f"{path} can only be read by you ({_owned(path)}); ask its owner"
        return ""

    # -- Leasable -------------------------------------------------------------------------------

    def _lease(
        self, key: str, timeout: float | None, on_wait: OnWait
    ) -> AbstractContextManager[None]:
        if self.refused():
            return leases.file_lock(self._on_this_node(), key, timeout, on_wait)
        os.close(self.mount.area("lease"))
        return leases.soft_lease(self.mount.area_path("lease"), key, timeout, on_wait)

    def _on_this_node(self) -> str:
        """A folder for the leases of who may not write to the place; this user's alone."""
        name = f"tieredstore-{os.geteuid()}-{digest128(os.fsencode(self.place))[:16]}"
        folder = os.path.join(tempfile.gettempdir(), name)
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise UnsafePath(f"{folder}: belongs to another; expected a folder of one's own")
        return folder

    # -- Purged ---------------------------------------------------------------------------------

    def expires(self, folder: str, head: Head) -> float:
        """See `Purged.expires`."""
        held = self._held(folder, head)
        try:
            return min(_used(s) for _, s in self._files(held)) + self.purge_days * DAY
        finally:
            held.close()

    def refresh(self, folder: str, head: Head) -> Refreshed:
        """See `Purged.refresh`."""
        held = self._held(folder, head)
        try:
            since = time.time() - _SOON
            for path, found in self._files(held):
                if _used(found) < since:
                    _use_below(held, path)
            used = [_used(s) for _, s in self._files(held)]
            stale = sum(each < since for each in used)
            return Refreshed(len(used), stale, min(used) + self.purge_days * DAY)
        finally:
            held.close()

    def _files(self, held: Held) -> Iterator[tuple[str, os.stat_result]]:
        """The files of a copy, its manifest's first; those that are gone are left out."""
        files: Iterable[str] = ()
        with suppress(OSError, TieredStoreError):
            files = self.mount.records_of(held).files
        yield held.marks.head, beneath.stat_file(held.fd, held.marks.head)
        for path in (held.records_path(), *files):
            with suppress(FileNotFoundError):
                yield path, beneath.stat_file(held.fd, path)


class UsingSource(MountedSource):
    """Files of which each that is opened counts as used."""

    def open(self, file: str) -> FileReader:
        """See `FileSource.open`."""
        reader = super().open(file)
        if isinstance(reader, DescriptorReader):
            _use(reader.fileno())
        return reader


class SharedStaging(MountedStaging):
    """A generation being moved to a place that others may read."""

    def create(self, file: FileRecord) -> FileWriter:
        """See `Staging.create`."""
        return SharedWriter(self._folders, file)


class SharedWriter(StagedWriter):
    """A file whose mode is what the umask gives, executable where its record says so."""

    def _finish(self, file: int) -> None:
        with suppress(PermissionError):  # begun by another of the group: it stays that one's
            given = stat.S_IMODE(os.fstat(file).st_mode)
            if self._record.mode & stat.S_IXUSR:
                os.fchmod(file, given | (given & 0o444) >> 2)
            self._set_time(file)


def _open_or_make(fd: int, name: str) -> int:
    with suppress(FileNotFoundError):
        return beneath.open_folder(fd, name)
    try:
        os.mkdir(name, dir_fd=fd)
    except FileExistsError:  # another was faster: it is that one's
        return beneath.open_folder(fd, name)
    made = beneath.open_folder(fd, name)
    _share(made, os.fstat(fd).st_gid)
    return made


def _share(fd: int, group: int) -> None:
    """Give a folder that was just made to a group, and what will be made in it."""
    found = os.fstat(fd)
    with suppress(OSError):  # not in that group, or a place without groups
        if found.st_gid != group:
            os.fchown(fd, -1, group)
        if os.fstat(fd).st_gid == group and not found.st_mode & stat.S_ISGID:
            os.fchmod(fd, stat.S_IMODE(found.st_mode) | stat.S_ISGID)


def _owned(path: str) -> str:
    """Owner, group and mode, as ``ls -l`` says them."""
    found = os.stat(path)
    user, group = str(found.st_uid), str(found.st_gid)
    with suppress(KeyError):
        user = pwd.getpwuid(found.st_uid).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(found.st_gid).gr_name
    return f"{stat.filemode(found.st_mode)} {user}:{group}"


def _used(found: os.stat_result) -> float:
    return max(found.st_atime, found.st_mtime)


def _use_below(held: Held, path: str) -> None:
    with suppress(OSError), beneath.opened(beneath.open_file(held.fd, path)) as file:
        _use(file)


def _use(file: int) -> None:
    """Read a byte, and where the file is one's own say that it was read now."""
    with suppress(OSError):
        os.pread(file, 1, 0)
        os.utime(file, ns=(time.time_ns(), os.fstat(file).st_mtime_ns))
