"""The journal: what was put into a published artifact, or taken out of it, since its records.

Who writes an artifact file by file neither rewrites its records each time nor hides what is there
already. Below the mark ``writing-<generation>`` each change is one line in a file of its writer's
own in ``.tieredstore/journal/<generation>/``; then the file itself is moved in, or out. Whoever
looks for the artifact as a whole sums the journal up: it renames the mark, so that no writer adds
to the journal any more, and publishes the records with what was changed as a new generation. The
files themselves decide: a line whose file is not there counts for nothing, and a
file that no line describes is measured. Who changes what is in changes.py.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tieredstore.errors import CorruptData, ManifestError
from tieredstore.manifest.artifact import MAX_HEAD, Head, Recipe, digest128, new_generation
from tieredstore.manifest.names import check_file
from tieredstore.manifest.records import (
    BLOCK,
    FileRecord,
    Records,
    block_digest,
    head_of,
    pack_block,
)
from tieredstore.mounted import beneath
from tieredstore.mounted.inplace import records_below, roll_forward
from tieredstore.mounted.marks import SUMMING, WRITING, Marks, Pending, pending_entries
from tieredstore.mounted.mount import Root
from tieredstore.mounted.staged import AREA as OWN

AREA: Final = "journal"
KIND: Final = WRITING
_MAX_JOURNAL: Final = 1 << 30  # bytes of one writer's lines
_DIGEST: Final = 32  # digits that begin a line

Retire = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One change.

    Attributes
    ----------
    path : str
        The file.
    record : FileRecord or None
        What it is now; ``None``: it was taken out.
    inode : int
        Of the file that was moved in: two of one size and time are not taken for each other.
    """

    path: str
    record: FileRecord | None = None
    inode: int = 0

    def emit(self) -> bytes:
        """One line: the digest of the rest, and the rest."""
        row: list[object] = [self.path]
        if self.record is not None:
            table = base64.b85encode(self.record.table).decode()
            row += [self.record.size, self.record.mode, self.record.mtime_ns, self.inode, table]
        body = json.dumps(row, separators=(",", ":")).encode()
        return digest128(body).encode() + body + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Entry | None:
        """What a line says; ``None`` where it was cut off, or is damaged."""
        digest, body = line[:_DIGEST], line[_DIGEST:]
        if digest != digest128(body).encode():
            return None
        with suppress(ValueError, TypeError, ManifestError):
            path, *rest = json.loads(body)
            if not rest:
                return cls(check_file(path))
            size, mode, mtime_ns, inode, table = rest
            record = FileRecord(check_file(path), size, mode, mtime_ns, base64.b85decode(table))
            return cls(path, record, inode)
        return None

    def describes(self, found: os.stat_result) -> bool:
        """Whether a file that lies there is the one that was moved in."""
        record = self.record
        return record is not None and (record.size, record.mtime_ns, self.inode) == (
            found.st_size,
            found.st_mtime_ns,
            found.st_ino,
        )


def append(mount: Root, generation: str, writer: str, entries: list[Entry]) -> None:
    """Add lines to the journal of one writing, in the writer's own file.

    Raises
    ------
    FileNotFoundError
        When it has been summed up, and is gone.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with beneath.opened(mount.root()) as root:
        folder = beneath.open_folder(root, _home(generation))
    with beneath.opened(folder), beneath.opened(beneath.open_file(folder, writer, flags)) as file:
        view = memoryview(b"".join(entry.emit() for entry in entries))
        while view:
            view = view[os.write(file, view) :]


def begin(mount: Root, generation: str) -> None:
    """Make the place for a journal, before the mark that names it is laid."""
    os.close(mount.area(f"{AREA}/{generation}"))


def sum_up(mount: Root, fd: int, marks: Marks, mark: Pending, retire: Retire) -> None:
    """Publish what was changed below a mark as a new generation, unless another is faster.

    Parameters
    ----------
    mount : Root
        The root.
    fd, marks
        The artifact's folder, held open, and the names of its marks.
    mark : Pending
        That of the writing.
    retire : callable
        Takes a file below ``fd`` out of sight.

    Raises
    ------
    CorruptData
        When the records that were there before cannot be read.
    """
    # First the mark: who sees its old name after a change knows that the change is read here.
    summing = Pending(SUMMING, mark.generation)
    if mark.kind == WRITING and not _rename(fd, marks, mark, summing):
        return
    mark, entries = summing, []
    with suppress(FileNotFoundError):
        entries = list(_entries(mount, mark.generation))
    if mark.entry not in pending_entries(fd, marks):
        return  # another has done it, and the journal is gone, or goes
    beneath.syncfs(fd)
    before, records = _sum(fd, marks, entries)
    if records.files:
        recipe = Recipe() if before is None else before.recipe
        head = head_of(records, recipe, generation=new_generation())
        staged = mount.staged("stage", head.generation)
        staged.write_measured(head, records)
        if _rename(fd, marks, mark, Pending("publishing", head.generation)):
            roll_forward(staged, fd, marks, retire)
            staged.leave()
        else:
            staged.delete()
    else:
        _close_empty(fd, marks, mark)
    if mark.entry not in pending_entries(fd, marks):
        drop(mount, mark.generation)


def drop(mount: Root, generation: str) -> None:
    """Delete a journal that no mark names any more."""
    with beneath.opened(mount.root()) as root:
        beneath.delete_tree(root, _home(generation))


def _home(generation: str) -> str:
    return f"{OWN}/{AREA}/{generation}"


def _rename(fd: int, marks: Marks, mark: Pending, to: Pending) -> bool:
    """Make a mark the next one; one of several can."""
    with suppress(FileNotFoundError), beneath.opened(beneath.open_folder(fd, marks.pending)) as at:
        os.rename(mark.entry, to.entry, src_dir_fd=at, dst_dir_fd=at)
        os.fsync(at)
        return True
    return False


def _close_empty(fd: int, marks: Marks, mark: Pending) -> None:
    """Nothing is left of the artifact: its manifest goes, and then the mark."""
    for name in (marks.head, marks.records, marks.partial):
        if mark.entry in pending_entries(fd, marks):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)
    with suppress(FileNotFoundError):
        with beneath.opened(beneath.open_folder(fd, marks.pending)) as there:
            os.unlink(mark.entry, dir_fd=there)
    with suppress(OSError):
        os.rmdir(marks.pending, dir_fd=fd)


def _entries(mount: Root, generation: str) -> Iterator[Entry]:
    with beneath.opened(mount.root()) as root:
        folder = beneath.open_folder(root, _home(generation))
    with beneath.opened(folder):
        for writer in beneath.names(folder):
            data = beneath.read_small(folder, writer, _MAX_JOURNAL)
            yield from filter(None, map(Entry.parse, data.split(b"\n")))


def _sum(fd: int, marks: Marks, entries: list[Entry]) -> tuple[Head | None, Records]:
    before, known = _before(fd, marks)
    files = dict(known.files)
    changed: dict[str, list[Entry]] = {}
    for entry in entries:
        changed.setdefault(entry.path, []).append(entry)
    for path, found in changed.items():
        now = _now(fd, path, found, files.get(path))
        if now is None:
            files.pop(path, None)
        else:
            files[path] = now
    return before, Records.of(files.values())


def _before(fd: int, marks: Marks) -> tuple[Head | None, Records]:
    try:
        head = Head.parse(beneath.read_small(fd, marks.head, MAX_HEAD), marks.head)
    except FileNotFoundError:
        return None, Records({})
    try:
        return head, records_below(fd, marks.head, marks.records, head)
    except FileNotFoundError:
        raise CorruptData(f"{marks.folder}: the records are gone; restore it anew") from None


def _now(fd: int, path: str, changes: list[Entry], before: FileRecord | None) -> FileRecord | None:
    """What a file that was changed is now, ``None`` where it is gone."""
    try:
        found = beneath.stat_file(fd, path)
    except FileNotFoundError:
        taken_out = any(entry.record is None for entry in changes)
        return None if taken_out else before
    for entry in changes:
        if entry.describes(found):
            return entry.record
    if before is not None and (before.size, before.mtime_ns) == (found.st_size, found.st_mtime_ns):
        return before
    with beneath.opened(beneath.open_file(fd, path)) as file:
        return measured(file, path)


def measured(file: int, path: str) -> FileRecord:
    """The record of an open file, its blocks read and digested."""
    found = os.fstat(file)
    buffer = memoryview(bytearray(min(BLOCK, max(found.st_size, 1))))
    table: list[bytes] = []
    size = 0
    while got := os.preadv(file, [buffer], size):
        while got < len(buffer) and (more := os.preadv(file, [buffer[got:]], size + got)):
            got += more
        table.append(pack_block(got, block_digest(buffer[:got])))
        size += got
    return FileRecord(path, size, found.st_mode & 0o777, found.st_mtime_ns, b"".join(table))
