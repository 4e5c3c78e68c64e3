"""Entries put into a cache: whole or not at all, without copying bytes where that can be had."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from datasets_prep.errors import CacheError
from datasets_prep.hf_cache.entries import INFO, NOTE, Entry, Note

Way = Callable[[str, str], None]

STAGE: Final = ".seed-"  # an entry that is being put in
OLD: Final = ".old-"  # one that was not whole, on its way out
FORGOTTEN: Final = 3600.0  # seconds after which nobody works on one of these any more
_CLONE: Final = 0x40049409  # FICLONE of linux/fs.h: a file that shares another one's blocks
_RESERVE: Final = 20  # a twentieth of a file system stays free
_OWN: Final = {INFO, NOTE}  # small, and written anew by datasets in some of its versions


def reflink(source: str, target: str) -> None:
    """Share a file's blocks, where the file system can (Btrfs, XFS, …)."""
    with open(source, "rb") as old, open(target, "xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _CLONE, old.fileno())
        except OSError:
            os.unlink(target)
            raise


def hard_link(source: str, target: str) -> None:
    """Another name for the same file, on one file system."""
    os.link(source, target)


def copy(source: str, target: str) -> None:
    """A copy, where there is room for it."""
    size, room = os.stat(source).st_size, os.statvfs(os.path.dirname(target))
    if room.f_bavail * room.f_frsize - size < room.f_blocks * room.f_frsize // _RESERVE:
        raise OSError(errno.ENOSPC, "no room for a copy", target)
    shutil.copyfile(source, target)


def symlink(source: str, target: str) -> None:
    """A link to where it lies."""
    os.symlink(source, target)


OWN: Final[Sequence[Way]] = (reflink, hard_link, copy, symlink)  # files that stay when others go
LINKS: Final[Sequence[Way]] = (symlink,)


@dataclass(slots=True)
class Seeded:
    """What was put into a cache.

    Attributes
    ----------
    entries : int
        How many are there now, of those that were asked for.
    size : int
        Their bytes.
    ways : Counter
        How many files came in each way: ``hard_link``, …
    """

    entries: int = 0
    size: int = 0
    ways: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Seeded) -> Seeded:
        """Both together."""
        size = self.size + other.size
        return Seeded(self.entries + other.entries, size, self.ways + other.ways)


def seed(found: Sequence[Entry], root: Path, ways: Sequence[Way]) -> Seeded:
    """Put entries of one cache into another; what is not whole is passed over.

    Parameters
    ----------
    found : sequence of Entry
        Which ones.
    root : Path
        The cache; made where it is missing.
    ways : sequence of callable
        Tried in this order for each file.
    """
    done = Seeded()
    for entry in found:
        if not entry.lacks():
            note = entry.note()
            put(Files(entry.path, entry.arrow(), note), Entry(root, entry.name), ways, done.ways)
            done.entries += 1
            done.size += sum(entry.arrow().values())
    return done


@dataclass(frozen=True, slots=True)
class Files:
    """What an entry is made of: files of a folder, and the note that goes with them."""

    folder: Path
    names: dict[str, int]
    note: Note | None


def put(files: Files, entry: Entry, ways: Sequence[Way], count: Counter[str] | None = None) -> bool:
    """Make an entry of files: staged beside it, and renamed into place.

    An entry that is there with the same data stays, and gets the note. Of several that put the
    same one in, one does.

    Parameters
    ----------
    files : Files
        What it is made of.
    entry : Entry
        Where to.
    ways : sequence of callable
        Tried in this order for each file.
    count : Counter, optional
        Told how many files came in each way.

    Returns
    -------
    bool
        Whether it was put in now.

    Raises
    ------
    CacheError
        When it cannot be put there.
    """
    if _is_there(files, entry):
        _note(files.note, entry)
        return False
    above = entry.path.parent
    try:
        above.mkdir(parents=True, exist_ok=True)
        _sweep(above)
        stage = Path(f"{above}/{STAGE}{secrets.token_hex(8)}")
        stage.mkdir()
    except OSError as error:
        raise CacheError(f"{above}: {error.strerror}; no entry can be put there") from None
    try:
        for name in files.names:
            own = name in _OWN
            used = _place(files.folder / name, stage / name, (copy, symlink) if own else ways)
            if count is not None:
                count[used] += 1
        if files.note is not None:
            (stage / NOTE).write_text(files.note.text(), encoding="utf-8")
        return _publish(stage, files, entry)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def discard(entry: Entry) -> None:
    """Remove an entry that is not whole: out of the way in one step."""
    with suppress(OSError):
        aside = entry.path.parent / f"{OLD}{secrets.token_hex(8)}"
        entry.path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _is_there(files: Files, entry: Entry) -> bool:
    have, data, note = entry.files(), files.names.keys() - _OWN, entry.note()
    if note is not None and files.note is not None and note.digest != files.note.digest:
        return False  # of other bytes, with the same path and time
    return all(have.get(name) == files.names[name] for name in data) and not entry.lacks()


def _note(note: Note | None, entry: Entry) -> None:
    """Bring an entry's note up to date; without one it is of use all the same."""
    if note is None or note == entry.note():
        return
    with suppress(OSError):
        own = entry.path / f"{NOTE}-{secrets.token_hex(8)}"
        own.write_text(note.text(), encoding="utf-8")
        own.rename(entry.path / NOTE)


def _place(source: Path, target: Path, ways: Sequence[Way]) -> str:
    """Put one file there in the first way that works, and say which."""
    real = os.path.realpath(source)
    why = "no way is left"
    for way in ways:
        try:
            way(real, os.fspath(target))
        except OSError as error:
            why = str(error)
            with suppress(FileNotFoundError):
                target.unlink()
        else:
            return getattr(way, "__name__", "")
    raise CacheError(f"{target}: cannot be made of {source}: {why}")


def _publish(stage: Path, files: Files, entry: Entry) -> bool:
    for _ in range(10):
        try:
            stage.rename(entry.path)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise CacheError(f"{entry.path}: {error.strerror}") from None
        else:
            return True
        if _is_there(files, entry):
            return False
        discard(entry)
    raise CacheError(f"{entry.path}: something else makes this entry again and again")


def _sweep(above: Path) -> None:
    """Drop what somebody who was killed has left here."""
    for each in above.glob(".*-*"):
        if each.name.startswith((STAGE, OLD)):
            with suppress(OSError):
                if time.time() - each.lstat().st_mtime > FORGOTTEN:
                    shutil.rmtree(each, ignore_errors=True)
