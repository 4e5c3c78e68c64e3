"""Extraction of an archive into a stage, while its bytes still arrive.

One thread reads and decompresses, the calling one writes: file after file below folders that are
held open, digested on the way. See `archives` for what is read, and what is refused.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol

from datasets_prep.download.archives.kinds import (
    HEAD,
    ZIP,
    codec_of,
    is_zip,
    kind_of,
    unpacked_name,
)
from datasets_prep.download.archives.links import Links
from datasets_prep.download.archives.rules import FILE, FOLDER, Guard, Limits, Member
from datasets_prep.download.archives.streams import (
    Ahead,
    Bytes,
    Decompressed,
    Feed,
    Truncated,
    pieces_of,
)
from datasets_prep.download.archives.tar import BLOCK, TarReader, is_tar
from datasets_prep.download.archives.zips import ZipReader
from datasets_prep.errors import ArchiveError
from tieredstore import Build, InvalidName, StageWriter

__all__ = ["HEAD", "Extracted", "Limits", "extract", "kind_of", "seeks"]

Progress = Callable[[int, int], None]

_SMALL: Final = 1 << 20  # bytes; what is larger is written in pieces
_OFTEN: Final = 0.1  # seconds between two words on how far it is
_LOOK: Final = 64  # members between two looks at the clock


@dataclass(frozen=True, slots=True)
class Extracted:
    """What came of an archive.

    Attributes
    ----------
    kind : str
        See `kind_of`.
    files : int
        How many files were written.
    size : int
        Bytes of them.
    """

    kind: str
    files: int
    size: int


class _Archive(Protocol):
    @property
    def total(self) -> int: ...

    def members(self) -> Iterator[Member]: ...

    def whole(self) -> Bytes: ...

    def pieces(self) -> Iterator[Bytes]: ...


def seeks(kind: str) -> bool:
    """Whether an archive of this kind can be read only where one can seek."""
    return kind == ZIP


def extract(
    source: BinaryIO,
    into: Build,
    limits: Limits | None = None,
    progress: Progress | None = None,
    name: str = "",
    top: Collection[str] = (),
) -> Extracted:
    """Extract an archive, or decompress a single file.

    Parameters
    ----------
    source : file
        The archive, read in order to its end; a zip archive has to be seekable.
    into : Build
        The stage.
    limits : Limits, optional
        What it may hold.
    progress : callable, optional
        Told now and then how many files there are, of how many; 0 where nobody knows.
    name : str
        The archive's, for messages and for what a single compressed file is called.
    top : collection of str
        Names that are expected at the top: where the archive has all in one folder above them,
        that folder is left away.

    Raises
    ------
    ArchiveError
        In one line that names the member: when it is damaged, cut off, followed by something, of
        no kind that is known, too large, or holds what is refused. What has been written so far is
        in the stage.
    TierUnavailable
        When the stage cannot be written.
    """
    limits = limits or Limits()
    head = _head(source)
    codec = codec_of(head)
    work = _Work(into, progress or _silent)
    if is_zip(head):
        guard = Guard(_what(ZIP, name), limits, top)
        return work.run(ZIP, ZipReader(source, guard), guard)
    pieces = pieces_of(source, head)
    if codec is not None:
        pieces = iter(Decompressed(codec, pieces, _what(codec.name, name), limits.ratio))
    with Ahead(pieces) as ahead:
        feed = Feed(iter(ahead))
        if is_tar(feed.peek(BLOCK)):
            kind = "tar" if codec is None else f"tar.{codec.name}"
            guard = Guard(_what(kind, name), limits, top)
            return work.run(kind, TarReader(feed, guard), guard)
        if codec is None:
            begins = head[:8].hex(" ") or "nothing"
            raise ArchiveError(
                f"{name or 'the source'}: no archive that is known, begins: {begins}"
            )
        guard = Guard(_what(codec.name, name), limits)
        return work.run(codec.name, _Single(unpacked_name(name, codec), feed, guard), guard)


def _head(source: BinaryIO) -> bytes:
    head = b""
    while len(head) < BLOCK and (data := source.read(BLOCK - len(head))):
        head += data
    return head


def _what(kind: str, name: str) -> str:
    return f"{kind} archive {name}".rstrip()


def _silent(done: int, total: int) -> None:
    del done, total


class _Single:
    """A single compressed file, as an archive of one member."""

    total = 1

    def __init__(self, name: str, feed: Feed, guard: Guard) -> None:
        self._name = name
        self._feed = feed
        self._guard = guard

    def members(self) -> Iterator[Member]:
        """The file; it is not known how long it is."""
        yield Member(self._name.encode("utf-8", "surrogateescape"), FILE, -1, 0o666)

    def whole(self) -> Bytes:
        """All of it."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[Bytes]:
        """All of it in pieces."""
        for piece in self._feed.rest():
            self._guard.grow(len(piece), self._name)
            yield piece


class _Work:
    """One extraction."""

    def __init__(self, stage: Build, progress: Progress) -> None:
        self._stage = stage
        self._progress = progress
        self._files = self._size = 0
        self._told = 0.0

    def run(self, kind: str, archive: _Archive, guard: Guard) -> Extracted:
        links = Links(guard)
        try:
            self._write_all(archive, guard, links)
        except Truncated:
            raise ArchiveError(f"{guard.what}: truncated: it ends within a member") from None
        self._files += links.copy_all(self._stage)
        if not self._files:
            raise ArchiveError(f"{guard.what}: holds no file")
        self._progress(self._files, archive.total)
        return Extracted(kind, self._files, guard.size)

    def _write_all(self, archive: _Archive, guard: Guard, links: Links) -> None:
        with self._stage.writer() as writer:
            for member in archive.members():
                path = guard.place(member)
                if member.kind == FOLDER:
                    continue  # made where a file lies in it: the store keeps no empty one
                if member.kind != FILE:
                    links.add(member, path)
                    continue
                try:
                    _write(writer, archive, member, path)
                except (InvalidName, FileExistsError, NotADirectoryError) as error:
                    raise guard.refused(member.raw, str(error).rpartition(": ")[2]) from None
                self._files += 1
                if self._files % _LOOK == 0:
                    self._tell(archive.total)

    def _tell(self, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= _OFTEN:
            self._told = now
            self._progress(self._files, total)


def _write(writer: StageWriter, archive: _Archive, member: Member, path: str) -> None:
    mode = member.mode | stat.S_IRUSR | stat.S_IWUSR
    if 0 <= member.size <= _SMALL:
        writer.put(path, archive.whole(), mode, member.mtime_ns)
        return
    with writer.open(path, mode, member.mtime_ns) as file:
        for piece in archive.pieces():
            file.write(piece)
