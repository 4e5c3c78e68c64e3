"""Members of a tar archive, one after the other: ustar and pax (POSIX.1-2001), GNU's long names.

Strict where two readers could understand an archive in two ways: a header whose checksum does not
match, numbers that are none, content where a kind of member has none, and an end that is missing
or followed by something are refused. Sparse files are refused too.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol

from datasets_prep.download.archives.rules import FILE, FOLDER, HARD, SYMBOLIC, Guard, Member

Bytes = bytes | memoryview

BLOCK: Final = 512
_ZEROS: Final = bytes(BLOCK)
_EXTENSION: Final = 1 << 20  # bytes of one extended header
_EXTENSIONS: Final = 16  # of them before one member
_LATEST: Final = 1 << 34  # seconds since 1970 that every file system here knows

# name, mode, uid, gid, size, mtime, checksum, type, target, magic, version, …, prefix
_HEADER: Final = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
_OCTAL: Final = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
_DECIMAL: Final = re.compile(rb"[0-9]{1,18}")
_TIME: Final = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?")
_KINDS: Final = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,  # contiguous, on systems that had that
    b"5": FOLDER,
    b"1": HARD,
    b"2": SYMBOLIC,
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"S": "a sparse file",
}
_PAX: Final = b"x"
_PAX_GLOBAL: Final = b"g"
_LONG_NAME: Final = b"L"
_LONG_TARGET: Final = b"K"
_OF_ONE: Final = {b"path", b"linkpath", b"size"}  # keys that make no sense for all members


class Source(Protocol):
    """Where a tar archive's bytes come from; see `streams.Feed`."""

    def take(self, size: int) -> Bytes:
        """The next bytes."""

    def block(self, size: int) -> bytes:
        """The next bytes; empty at the end."""

    def pieces(self, size: int) -> Iterator[Bytes]:
        """The next bytes in pieces."""

    def rest(self) -> Iterator[Bytes]:
        """All that is left, in pieces."""


@dataclass(slots=True)
class _Extended:
    """What extended headers say of the next member."""

    keys: dict[bytes, bytes] = field(default_factory=dict)
    name: bytes | None = None
    target: bytes | None = None
    headers: int = 0


class TarReader:
    """Reads members in order; the content of each before the next is asked for.

    Parameters
    ----------
    feed : Feed
        The archive's bytes, decompressed.
    guard : Guard
        Makes the errors that name a member.
    """

    total = 0  # members are not counted anywhere

    def __init__(self, feed: Source, guard: Guard) -> None:
        self._feed = feed
        self._guard = guard
        self._left = 0
        self._global: dict[bytes, bytes] = {}

    def members(self) -> Iterator[Member]:
        """Every member in order.

        Raises
        ------
        ArchiveError
            When the archive is damaged, ends too early or too late, or uses what is refused.
        Truncated
            When it ends within a member.
        """
        extended = _Extended()
        while True:
            block = self._feed.block(BLOCK)
            if not block:
                raise self._guard.refused("", "truncated: the mark of the archive's end is missing")
            if block == _ZEROS:
                self._end()
                return
            kind, member = self._parsed(block)
            if kind in {_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_TARGET}:
                self._extend(kind, member, extended)
                continue
            if extended.headers or self._global:
                self._apply(extended, member)
                extended = _Extended()
            if member.kind != FILE:
                self._check(kind, member)
            self._left = member.size
            yield member
            if self._left:
                for _ in self.pieces():
                    pass

    def whole(self) -> Bytes:
        """The content of the member that was given last."""
        size, self._left = self._left, 0
        padded = size + -size % BLOCK
        return self._feed.take(padded)[:size]

    def pieces(self) -> Iterator[Bytes]:
        """The same in pieces."""
        size, self._left = self._left, 0
        yield from self._feed.pieces(size)
        self._feed.take(-size % BLOCK)

    def _end(self) -> None:
        for piece in self._feed.rest():
            if bytes(piece).strip(b"\0"):
                raise self._guard.refused("", "trailing garbage after the archive's end")

    def _parsed(self, block: bytes) -> tuple[bytes, Member]:
        fields = _HEADER.unpack(block)
        name = fields[0].split(b"\0", 1)[0]
        if not is_tar(block):
            raise self._guard.refused(name, "damaged: the checksum of its header does not match")
        if fields[9] == b"ustar\0" and fields[15][:1] != b"\0":
            name = fields[15].split(b"\0", 1)[0] + b"/" + name
        try:
            size, mode, mtime = _number(fields[4]), _often(fields[1]), _often(fields[5])
        except ValueError as error:
            raise self._guard.refused(name, f"damaged: {error}") from None
        if size < 0:
            raise self._guard.refused(name, f"damaged: a size of {size} bytes")
        kind: bytes = fields[7]
        called = _KINDS.get(kind, f"of the unknown type {kind!r}")
        if called == FILE and name.endswith(b"/"):
            called = FOLDER
        seconds = min(max(mtime, 0), _LATEST)
        target = fields[8].split(b"\0", 1)[0]
        return kind, Member(name, called, size, mode & 0o777, seconds * 10**9, target)

    def _check(self, kind: bytes, member: Member) -> None:
        if kind not in _KINDS or member.kind not in {FILE, FOLDER, HARD, SYMBOLIC}:
            raise self._guard.refused(member.raw, f"{member.kind}, which is refused")
        if member.kind != FILE and member.size:
            why = f"damaged: a {member.kind} with {member.size} bytes of content"
            raise self._guard.refused(member.raw, why)

    # -- extended headers -----------------------------------------------------------------------

    def _extend(self, kind: bytes, member: Member, extended: _Extended) -> None:
        extended.headers += 1
        if member.size > _EXTENSION or extended.headers > _EXTENSIONS:
            raise self._guard.refused(member.raw, "its extended headers are too long")
        self._left = member.size
        data = bytes(self.whole())
        if kind == _LONG_NAME:
            extended.name = self._long(data, member)
        elif kind == _LONG_TARGET:
            extended.target = self._long(data, member)
        else:
            keys = self._keys(data, member)
            if kind == _PAX:
                extended.keys.update(keys)
            else:
                self._add_global(keys, member)
                extended.headers -= 1

    def _long(self, data: bytes, member: Member) -> bytes:
        name, _, rest = data.partition(b"\0")
        if rest.strip(b"\0"):
            raise self._guard.refused(name or member.raw, "NUL in the name")
        return name

    def _add_global(self, keys: dict[bytes, bytes], member: Member) -> None:
        if keys.keys() & _OF_ONE:
            raise self._guard.refused(member.raw, "a name or size for all members at once")
        self._global.update(keys)
        if len(self._global) > BLOCK:
            raise self._guard.refused(member.raw, "its extended headers are too long")

    def _keys(self, data: bytes, member: Member) -> dict[bytes, bytes]:
        keys: dict[bytes, bytes] = {}
        while data.strip(b"\0"):
            digits, space, _ = data[:20].partition(b" ")
            length = int(digits) if space and _DECIMAL.fullmatch(digits) else 0
            record = data[len(digits) + 1 : length]
            key, equals, value = record[:-1].partition(b"=")
            if length > len(data) or not record.endswith(b"\n") or not equals:
                raise self._guard.refused(member.raw, "damaged: a malformed extended header")
            keys[key] = value
            data = data[length:]
        return keys

    def _apply(self, extended: _Extended, member: Member) -> None:
        keys = {**self._global, **extended.keys}
        name = extended.name if extended.name is not None else member.raw
        member.raw = keys.get(b"path", name)
        target = extended.target if extended.target is not None else member.target
        member.target = keys.get(b"linkpath", target)
        if any(key.startswith(b"GNU.sparse.") for key in keys):
            raise self._guard.refused(member.raw, "a sparse file, which is refused")
        if b"size" in keys:
            if not _DECIMAL.fullmatch(keys[b"size"]):
                raise self._guard.refused(member.raw, "damaged: a size that is no number")
            member.size = int(keys[b"size"])
        if found := _TIME.fullmatch(keys.get(b"mtime", b"")):
            sign, seconds, part = found.groups()
            whole = 0 if sign else min(int(seconds), _LATEST)
            member.mtime_ns = whole * 10**9 + int((part or b"")[:9].ljust(9, b"0"))
        if member.kind == FILE and member.raw.endswith(b"/"):
            member.kind = FOLDER


def is_tar(block: bytes) -> bool:
    """Whether a block of 512 bytes is a header: its checksum matches."""
    if len(block) != BLOCK:
        return False
    try:
        expected = _number(block[148:156])
    except ValueError:
        return False
    # Adler-32 holds the sum of up to 256 bytes, and takes a tenth of the time of `sum`. The
    # checksum's own eight bytes count as spaces.
    halves = (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF) - 2
    total = halves - sum(block[148:156]) + 8 * 32
    if total == expected:
        return expected != 8 * 32
    high = sum(byte >> 7 for byte in block) - sum(byte >> 7 for byte in block[148:156])
    return total - 256 * high == expected  # as some old programs added signed bytes


def _number(data: bytes) -> int:
    """Octal digits, or GNU's base-256 for what they cannot hold."""
    digits = data.rstrip(b" \0")
    if digits.isdigit():  # nearly always; another digit than octal ones is refused by `int`
        return int(digits, 8)
    if data[0] & 0x80:
        number = int.from_bytes(data[1:], "big")
        return number if data[0] == 0x80 else number - (1 << 8 * (len(data) - 1))  # noqa: PLR2004
    found = _OCTAL.fullmatch(data)
    if found is None:
        raise ValueError(f"{data.strip(bytes(1))!r} is no number")
    return int(found[1] or b"0", 8)


_often = lru_cache(256)(_number)  # modes and times, which many members share
