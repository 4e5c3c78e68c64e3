"""Changing a published artifact file by file: files are put in whole, and taken out.

To readers of its folder each change is there at once; to readers of the store the artifact is what
it was until its journal is summed up, which the first of them does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from tieredstore.errors import ArtifactChanged, ArtifactExists, HeadConflict, TieredStoreError
from tieredstore.manifest.artifact import HEAD, MAX_HEAD, Head, new_generation
from tieredstore.manifest.names import parents
from tieredstore.manifest.records import FileRecord
from tieredstore.mounted import beneath, journal
from tieredstore.mounted.inplace import lay_new, lift_mark
from tieredstore.mounted.marks import Marks, Pending, pending_entries, read_mark
from tieredstore.mounted.mount import ATTEMPTS
from tieredstore.mounted.stage import Mount
from tieredstore.mounted.staged import move_in


@dataclass(frozen=True, slots=True)
class PutIn:
    """A file that is written, and verified or measured.

    Attributes
    ----------
    record : FileRecord
        What it is.
    staged : str
        Its name in the area ``stage``.
    inode : int
        Of the staged file.
    exclusive : bool
        Nothing may lie there yet.
    """

    record: FileRecord
    staged: str
    inode: int
    exclusive: bool = False

    @property
    def entry(self) -> journal.Entry:
        """Its line."""
        return journal.Entry(self.record.path, self.record, self.inode)

    def do(self, mount: Mount, stage: int, fd: int) -> None:
        """Move it in, unless that has been done.

        Raises
        ------
        ArtifactExists
            When it is exclusive, and something lies there.
        ArtifactChanged
            When it was moved in, and taken away again by another's publication.
        """
        del mount
        path = self.record.path
        if self.exclusive and not self._is_in(fd) and beneath.is_regular(fd, path):
            raise ArtifactExists(f"{path}: another has put it in meanwhile")
        if not move_in(stage, self.staged, fd, path) and not self._is_in(fd):
            raise ArtifactChanged(f"{path}: the artifact was replaced while it was put in")

    def _is_in(self, fd: int) -> bool:
        with suppress(OSError):
            return beneath.stat_file(fd, self.record.path).st_ino == self.inode
        return False


@dataclass(frozen=True, slots=True)
class TakeOut:
    """A file that goes."""

    path: str

    @property
    def entry(self) -> journal.Entry:
        """Its line."""
        return journal.Entry(self.path)

    def do(self, mount: Mount, stage: int, fd: int) -> None:
        """Take it out of sight, and folders that are empty then."""
        del stage
        mount.retire_file(fd, self.path)
        for above in reversed(parents(self.path)):
            try:
                os.rmdir(above, dir_fd=fd)
            except OSError:
                return


Change = PutIn | TakeOut


def change(
    mount: Mount, folder: str, changes: Sequence[Change], writer: str, before: str | None
) -> str:
    """Do changes to the artifact at ``folder``, which is made where there is none.

    Parameters
    ----------
    mount : Mount
        The root.
    folder : str
        The artifact's.
    changes : sequence of Change
        What to do.
    writer : str
        A name that no other writer has: of the file that this one's lines are in.
    before : str or None
        The generation that is changed, as it was last looked at; ``None``: there was none.

    Returns
    -------
    str
        The generation of the mark that the changes are written down under.

    Raises
    ------
    HeadConflict
        When another generation is there, or others kept publishing one.
    ArtifactExists
        See `PutIn`.
    """
    for _ in range(ATTEMPTS):
        generation = _marked(mount, folder, before)
        if generation is None:
            continue
        entries = [each.entry for each in changes]
        try:
            journal.append(mount, generation, writer, entries)
        except FileNotFoundError:
            continue  # summed up just now
        with beneath.opened(mount.root()) as root, beneath.opened(mount.area("stage")) as stage:
            with beneath.opened(beneath.open_folder(root, folder)) as fd:
                for each in changes:
                    each.do(mount, stage, fd)
                if _entry(generation) in pending_entries(fd, Marks(folder)):
                    return generation
        before = None  # what was there has been summed up: these changes come on top of it
    raise HeadConflict(f"{mount.path}/{folder}: kept being published while files were put in")


def writing(mount: Mount, folder: str) -> int | None:
    """The folder of an artifact that is being changed file by file, held open; else ``None``."""
    with suppress(OSError), beneath.opened(mount.root()) as root:
        fd = beneath.open_folder(root, folder)
        entries = pending_entries(fd, Marks(folder))
        if entries and all(entry.startswith(f"{journal.KIND}-") for entry in entries):
            return fd
        os.close(fd)
    return None


def _entry(generation: str) -> str:
    return Pending(journal.KIND, generation).entry


def _marked(mount: Mount, folder: str, before: str | None) -> str | None:
    """The generation of the mark that changes may be made under; ``None``: look again."""
    marks = Marks(folder)
    with beneath.opened(mount.area("stage")) as area, beneath.opened(mount.root()) as root:
        with beneath.opened(mount.make_below(root, folder)) as fd:
            mark = read_mark(fd, marks)
            if mark is not None and mark.kind == journal.KIND:
                return mark.generation
            if mark is None:
                return _lay(mount, area, fd, marks, before)
            if mark.kind == "filling":
                raise HeadConflict(
                    f"{mount.path}/{folder}: is being filled; wait until it is whole"
                )
    with suppress(TieredStoreError):
        mount.complete(folder)
    return None


def _lay(mount: Mount, area: int, fd: int, marks: Marks, before: str | None) -> str | None:
    mark = Pending(journal.KIND, new_generation())
    journal.begin(mount, mark.generation)
    if not lay_new(area, fd, marks, mark):
        journal.drop(mount, mark.generation)
        return None
    now = None
    with suppress(FileNotFoundError, TieredStoreError):
        now = Head.parse(beneath.read_small(fd, HEAD, MAX_HEAD), HEAD).generation
    if before is not None and now != before:
        lift_mark(fd, marks, mark)
        journal.drop(mount, mark.generation)
        raise HeadConflict(f"{mount.path}/{marks.folder}: was replaced while it was written to")
    return mark.generation
