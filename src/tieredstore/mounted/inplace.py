"""Publishing and removing file by file, in a folder that holds files of others too.

A pending mark hides the artifact meanwhile. The mark is a folder with one entry named after what
is under way: renaming it into place succeeds for one of several and never replaces another's, and
lifting it names the entry, so a slow helper can never lift the mark of a later publication. What
is staged moves by rename, which each file does once, whoever helps; the old head stays below the
mark until the new one replaces it, so that every step can be repeated. Nothing else belongs here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from tieredstore.errors import ManifestError, TieredStoreError
from tieredstore.manifest.artifact import HEAD, MAX_HEAD, RECORDS, Head
from tieredstore.manifest.names import RESERVED
from tieredstore.manifest.records import MAX_RECORDS, FileRecord, Records
from tieredstore.mounted import beneath
from tieredstore.mounted.alive import temporary
from tieredstore.mounted.marks import Marks, Pending, pending_entries
from tieredstore.mounted.staged import PARTIAL, Staged, has, move_in, same_bytes

_TRIES: Final = 50
_TAKEN: Final = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR})


def lay_mark(area: int, fd: int, marks: Marks, mark: Pending) -> bool:
    """Hide the artifact below a mark; False while another publication is under way there.

    Parameters
    ----------
    area : int
        A folder of the store's own on the same file system, held open.
    fd : int
        The folder that the artifact's marks lie in, held open.
    marks, mark
        Their names, and what the mark says. A mark of files that were being put in one by one,
        or removed, is taken over without the artifact being seen in between.
    """
    if beneath.is_regular(fd, marks.pending):  # no mark of this library, and in the way of one
        with suppress(OSError):
            os.unlink(marks.pending, dir_fd=fd)
    for _ in range(_TRIES):
        entries = pending_entries(fd, marks)
        if mark.entry in entries or (not entries and lay_new(area, fd, marks, mark)):
            return True
        if any(e.startswith("publishing-") for e in entries):
            return False
        if entries and _take_over(area, fd, marks, mark, entries):
            return True
    return False


def _write_entry(area: int, folder: str, mark: Pending) -> None:
    os.close(beneath.make_folder(area, folder))
    with beneath.opened(beneath.open_folder(area, folder)) as made:
        beneath.write_small(made, mark.entry, mark.emit())
        beneath.syncfs(made)


def lay_new(area: int, fd: int, marks: Marks, mark: Pending) -> bool:
    """Lay a mark where there is none; False where another lies."""
    name = temporary("mark-")
    try:
        _write_entry(area, name, mark)
        with suppress(OSError):
            os.rmdir(marks.pending, dir_fd=fd)  # left empty by one that was lifted
        os.rename(name, marks.pending, src_dir_fd=area, dst_dir_fd=fd)
    except OSError as error:
        beneath.delete_tree(area, name)
        if error.errno in _TAKEN:
            return False
        raise
    os.fsync(fd)
    return True


def _take_over(area: int, fd: int, marks: Marks, mark: Pending, before: list[str]) -> bool:
    name = temporary("mark-")
    try:
        _write_entry(area, name, mark)
        with beneath.opened(beneath.open_folder(fd, marks.pending)) as there:
            os.rename(f"{name}/{mark.entry}", mark.entry, src_dir_fd=area, dst_dir_fd=there)
            for entry in before:
                with suppress(FileNotFoundError):
                    os.unlink(entry, dir_fd=there)
    except FileNotFoundError:
        return False  # lifted meanwhile
    finally:
        beneath.delete_tree(area, name)
    if set(publications(fd, marks)) - {mark.entry}:
        lift_mark(fd, marks, mark)
        return False
    return True


def publications(fd: int, marks: Marks) -> list[str]:
    """The entries of publications that are under way below ``fd``."""
    return [e for e in pending_entries(fd, marks) if e.startswith("publishing-")]


def claim_filling(fd: int, marks: Marks, generation: str) -> bool:
    """Make a filling's mark that of its publication; False where another has taken it over."""
    filling, publishing = Pending("filling", generation), Pending("publishing", generation)
    with suppress(FileNotFoundError), beneath.opened(beneath.open_folder(fd, marks.pending)) as at:
        os.rename(filling.entry, publishing.entry, src_dir_fd=at, dst_dir_fd=at)
        if publications(fd, marks) == [publishing.entry]:
            os.fsync(at)
            return True
        os.rename(publishing.entry, filling.entry, src_dir_fd=at, dst_dir_fd=at)
    return False


def records_stand(fd: int, marks: Marks, generation: str) -> bool:
    """Whether head and records of that generation lie below ``fd``, each with the other."""
    with suppress(FileNotFoundError, TieredStoreError):
        head = Head.parse(beneath.read_small(fd, marks.head, MAX_HEAD), marks.head)
        return bool(
            head.generation == generation and records_below(fd, marks.head, marks.records, head)
        )
    return False


def lift_mark(fd: int, marks: Marks, mark: Pending) -> None:
    """Take this mark away, and no other."""
    with suppress(FileNotFoundError):
        with beneath.opened(beneath.open_folder(fd, marks.pending)) as there:
            os.unlink(mark.entry, dir_fd=there)
        os.fsync(fd)
    with suppress(OSError):
        os.rmdir(marks.pending, dir_fd=fd)


def records_below(fd: int, head_name: str, records_name: str, head: Head | None = None) -> Records:
    """The records that lie below ``fd``, verified against the head there, or the one given.

    Raises
    ------
    FileNotFoundError, TieredStoreError
        When they are not there, or damaged.
    """
    if head is None:
        head = Head.parse(beneath.read_small(fd, head_name, MAX_HEAD), head_name)
    data = beneath.read_small(fd, records_name, min(head.records_size, MAX_RECORDS))
    return Records.parse(data, head.records_digest, records_name)


def roll_forward(staged: Staged, fd: int, marks: Marks, retire: Callable[[int, str], None]) -> bool:
    """Bring a publication in place to its end; every step may have been done already.

    Parameters
    ----------
    staged : Staged
        What is being published.
    fd, marks
        Where to, and the names of the marks there.
    retire : callable
        Takes a file below ``fd`` out of sight, kept for the grace period.

    Returns
    -------
    bool
        False where what was staged is gone, so that it can never be published.
    """
    mark = Pending("publishing", staged.generation, staged.area)
    with suppress(FileNotFoundError), beneath.opened(staged.open()) as source:
        with suppress(FileNotFoundError, ManifestError):  # the head moves last: it is in already
            head = Head.parse(beneath.read_small(source, HEAD, MAX_HEAD), HEAD)
            if head.generation == staged.generation:
                own = partial(_retire_own, fd, marks, mark, retire)
                stands = has if staged.measured() else same_bytes
                _move_all(source, fd, marks, head, own, stands)
    with suppress(FileNotFoundError):
        head = Head.parse(beneath.read_small(fd, marks.head, MAX_HEAD), marks.head)
        if head.generation == staged.generation:
            lift_mark(fd, marks, mark)
            staged.tidy()
            return True
    if mark.entry in pending_entries(fd, marks) and not staged.exists():
        if _is_as_before(fd, marks):
            lift_mark(fd, marks, mark)
        else:
            _abandon(fd, marks, mark)
        return False
    return True


def _is_as_before(fd: int, marks: Marks) -> bool:
    """Whether the generation that was to be replaced is there still, and nothing else was put in.

    A stage may be gone before a file of it was moved: collected, while who published stood still.
    """
    with suppress(OSError, TieredStoreError):
        files = records_below(fd, marks.head, marks.records).files.values()
        found = [(beneath.stat_file(fd, file.path), file) for file in files]
        return all((s.st_size, s.st_mtime_ns) == (f.size, f.mtime_ns) for s, f in found)
    return False


def _abandon(fd: int, marks: Marks, mark: Pending) -> None:
    """The staged files of a publication are gone: what is left stays hidden, to be replaced."""
    left = Pending("filling", mark.generation)
    with suppress(FileNotFoundError):
        with beneath.opened(beneath.open_folder(fd, marks.pending)) as there:
            beneath.write_small(there, left.entry, left.emit())
            os.unlink(mark.entry, dir_fd=there)


def retire_only_old(fd: int, marks: Marks, records: Records, retire: Callable[[str], None]) -> None:
    """Take files out of sight that the manifest below ``fd`` names and the new records do not."""
    with suppress(TieredStoreError, FileNotFoundError):
        before = records_below(fd, marks.head, marks.records)
        for path in before.files.keys() - records.files.keys():
            retire(path)


def _retire_own(
    fd: int, marks: Marks, mark: Pending, retire: Callable[[int, str], None], path: str
) -> None:
    if mark.entry in pending_entries(fd, marks):  # or a later publication may own the name
        retire(fd, path)


def _move_all(
    source: int,
    fd: int,
    marks: Marks,
    head: Head,
    retire: Callable[[str], None],
    stands: Callable[[int, FileRecord], bool],
) -> None:
    """Files, then what the old manifest named and the new one does not, records, head."""
    try:
        records = records_below(source, HEAD, RECORDS, head)
    except FileNotFoundError:
        records = records_below(fd, marks.head, marks.records, head)
    for path, file in records.files.items():
        # What lies there already may be of another generation, and of the same size.
        if not move_in(source, path, fd, path) and has(fd, file) and not stands(fd, file):
            retire(path)
    retire_only_old(fd, marks, records, retire)
    move_in(source, RECORDS, fd, marks.records)
    if all(has(fd, f) for f in records.files.values()):
        with suppress(FileNotFoundError):
            os.unlink(marks.partial, dir_fd=fd)
    else:
        beneath.write_small(fd, marks.partial, b"")
    with suppress(FileNotFoundError):
        os.unlink(PARTIAL, dir_fd=source)
    beneath.syncfs(fd)
    move_in(source, HEAD, fd, marks.head)
    os.fsync(fd)


def remove_forward(fd: int, marks: Marks, mark: Pending, target: int) -> None:
    """Move what the manifest names to ``target``, head last; steps may have been done already.

    Where the records cannot be read, nobody knows which files these are: whatever is left stays
    hidden below the mark until it is replaced, or it would be taken for data to adopt.
    """
    known = True  # a head that is gone was moved last; records that are gone, after all files
    try:
        head = Head.parse(beneath.read_small(fd, marks.head, MAX_HEAD), marks.head)
        if head.generation != mark.generation:
            lift_mark(fd, marks, mark)  # of a later publication: nothing of it is taken away
            return
        for path in records_below(fd, marks.head, marks.records, head).files:
            if mark.entry in pending_entries(fd, marks):
                move_in(fd, path, target, path)
    except FileNotFoundError:
        pass
    except TieredStoreError:
        known = False
    if not known and marks.head == HEAD and any(True for _ in beneath.walk(fd, RESERVED)):
        _abandon(fd, marks, mark)
    if mark.entry in pending_entries(fd, marks) or not known:
        _move_manifest(fd, marks, target)
    lift_mark(fd, marks, mark)


def _move_manifest(fd: int, marks: Marks, target: int) -> None:
    move_in(fd, marks.records, target, RECORDS)
    with suppress(FileNotFoundError):
        os.unlink(marks.partial, dir_fd=fd)
    move_in(fd, marks.head, target, HEAD)


def finish_filling(fd: int, marks: Marks, mark: Pending) -> None:
    """Lift the mark of one that had put its manifest in place and was stopped just then."""
    with suppress(TieredStoreError, FileNotFoundError):
        head = Head.parse(beneath.read_small(fd, marks.head, MAX_HEAD), marks.head)
        if head.generation == mark.generation:
            lift_mark(fd, marks, mark)
