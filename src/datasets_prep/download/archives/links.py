"""Links of an archive, followed by name alone and made as copies: no link is ever on the disk."""

from __future__ import annotations

import os
import posixpath
from typing import Final

from datasets_prep.download.archives.rules import COPY, HARD, Guard, Member, shown
from datasets_prep.download.archives.streams import PIECE
from tieredstore import Build

_HOPS: Final = 40


class Links:
    """What is a link in one archive, and where it points to.

    Parameters
    ----------
    guard : Guard
        Knows the names of all members.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._targets: dict[str, str] = {}

    def add(self, member: Member, path: str) -> None:
        """Note a link, which has to point to something inside the archive.

        Raises
        ------
        ArchiveError
            When it does not, or when links are refused.
        """
        target = self._resolved(member, path)
        if self._guard.limits.links != COPY:
            why = (
                f"a {member.kind} to {shown(target)}; links are refused unless copies are asked for"
            )
            raise self._guard.refused(member.raw, why)
        self._targets[path] = target

    def _resolved(self, member: Member, path: str) -> str:
        refused = self._guard.refused
        if member.kind == HARD:  # by its name in the archive
            return self._guard.path(member.target)
        try:
            target = member.target.decode()
        except UnicodeDecodeError:
            raise refused(member.raw, "a link to a name that is not UTF-8") from None
        if not target or "\0" in target:
            raise refused(member.raw, "a link to nothing")
        whole = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if target.startswith("/") or whole == ".." or whole.startswith("../"):
            raise refused(member.raw, f"a link that leaves the folder, to {shown(target)}")
        return whole

    def copy_all(self, stage: Build) -> int:
        """Write a copy for each link; how many there are.

        Raises
        ------
        ArchiveError
            When one points to no file of the archive.
        """
        for path in self._targets:
            self._copy(stage, path, self._file(path))
        return len(self._targets)

    def _file(self, path: str) -> str:
        """The file that a link ends at, over others if need be."""
        at = path
        for _ in range(_HOPS):
            if at not in self._targets:
                break
            at = self._targets[at]
        if at in self._guard.files and at not in self._targets:
            return at
        what = "a folder" if at in self._guard.folders else "no file of the archive"
        why = "itself" if at in self._targets else f"{shown(at)}, {what}"
        raise self._guard.refused(path, f"a link to {why}")

    def _copy(self, stage: Build, path: str, file: str) -> None:
        with open(stage.path / file, "rb", buffering=0, opener=_opened) as source:
            found = os.fstat(source.fileno())
            self._guard.grow(found.st_size, path)
            with stage.writer() as writer:
                with writer.open(path, found.st_mode & 0o777, found.st_mtime_ns) as copy:
                    while data := source.read(PIECE):
                        copy.write(data)


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
