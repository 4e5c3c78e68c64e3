"""A folder on a local disk: published by rename and exchange, locked by ``flock``."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from tieredstore import leases
from tieredstore.backend import (
    ANY_HEAD,
    Expected,
    FileReader,
    FileSource,
    FileStat,
    FileWriter,
    FoundHead,
    Leasable,
    OnWait,
    Publishable,
    Readable,
    Staging,
)
from tieredstore.errors import HeadConflict
from tieredstore.manifest.artifact import HEAD, RECORDS, Head
from tieredstore.manifest.names import RESERVED
from tieredstore.manifest.records import BLOCK, FileRecord, Records
from tieredstore.mounted import beneath, small
from tieredstore.mounted.arrived import ArrivedBlocks
from tieredstore.mounted.descriptor import DescriptorReader
from tieredstore.mounted.litter import MountedLitter
from tieredstore.mounted.marks import Held, Marks
from tieredstore.mounted.stage import Mount
from tieredstore.mounted.staged import Staged
from tieredstore.mounted.versions import Versions
from tieredstore.mounted.writing import StagedFolders, StagedWriter
from tieredstore.notes import MAX_NOTE
from tieredstore.pinned import BlockLog, Pinning, Remembering, changed
from tieredstore.recordable import Recordable, Versioned

_LOOKS = 3
_PUBLISH_WAIT = 60.0  # seconds; a publication takes far less, and goes on without the lock


class LocalBackend(Readable, Publishable, Leasable, Recordable, Pinning, MountedLitter):
    """A folder on a local file system.

    Parameters
    ----------
    path : str
        The root; made when something is first written.
    """

    mount_type: ClassVar[type[Mount]] = Mount
    adopts: ClassVar[bool] = True  # data without a manifest is accepted, where nothing else is said
    remote = False

    def __init__(self, path: str) -> None:
        self.mount = self.mount_type(path)
        self.place = self.mount.path
        self.request = (
            BLOCK  # small enough to stay in a core's cache between read, digest and write
        )
        self.parallel = min(8, os.cpu_count() or 1)
        self.parallel_small = 1

    @property
    def keeps_case(self) -> bool:  # type: ignore[override]
        """Whether ``A`` and ``a`` are two files here, as the file system says."""
        try:
            return self.mount.keeps_case()
        except OSError:
            return True

    # -- Readable -------------------------------------------------------------------------------

    def stat(self, path: str) -> FileStat:
        """See `Readable.stat`."""
        with beneath.opened(self.mount.root()) as root:
            return _file_stat(path, beneath.stat_file(root, path))

    def open(self, path: str) -> FileReader:
        """See `Readable.open`."""
        with beneath.opened(self.mount.root()) as root:
            return DescriptorReader(beneath.open_file(root, path))

    def open_pinned(self, file: FileStat) -> FileReader:
        """See `Pinning.open_pinned`; a file that was replaced is noticed when it is opened."""
        with beneath.opened(self.mount.root()) as root:
            return _PinnedFile(self.place, file, beneath.open_file(root, file.path))

    def list(self, folder: str) -> Iterator[FileStat]:
        """See `Readable.list`; the store's own area is left out."""
        try:
            with beneath.opened(self.mount.root()) as root:
                fd = beneath.open_folder(root, folder)
        except FileNotFoundError:
            return
        with beneath.opened(fd):
            for path, entry in beneath.walk(fd):
                if path.startswith(f"{RESERVED}/") and not folder:
                    continue
                if entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        yield _file_stat(f"{folder}/{path}" if folder else path, found)

    def folders(self, below: str = "") -> Iterator[str]:
        """See `Readable.folders`; an artifact's own folder is not searched further."""
        try:
            with beneath.opened(self.mount.root()) as root:
                start = beneath.open_folder(root, below)
        except FileNotFoundError:
            return
        with beneath.opened(start):
            queue = [""]
            while queue:
                folder = queue.pop()
                with suppress(FileNotFoundError):
                    found, inner = _artifacts_in(start, folder)
                    queue.extend(inner)
                    yield from ("/".join(p for p in (below, f) if p) for f in found)

    def hold(self, folder: str, flags: int = os.O_RDONLY) -> Held | None:
        """Hold the artifact at ``folder`` open; an interrupted publication is completed first."""
        for _ in range(_LOOKS):
            held = self.mount.hold(folder, flags)
            if held is not None:
                return held
            mark = self.mount.pending(folder)
            if mark is None:
                continue  # absent, or completed by somebody else between the two looks
            if mark.kind == "filling":
                return None
            with suppress(OSError), self.publishing(folder):
                self.mount.complete(folder)
        return None

    def read_head(self, folder: str) -> FoundHead | None:
        """See `Readable.read_head`; a look at what is here is no use of it."""
        held = self.hold(folder, beneath.UNNOTICED)
        if held is None:
            return None
        try:
            return FoundHead(held.head, held.head.generation, held.partial)
        finally:
            held.close()

    def data_path(self, folder: str, head: Head, file: str) -> str:
        """See `Readable.data_path`; a single file lies where its name says."""
        if head.kind == "folder":
            return super().data_path(folder, head, file)
        marks = Marks.of(folder, "file")
        name = marks.records if file == RECORDS else file
        return "/".join(part for part in (marks.folder, head.data, name) if part)

    def source(self, folder: str, head: Head | None) -> FileSource:
        """See `Readable.source`; the folder is held, so that all files are of one generation."""
        if head is None:
            with beneath.opened(self.mount.root()) as root:
                return MountedSource(beneath.open_folder(root, folder), "")
        held = self.mount.hold(folder)
        if held is None or held.head.generation != head.generation:
            raise FileNotFoundError(errno.ENOENT, "Replaced or removed meanwhile", folder)
        try:
            return MountedSource(os.dup(held.fd), head.data)
        finally:
            held.close()

    # -- Publishable ----------------------------------------------------------------------------

    def begin(self, folder: str, head: Head) -> Staging:
        """See `Publishable.begin`."""
        return MountedStaging(self, folder, self.mount.staged("part", head.generation))

    def publish(
        self, staged: Staged, folder: str, head: Head, records: Records, expected: Expected
    ) -> None:
        """Publish a staged folder; what replaces what is checked under the publish lock."""
        with self.publishing(folder):
            if expected is not ANY_HEAD:
                with suppress(OSError):
                    self.mount.complete(folder)  # what has been written there file by file counts
                found = None
                with suppress(ValueError):
                    found = self.mount.hold(folder)
                now = None if found is None else found.head.generation
                if found is not None:
                    found.close()
                if now not in {expected, head.generation}:
                    raise HeadConflict(f"{self.place}/{folder}: {now} was published meanwhile")
            self.mount.publish(staged, folder, head, records)
        self.mount.sweep_old()

    def mend(self, staged: Staged, folder: str, head: Head, records: Records) -> None:
        """Put staged files in the stead of damaged ones, see `Mount.mend`."""
        with self.publishing(folder):
            self.mount.mend(staged, folder, head, records)

    @contextmanager
    def publishing(self, folder: str) -> Iterator[None]:
        """Hold the lock under which what lies at ``folder`` is changed, where it can be had."""
        with ExitStack() as stack:
            with suppress(OSError):  # without it, what is published is whole all the same
                lock = self._lease(f"{folder}.publish", _PUBLISH_WAIT, lambda _: None)
                stack.enter_context(lock)
            yield

    def remove(self, folder: str, head: Head) -> None:
        """See `Publishable.remove`."""
        with self.publishing(folder):
            place = self.mount.retire(folder, head.generation)
        if place is not None:
            self.mount.delete(place)

    def set_aside(self, folder: str, head: Head) -> str:
        """See `Publishable.set_aside`."""
        with self.publishing(folder):
            place = self.mount.retire(folder, head.generation, "damaged")
        return os.path.join(self.place, place) if place else "(it was gone already)"

    # -- Leasable -------------------------------------------------------------------------------

    def lease(
        self, key: str, timeout: float | None, on_wait: OnWait
    ) -> AbstractContextManager[None]:
        """See `Leasable.lease`."""
        return self._lease(key, timeout, on_wait)

    def _lease(
        self, key: str, timeout: float | None, on_wait: OnWait
    ) -> AbstractContextManager[None]:
        os.close(self.mount.area("lease"))
        return leases.file_lock(self.mount.area_path("lease"), key, timeout, on_wait)

    def read_note(self, key: str) -> bytes:
        """See `Leasable.read_note`."""
        return small.read(self.mount, "lease", leases.note_name(key), MAX_NOTE)

    def write_note(self, key: str, note: bytes) -> None:
        """See `Leasable.write_note`."""
        name = leases.note_name(key)
        if note:
            small.put(self.mount, "lease", name, note)
        else:
            small.remove(self.mount, "lease", name)

    # -- Recordable -----------------------------------------------------------------------------

    def read_record(self, path: str) -> Versioned | None:
        """See `Recordable.read_record`."""
        return Versions(self.mount, path).read()

    def swap_record(self, path: str, data: bytes, version: str | None) -> None:
        """See `Recordable.swap_record`."""
        Versions(self.mount, path).swap(data, version)


class MountedSource(FileSource):
    """The files of a folder that is held open."""

    def __init__(self, fd: int, data: str) -> None:
        self._root = beneath.Folders(fd)
        self._data = f"{data}/" if data else ""
        self._threads = threading.local()

    def open(self, file: str) -> FileReader:
        """See `FileSource.open`."""
        folders: beneath.Folders | None = getattr(self._threads, "folders", None)
        if folders is None:
            folders = self._threads.folders = beneath.Folders(os.dup(self._root.at("")))
        return DescriptorReader(folders.open_file(self._data + file))


class _PinnedFile(DescriptorReader):
    """An open file that nobody may write to meanwhile."""

    def __init__(self, place: str, file: FileStat, fd: int) -> None:
        super().__init__(fd)
        self._place = place
        self._file = file
        self._check()

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        got = super().readinto(offset, buffer)
        self._check()
        return got

    def _check(self) -> None:
        now = _file_stat(self._file.path, self.stat())
        if now.tag != self._file.tag:
            raise changed(self._place, self._file, now)


class MountedStaging(Staging, Remembering):
    """A generation being moved to a mounted place."""

    any_order = True

    def __init__(self, backend: LocalBackend, folder: str, staged: Staged) -> None:
        self._backend = backend
        self._folder = folder
        self._staged = staged
        self.resumes = staged.begun()
        self.parallel_small = backend.parallel_small
        self._threads = threading.local()

    def create(self, file: FileRecord) -> FileWriter:
        """See `Staging.create`."""
        return StagedWriter(self._folders, file)

    def staged(self, file: FileRecord) -> FileReader | None:
        """See `Staging.staged`."""
        return self._folders().begun(file)

    def holds(self, file: FileRecord) -> bool:
        """See `Staging.holds`."""
        return self._folders().holds(file)

    @property
    def folder(self) -> Path:
        """See `Remembering.folder`."""
        return Path(self._staged.root, self._staged.path)

    def arrived(self) -> BlockLog:
        """See `Remembering.arrived`."""
        return ArrivedBlocks(self._staged)

    def reading(self, file: FileRecord) -> FileReader:
        """See `Remembering.reading`."""
        found = self._folders().begun(file)
        return found if found is not None else self._folders().accepted(file)

    def _folders(self) -> StagedFolders:
        folders: StagedFolders | None = getattr(self._threads, "folders", None)
        if folders is None:
            folders = self._threads.folders = StagedFolders(self._staged)
        return folders

    def publish(self, head: Head, records: Records, expected: Expected) -> None:
        """See `Staging.publish`."""
        try:
            self._backend.publish(self._staged, self._folder, head, records, expected)
        finally:
            self._staged.leave()

    def mend(self, head: Head, records: Records, expected: Expected) -> None:
        """See `Staging.mend`."""
        del expected  # the generation that lies there, or a damaged head
        self._backend.mend(self._staged, self._folder, head, records)

    def discard(self) -> None:
        """See `Staging.discard`."""
        self._staged.delete()


def _file_stat(path: str, found: os.stat_result) -> FileStat:
    tag = f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"
    return FileStat(path, found.st_size, found.st_mtime_ns, found.st_mode & 0o777, tag)


def _artifacts_in(fd: int, folder: str) -> tuple[list[str], list[str]]:
    """Artifacts that lie directly in a folder, and the folders to look into next."""
    begin, end = f"{RESERVED}.", ".json"
    found: list[str] = []
    inner: list[str] = []
    with beneath.opened(beneath.open_folder(fd, folder)) as here, os.scandir(here) as entries:
        for entry in entries:
            path = f"{folder}/{entry.name}".lstrip("/")
            if entry.name == HEAD:
                return [folder], []
            if entry.name.startswith(begin) and entry.name.endswith(end):
                found.append(f"{folder}/{entry.name[len(begin) : -len(end)]}".lstrip("/"))
            elif entry.is_dir(follow_symlinks=False) and entry.name != RESERVED:
                inner.append(path)
    return found, inner
