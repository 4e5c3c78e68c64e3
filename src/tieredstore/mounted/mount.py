"""A root on a mounted file system: the store's own area in it, and artifacts held for reading.

Everything the store keeps for itself lies in ``<root>/.tieredstore/``::

    stage/<generation>/   a build, written by one process, never taken over (see staged.py)
    part/<generation>/    a restore or promote, resumed and shared by whoever moves that generation
    old/<generation>-…/   replaced or removed copies, until the grace period is over
    damaged/              copies that differ from their manifest, kept until somebody removes them
    swap/                 replacements that are under way where folders cannot be exchanged
    fill/                 what files put in one by one are made of (see ledger.py)
    journal/<generation>/ what was changed in artifacts file by file (see journal.py)
    lease/                locks and leases (see leases.py)
    alive/                who works on what (see alive.py)
    gone/                 what is being deleted (see mounted_litter.py)

Publishing and taking away are in stage.py.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from tieredstore.errors import ManifestError, TieredStoreError, UnsafePath
from tieredstore.manifest.artifact import HEAD, MAX_HEAD, Head, digest128
from tieredstore.manifest.names import RESERVED, check_file, parents
from tieredstore.manifest.records import MAX_RECORDS, Records
from tieredstore.mounted import alive, beneath
from tieredstore.mounted.marks import Held, Marks, Pending, pending_entries, read_mark
from tieredstore.mounted.staged import AREA, Staged

ATTEMPTS: Final = 50
_LOOKS: Final = 3


class Root:
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

    def make_root(self) -> None:
        """Make the root where it is missing."""
        if not os.path.isdir(self.path):
            made = _missing(self.path)
            os.makedirs(self.path, exist_ok=True)
            for path in made:  # or all of it may be gone when power is lost
                with (
                    suppress(OSError),
                    beneath.opened(beneath.open_root(os.path.dirname(path))) as above,
                ):
                    os.fsync(above)

    def area(self, part: str) -> int:
        """Open a folder of the store's own, made where it is missing."""
        self.make_root()
        with beneath.opened(self.root()) as root:
            if not beneath.exists(root, AREA):
                with beneath.opened(self.make_below(root, AREA)) as own:
                    beneath.write_small(own, ".gitignore", b"*\n")
            return self.make_below(root, f"{AREA}/{part}")

    def make_below(self, fd: int, folder: str) -> int:
        """Open a folder below an open one, and make what is missing of it."""
        return beneath.make_folder(fd, folder)

    def area_path(self, *parts: str) -> str:
        """The path of something in the store's own area."""
        return os.path.join(self.path, AREA, *parts)

    def staged(self, area: str, generation: str) -> Staged:
        """A folder to put a generation together in, made where it is missing."""
        os.close(self.area(area))
        sign = alive.Sign(self.area(alive.AREA), generation)  # before there is anything to collect
        staged = Staged(self.path, area, generation, sign)
        staged.recover(self.area("old"))
        os.close(staged.open(make=True))
        return staged

    def hold(self, folder: str, flags: int = os.O_RDONLY) -> Held | None:
        """Hold the artifact at ``folder``, or ``None`` where there is no whole one.

        Its head is opened with ``flags``: `beneath.UNNOTICED` where this is no use of it.

        Raises
        ------
        ManifestError
            When there is a head that cannot be believed.
        """
        quiet = 0
        for _ in range(ATTEMPTS):
            found = self._hold(folder, flags)
            if found is not None or self.pending(folder) is not None:
                return found
            # A replacement in two steps that has just ended leaves no note: look once more.
            quiet = 0 if self._help_swaps(folder) else quiet + 1
            if quiet == _LOOKS:
                break
        return None

    def _hold(self, folder: str, flags: int) -> Held | None:
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
                held = self._held(fd, marks, flags)
                if held is not None:
                    return held
        return None

    def _held(self, fd: int, marks: Marks, flags: int = os.O_RDONLY) -> Held | None:
        """Hold the open folder, which is closed where there is nothing whole in it."""
        try:
            # The head on both sides of the mark: it was in place while nothing was under way.
            for _ in range(_LOOKS):
                data = _small(fd, marks.head, flags)
                if pending_entries(fd, marks):
                    break
                since = beneath.changed(fd, marks.head)
                if data is not None and data == _small(fd, marks.head, flags):
                    head = Head.parse(data, os.path.join(self.path, marks.folder, marks.head))
                    return Held(fd, marks, head, beneath.exists(fd, marks.partial), since)
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
            held = self.believable(fd, Marks(folder))
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

    def look_afresh(self, folder: str) -> None:
        """Have a network mount see what other nodes have put at ``folder`` until now.

        Such a mount may remember for seconds that a name is missing, or which folder it meant.
        Listing the folders on the way asks the server, and corrects what is remembered.
        """
        with suppress(FileNotFoundError, UnsafePath), beneath.opened(self.root()) as root:
            for path in [*parents(folder), folder]:
                with beneath.opened(beneath.open_folder(root, beneath.split(path)[0])) as fd:
                    beneath.names(fd)

    def keeps_case(self) -> bool:
        """Whether names that differ only in case are two files here."""
        os.close(self.area("stage"))
        return not os.path.exists(self.area_path("STAGE"))

    # -- replacements in two steps ---------------------------------------------------------------

    def place_new(self, root: int, staged: Staged, folder: str) -> bool:
        """Rename what is staged to where nothing is; False where something is, or is gone."""
        try:
            beneath.rename(root, staged.path, root, folder)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                return False
            raise
        return True

    def swap_notes(self, folder: str) -> list[str]:
        """Notes on replacements of this folder that are under way."""
        try:
            found = os.listdir(self.area_path("swap"))
        except OSError:
            return []
        return [note for note in found if note.startswith(digest128(folder.encode()))]

    def _help_swaps(self, folder: str) -> bool:
        """Do the second step of replacements that have been seen between their two steps."""
        notes = self.swap_notes(folder)
        for note in notes:
            with suppress(OSError, ValueError, KeyError, TieredStoreError):
                with beneath.opened(self.root()) as root:
                    body = json.loads(beneath.read_small(root, f"{AREA}/swap/{note}", MAX_HEAD))
                    staged = Staged.of_path(self.path, str(body["staged"]))
                    if body["folder"] != folder or staged is None:
                        continue
                    if staged.exists():
                        self.place_new(root, staged, folder)
                    else:  # the second step is done, its author was stopped before he said so
                        os.unlink(self.area_path("swap", note))
        return bool(notes)

    def believable(self, fd: int, marks: Marks) -> Held | None:
        """What an open folder holds whole; a damaged head counts as nothing."""
        with suppress(ManifestError):
            return self._held(os.dup(fd), marks)
        return None


def _missing(path: str) -> list[str]:
    """The folders on the way to ``path``, itself included, that are not there; deepest first."""
    found = []
    while not os.path.isdir(path):
        found.append(path)
        path = os.path.dirname(path)
    return found


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


def _small(fd: int, name: str, flags: int) -> bytes | None:
    with suppress(FileNotFoundError):
        return beneath.read_small(fd, name, MAX_HEAD, flags)
    return None
