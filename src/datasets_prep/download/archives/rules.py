"""What an archive may hold: how much, and which names. Nothing here touches a disk."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from datasets_prep.errors import ArchiveError, OptionError

FILE: Final = "file"
FOLDER: Final = "folder"
HARD: Final = "hard link"
SYMBOLIC: Final = "symbolic link"
REFUSE: Final = "refuse"
COPY: Final = "copy"

SLACK: Final = 128 << 20  # bytes that may come of any archive, however small it is
_SHOWN: Final = 80  # characters of a name in a message
# Most names are of this form; it allows nothing that the longer way would refuse.
_PLAIN: Final = re.compile(rb"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may hold at most.

    Attributes
    ----------
    size : int
        Bytes of all files together.
    files : int
        Members of any kind.
    ratio : int
        How many bytes may come of one compressed byte, once there are 128 MiB.
    links : str
        ``refuse``; or ``copy``, which makes a copy of what a link inside the archive points to.

    Raises
    ------
    OptionError
        For another word on links, or a number below 1.
    """

    size: int = 4 << 40
    files: int = 5_000_000
    ratio: int = 200
    links: str = REFUSE

    def __post_init__(self) -> None:
        if self.links not in {REFUSE, COPY}:
            raise OptionError(f"links {self.links!r}: expected 'refuse' or 'copy'")
        if min(self.size, self.files, self.ratio) < 1:
            raise OptionError(f"{self}: expected numbers from 1")


@dataclass(slots=True)
class Member:
    """One entry of an archive, as it says of itself.

    Attributes
    ----------
    raw : bytes
        Its name.
    kind : str
        ``file``, ``folder``, ``hard link`` or ``symbolic link``; else what it is called in
        messages, and it is refused.
    size : int
        Bytes of its content; -1 where that is not known before.
    mode : int
        Permission bits.
    mtime_ns : int or None
        Its time of modification in nanoseconds since 1970, where it says one.
    target : bytes
        Where a link points to.
    """

    raw: bytes
    kind: str
    size: int = 0
    mode: int = 0o644
    mtime_ns: int | None = None
    target: bytes = b""


class Guard:
    """Names and sizes of one archive, checked one after the other.

    Parameters
    ----------
    what : str
        The archive, as messages call it.
    limits : Limits
        What it may hold.
    top : collection of str
        Names that are expected at the top. Where the first member lies in another folder, all have
        to, and that folder is left away.
    """

    def __init__(self, what: str, limits: Limits, top: Collection[str] = ()) -> None:
        self.what = what
        self.limits = limits
        self.files: set[str] = set()
        self.folders: set[str] = {""}
        self._names: dict[str, str] = {}
        self._top = frozenset(top)
        self._above: str | None = None if top else ""
        self._members = 0
        self.size = 0

    def refused(self, raw: bytes | str, why: str) -> ArchiveError:
        """The error that names a member."""
        return ArchiveError(f"{self.what}: member {shown(raw)}: {why}")

    def place(self, member: Member) -> str:
        """The path of a member, which is taken by it from now on; empty for the top itself.

        Raises
        ------
        ArchiveError
            For a name that is absolute, leads out, is not UTF-8, or clashes with another; and for
            more members or bytes than allowed.
        """
        self._members += 1
        if self._members > self.limits.files:
            raise ArchiveError(f"{self.what}: more than the allowed {self.limits.files} members")
        path = self.path(member.raw, folder=member.kind == FOLDER)
        if member.kind == FOLDER:
            self._take_folders(path, member.raw)
            return path
        if not path:
            raise self.refused(member.raw, "a name without a file in it")
        self._take_folders(path.rpartition("/")[0], member.raw)
        if path in self.files:
            raise self.refused(member.raw, "is there twice")
        self._take(path, member.raw)
        self.files.add(path)
        self.grow(max(member.size, 0), member.raw)
        return path

    def grow(self, size: int, raw: bytes | str) -> None:
        """Count further bytes.

        Raises
        ------
        ArchiveError
            When there are more than allowed.
        """
        self.size += size
        if self.size > self.limits.size:
            raise self.refused(raw, f"more than the allowed {self.limits.size} bytes by then")

    def path(self, raw: bytes, *, folder: bool = False) -> str:
        """A name in the archive as a plain relative path."""
        text = raw.decode("ascii") if _PLAIN.fullmatch(raw) else self._parsed(raw)
        if self._above is None:
            self._above = self._found_above(text, folder=folder)
        if not self._above:
            return text
        if text == self._above[:-1] and folder:
            return ""
        if not text.startswith(self._above) and text:
            expected = ", ".join(sorted(self._top))
            why = f"lies beside {shown(self._above)}; expected {expected} at the top, or one folder"
            raise self.refused(raw, why)
        return text[len(self._above) :]

    def _found_above(self, path: str, *, folder: bool) -> str | None:
        if not path:
            return None
        first, _, rest = path.partition("/")
        return "" if first in self._top or not (rest or folder) else f"{first}/"

    def _parsed(self, raw: bytes) -> str:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise self.refused(raw, "the name is not UTF-8") from None
        if text.startswith("/"):
            raise self.refused(raw, "an absolute path")
        if "\0" in text:
            raise self.refused(raw, "NUL in the name")
        parts = [part for part in text.split("/") if part not in {"", "."}]
        if ".." in parts:
            raise self.refused(raw, "'..' in the path, which may lead out of the folder")
        return "/".join(parts)

    def _take_folders(self, folder: str, raw: bytes) -> None:
        if folder in self.folders:
            return
        self._take_folders(folder.rpartition("/")[0], raw)
        self._take(folder, raw)
        self.folders.add(folder)

    def _take(self, path: str, raw: bytes) -> None:
        key = folded(path)
        other = self._names.get(key)
        if other is None:
            self._names[key] = path
        elif other == path:
            raise self.refused(raw, f"{shown(path)} is both a file and a folder")
        else:
            raise self.refused(
                raw, f"differs only in case, or in how it is encoded, from {other!r}"
            )


def folded(path: str) -> str:
    """What is the same for names that some file systems do not keep apart."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def shown(raw: bytes | str) -> str:
    """A name for messages: one line, and not too long."""
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}… ({len(text)} characters)"
