"""How artifacts on a mounted file system are published, replaced, completed and taken away.

Everything the store keeps for itself lies in ``<root>/.tieredstore/``::

    stage/<generation>/   a build, written by one process, never taken over (see staged.py)
    part/<generation>/    a restore or promote, resumed and shared by whoever moves that generation
    old/<generation>-…/   replaced or removed copies, until the grace period is over
    damaged/              copies that differ from their manifest, kept until somebody removes them
    swap/                 replacements that are under way where folders cannot be exchanged
    lease/                locks and leases (see leases.py)

Nothing here depends on a lock: an interrupted publication is completed by whoever comes next.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from tieredstore import beneath
from tieredstore.artifact import (
    HEAD,
    MAX_HEAD,
    RESERVED,
    Head,
    check_file,
    digest128,
    parents,
    random_hex,
)
from tieredstore.errors import HeadConflict, ManifestError, TieredStoreError, UnsafePath
from tieredstore.inplace import finish_filling, lay_mark, lift_mark, remove_forward, roll_forward
from tieredstore.marks import Held, Marks, Pending, pending_entries, read_mark
from tieredstore.records import MAX_RECORDS, Records
from tieredstore.staged import AREA, Staged, has, move_in

_ATTEMPTS: Final = 50
_LOOKS: Final = 3
GRACE: Final = 3600.0  # seconds that an old generation stays for those who still read it


class Mount:
    """One root on a mounted file system.

    Parameters
    ----------
    path : str
        The root. It is made when something is first written, never when it is read.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def root(self) -> int:
        """Open the root for reading."""
        return beneath.open_root(self.path)

    def area(self, part: str) -> int:
        """Open a folder of the store's own, made where it is missing."""
        os.makedirs(self.path, exist_ok=True)
        with beneath.opened(self.root()) as root:
            if not beneath.exists(root, AREA):
                with beneath.opened(beneath.make_folder(root, AREA)) as own:
                    beneath.write_small(own, ".gitignore", b"*\n")
            return beneath.make_folder(root, f"{AREA}/{part}")

    def area_path(self, *parts: str) -> str:
        """The path of something in the store's own area."""
        return os.path.join(self.path, AREA, *parts)

    def staged(self, area: str, generation: str) -> Staged:
        """A folder to put a generation together in, made where it is missing."""
        os.close(self.area(area))
        staged = Staged(self.path, area, generation)
        staged.recover(self.area("old"))
        os.close(staged.open(make=True))
        return staged

    # -- reading --------------------------------------------------------------------------------

    def hold(self, folder: str) -> Held | None:
        """Hold the artifact at ``folder``, or ``None`` where there is no whole one.

        Raises
        ------
        ManifestError
            When there is a head that cannot be believed.
        """
        quiet = 0
        for _ in range(_ATTEMPTS):
            found = self._hold(folder)
            if found is not None or self.pending(folder) is not None:
                return found
            # A replacement in two steps that has just ended leaves no note: look once more.
            quiet = 0 if self._help_swaps(folder) else quiet + 1
            if quiet == _LOOKS:
                break
        return None

    def _hold(self, folder: str) -> Held | None:
        try:
            root = self.root()
        except FileNotFoundError:
            return None
        with beneath.opened(root):
            for kind in ("folder", "file"):
                marks = Marks.of(folder, kind)
                try:
                    fd = beneath.open_folder(root, marks.folder)
                except FileNotFoundError:
                    continue
                held = self._held(fd, marks)
                if held is not None:
                    return held
        return None

    def _held(self, fd: int, marks: Marks) -> Held | None:
        """Hold the open folder, which is closed where there is nothing whole in it."""
        try:
            # The head on both sides of the mark: it was in place while nothing was under way.
            for _ in range(_LOOKS):
                data = _small(fd, marks.head)
                if pending_entries(fd, marks):
                    break
                if data is not None and data == _small(fd, marks.head):
                    head = Head.parse(data, os.path.join(self.path, marks.folder, marks.head))
                    return Held(fd, marks, head, beneath.exists(fd, marks.partial))
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def pending(self, folder: str) -> Pending | None:
        """What the pending mark at ``folder`` says, or ``None`` where there is none."""
        with suppress(FileNotFoundError), beneath.opened(self.root()) as root:
            for kind in ("folder", "file"):
                marks = Marks.of(folder, kind)
                with suppress(FileNotFoundError):
                    with beneath.opened(beneath.open_folder(root, marks.folder)) as fd:
                        mark = read_mark(fd, marks)
                    if mark is not None:
                        return mark
        return None

    def unmanaged(self, folder: str, files: Sequence[str] | None = None) -> list[str]:
        """What of a folder could be adopted: the files named, or every regular file.

        Nothing where there is a manifest or a pending mark, except that an adopted manifest,
        which knows no recipe, may grow by files that were not asked for when it was made.
        """
        try:
            with beneath.opened(self.root()) as root:
                fd = beneath.open_folder(root, folder)
        except FileNotFoundError:
            return []
        with beneath.opened(fd):
            if pending_entries(fd, Marks(folder)):
                return []
            held = self._believable(fd, Marks(folder))
            if held is None and beneath.exists(fd, Marks(folder).head):
                return []
            if files is None:
                return _all_regular(fd) if held is None else []
            return self._adoptable(fd, held, files)

    def _adoptable(self, fd: int, held: Held | None, files: Sequence[str]) -> list[str]:
        known: list[str] = []
        if held is not None:
            if held.head.recipe is not None:
                return []
            known = list(self.records_of(held).files)
            if set(files) <= set(known):
                return []
        wanted = list(dict.fromkeys([*known, *files]))
        try:
            for file in wanted:
                beneath.stat_file(fd, check_file(file))
                if any(has_file(fd, f"{above}/{HEAD}") for above in parents(file)):
                    return []  # another artifact's
        except FileNotFoundError:
            return []
        return wanted

    def records_of(self, held: Held) -> Records:
        """The records of a held artifact, verified against its head."""
        limit = min(held.head.records_size, MAX_RECORDS)
        data = beneath.read_small(held.fd, held.records_path(), limit)
        where = os.path.join(self.path, held.marks.folder, held.marks.records)
        return Records.parse(data, held.head.records_digest, where)

    def keeps_case(self) -> bool:
        """Whether names that differ only in case are two files here."""
        os.close(self.area("stage"))
        return not os.path.exists(self.area_path("STAGE"))

    # -- publishing -----------------------------------------------------------------------------

    def publish(self, staged: Staged, folder: str, head: Head, records: Records) -> None:
        """Make what is staged the artifact at ``folder``: whole, or not at all.

        The staged files have been verified. Head and records are written beside them, the file
        system is flushed once, and the folder takes its place in one step; a folder that holds
        anything its manifest does not name gets its files one by one under a pending mark.

        Raises
        ------
        HeadConflict
            When others kept replacing the artifact at the same time.
        """
        if staged.write_manifest(replace(head, data=""), records):
            for _ in range(_ATTEMPTS):
                self.complete(folder)
                if not staged.exists():
                    break
                if self._place(staged, folder, head, records):
                    self._sync_folder(folder)
                    staged.tidy()
                    return
        held = self.hold(folder)
        if held is None or held.head.generation != head.generation:
            raise HeadConflict(f"{self.path}/{folder}: kept changing while it was being published")
        held.close()

    def put_manifest(self, folder: str, head: Head, records: Records) -> None:
        """Give files that lie in ``folder`` already, and have been measured, their manifest.

        A pending mark is lifted: the head is in place before readers may look for it.
        """
        marks = Marks.of(folder, head.kind)
        with beneath.opened(self.root()) as root, beneath.opened(self.area("stage")) as area:
            with beneath.opened(beneath.open_folder(root, marks.folder)) as fd:
                beneath.syncfs(fd)
                with suppress(FileNotFoundError):  # of an adopted manifest that grows
                    os.unlink(marks.head, dir_fd=fd)
                for name, data in ((marks.records, records.emit()), (marks.head, head.emit())):
                    temporary = f"manifest-{random_hex(8)}"
                    beneath.write_small(area, temporary, data)
                    beneath.syncfs(area)
                    os.rename(temporary, name, src_dir_fd=area, dst_dir_fd=fd)
                os.fsync(fd)
                with suppress(FileNotFoundError):
                    os.unlink(marks.partial, dir_fd=fd)
                lift_mark(fd, marks, Pending("filling", head.generation))
                os.fsync(fd)

    def mark_filling(self, folder: str, generation: str, required: tuple[str, ...]) -> None:
        """Hide the artifact at ``folder``, made where it is missing, while files are put in.

        Raises
        ------
        HeadConflict
            When others kept publishing it at the same time.
        """
        mark = Pending("filling", generation, required=required)
        for _ in range(_ATTEMPTS):
            with beneath.opened(self.area("stage")) as area, beneath.opened(self.root()) as root:
                with beneath.opened(beneath.make_folder(root, folder)) as fd:
                    if lay_mark(area, fd, Marks(folder), mark):
                        return
            self.complete(folder)
        raise HeadConflict(f"{self.path}/{folder}: kept being published while files were put in")

    def _place(self, staged: Staged, folder: str, head: Head, records: Records) -> bool:
        marks = Marks.of(folder, head.kind)
        with beneath.opened(self.root()) as root:
            os.close(beneath.make_folder(root, beneath.split(folder)[0]))
            try:
                fd = beneath.open_folder(root, marks.folder)
            except FileNotFoundError:
                return self._place_new(root, staged, folder)
            with beneath.opened(fd):
                held = self._believable(fd, marks)
                same = held is not None and held.head.generation == head.generation
                if head.kind == "folder" and not same and self._holds_nothing_else(fd, held):
                    return self._replace(root, staged, folder, held)
                if same:
                    return self._add_files(staged, fd, marks, records)
                return self._place_one_by_one(staged, fd, marks)

    def _believable(self, fd: int, marks: Marks) -> Held | None:
        with suppress(ManifestError):
            return self._held(os.dup(fd), marks)
        return None

    def _holds_nothing_else(self, fd: int, held: Held | None) -> bool:
        """Whether a folder holds only what the manifest names, so that it may go as a whole."""
        named: frozenset[str] = frozenset()
        own = Marks("").own()
        if held is not None:
            with suppress(TieredStoreError, FileNotFoundError):
                named = frozenset(self.records_of(held).files)
        for path, entry in beneath.walk(fd):
            if path not in named and path not in own:
                return False
            if not entry.is_file(follow_symlinks=False):
                return False
        return not pending_entries(fd, Marks(""))

    def _place_new(self, root: int, staged: Staged, folder: str) -> bool:
        try:
            beneath.rename(root, staged.path, root, folder)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                return False
            raise
        return True

    def _replace(self, root: int, staged: Staged, folder: str, held: Held | None) -> bool:
        old = f"{AREA}/old/{held.head.generation if held else 'empty'}-{random_hex(4)}"
        os.close(self.area("old"))
        # Under a name of its own meanwhile: what an exchange brings out must never be taken for
        # files of the generation that is staged.
        going = staged.going()
        try:
            beneath.rename(root, staged.path, root, going)
            exchanged = beneath.exchange(root, going, folder)
        except FileNotFoundError:
            staged.recover(self.area("old"))
            return False  # somebody else was here; look again
        if not exchanged:
            staged.recover(self.area("old"))
            return self._move_aside(root, staged, folder, old)
        with suppress(FileNotFoundError):
            beneath.rename(root, going, root, old)
        return True

    def _move_aside(self, root: int, staged: Staged, folder: str, old: str) -> bool:
        """Replace in two steps, with a note that lets a reader do the second one."""
        note = f"{digest128(folder.encode())}-{random_hex(4)}"
        with beneath.opened(self.area("swap")) as swap:
            body = json.dumps({"folder": folder, "staged": staged.path}).encode()
            beneath.write_small(swap, f".{note}", body)
            os.rename(f".{note}", note, src_dir_fd=swap, dst_dir_fd=swap)
            os.fsync(swap)
            with suppress(FileNotFoundError):
                beneath.rename(root, folder, root, old)
            placed = self._place_new(root, staged, folder) or not staged.exists()
            with suppress(FileNotFoundError):
                os.unlink(note, dir_fd=swap)
        return placed

    def _swap_notes(self, folder: str) -> list[str]:
        try:
            found = os.listdir(self.area_path("swap"))
        except OSError:
            return []
        return [note for note in found if note.startswith(digest128(folder.encode()))]

    def _help_swaps(self, folder: str) -> bool:
        """Do the second step of replacements that have been seen between their two steps."""
        notes = self._swap_notes(folder)
        for note in notes:
            with suppress(OSError, ValueError, KeyError, TieredStoreError):
                with beneath.opened(self.root()) as root:
                    body = json.loads(beneath.read_small(root, f"{AREA}/swap/{note}", MAX_HEAD))
                    staged = Staged.of_path(self.path, str(body["staged"]))
                    if body["folder"] != folder or staged is None:
                        continue
                    if staged.exists():
                        self._place_new(root, staged, folder)
                    else:  # the second step is done, its author was stopped before he said so
                        os.unlink(self.area_path("swap", note))
        return bool(notes)

    def _place_one_by_one(self, staged: Staged, fd: int, marks: Marks) -> bool:
        """Put the staged files in beside what lies there already, under a pending mark."""
        mark = Pending("publishing", staged.generation, staged.area)
        with beneath.opened(self.area("stage")) as area:
            if not lay_mark(area, fd, marks, mark):
                return False  # another publication is under way: complete it first
        roll_forward(staged, fd, marks, self._retire_file)
        return True

    def _retire_file(self, fd: int, path: str) -> None:
        """Move a file into the store's area: kept for the grace period, out of sight."""
        name = f"{random_hex(8)}-{beneath.split(path)[1].lstrip('.')[:200]}"
        with beneath.opened(self.area("old")) as old, suppress(FileNotFoundError):
            beneath.rename(fd, path, old, name)

    def _add_files(self, staged: Staged, fd: int, marks: Marks, records: Records) -> bool:
        """More files of the generation that is there already; each appears whole."""
        with suppress(FileNotFoundError), beneath.opened(staged.open()) as source:
            for path in records.files:
                move_in(source, path, fd, path)
            beneath.syncfs(fd)
            if all(has(fd, f) for f in records.files.values()):
                with suppress(FileNotFoundError):
                    os.unlink(marks.partial, dir_fd=fd)
        return True

    def complete(self, folder: str) -> None:
        """Bring an interrupted publication of ``folder`` to its end, if there is one."""
        with suppress(FileNotFoundError), beneath.opened(self.root()) as root:
            for kind in ("folder", "file"):
                marks = Marks.of(folder, kind)
                with suppress(FileNotFoundError):
                    with beneath.opened(beneath.open_folder(root, marks.folder)) as fd:
                        mark = read_mark(fd, marks)
                        if mark is not None:
                            self._complete_mark(fd, marks, mark)
        if self._swap_notes(folder):
            with suppress(ManifestError):
                held = self.hold(folder)  # helps
                if held is not None:
                    held.close()

    def _complete_mark(self, fd: int, marks: Marks, mark: Pending) -> None:
        if mark.kind == "publishing":
            staged = Staged(self.path, mark.area, mark.generation)
            roll_forward(staged, fd, marks, self._retire_file)
        elif mark.kind == "removing":
            self._remove_forward(fd, marks, mark)
        else:
            finish_filling(fd, marks, mark)

    def _sync_folder(self, folder: str) -> None:
        with suppress(FileNotFoundError), beneath.opened(self.root()) as root:
            with beneath.opened(beneath.open_folder(root, beneath.split(folder)[0])) as fd:
                os.fsync(fd)

    # -- taking away ----------------------------------------------------------------------------

    def retire(self, folder: str, generation: str, area: str = "old") -> str | None:
        """Take a generation out of sight.

        Parameters
        ----------
        folder, generation : str
            What to take away; another generation is left alone.
        area : str
            ``old``, or ``damaged`` to keep it until somebody removes it.

        Returns
        -------
        str or None
            Where it is kept, relative to the root; ``None`` when it was not there any more.
        """
        self.complete(folder)
        for note in self._swap_notes(folder):  # or a reader would bring it back
            with suppress(FileNotFoundError):
                os.unlink(self.area_path("swap", note))
        held = self.hold(folder)
        if held is None or held.head.generation != generation:
            return None
        place = f"{AREA}/{area}/{generation}-{random_hex(4)}"
        os.close(self.area(area))
        with beneath.opened(self.root()) as root:
            if held.head.kind == "folder" and self._holds_nothing_else(held.fd, held):
                beneath.rename(root, folder, root, place)
                if not self._took(root, place, generation):
                    with suppress(OSError):  # published just then: put it back
                        beneath.rename(root, place, root, folder)
                    return None
                self._sync_folder(folder)
                return place
        mark = Pending("removing", generation, area)
        with beneath.opened(self.area("stage")) as own:
            if not lay_mark(own, held.fd, held.marks, mark):
                return None  # being replaced
        return self._remove_forward(held.fd, held.marks, mark)

    def _took(self, root: int, place: str, generation: str) -> bool:
        with suppress(FileNotFoundError, TieredStoreError):
            data = beneath.read_small(root, f"{place}/{HEAD}", MAX_HEAD)
            return Head.parse(data, place).generation == generation
        return False

    def _remove_forward(self, fd: int, marks: Marks, mark: Pending) -> str:
        place = f"{AREA}/{mark.area}/{mark.generation}-{random_hex(4)}"
        os.close(self.area(mark.area))
        with beneath.opened(self.root()) as root:
            with beneath.opened(beneath.make_folder(root, place)) as target:
                remove_forward(fd, marks, mark, target)
        return place

    def delete(self, place: str) -> None:
        """Delete something that `retire` put away."""
        with beneath.opened(self.root()) as root:
            beneath.delete_tree(root, place)

    def sweep_old(self, grace: float = GRACE) -> None:
        """Delete what was put away longer ago than ``grace`` seconds."""
        with suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(self.area_path("old")):
                path = self.area_path("old", name)
                with suppress(OSError):
                    if time.time() - os.lstat(path).st_ctime <= grace:
                        continue
                    if os.path.isdir(path) and not os.path.islink(path):
                        import shutil

                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        os.unlink(path)


def _all_regular(fd: int) -> list[str]:
    """Every regular file, or none where the folder holds artifacts: they belong to no other."""
    found: list[str] = []
    for path, entry in beneath.walk(fd):
        *above, name = path.split("/")
        if any(part.startswith(RESERVED) for part in above) or (
            name.startswith(RESERVED) and name.endswith(".json")
        ):
            return []
        if not name.startswith(RESERVED) and entry.is_file(follow_symlinks=False):
            found.append(path)
    return sorted(found)


def has_file(fd: int, path: str) -> bool:
    """Whether a regular file lies there."""
    with suppress(FileNotFoundError, UnsafePath):
        beneath.stat_file(fd, path)
        return True
    return False


def _small(fd: int, name: str) -> bytes | None:
    with suppress(FileNotFoundError):
        return beneath.read_small(fd, name, MAX_HEAD)
    return None
