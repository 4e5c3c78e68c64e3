"""Members of a zip archive, of which the list stands at the end; so the source has to be seekable.

`zipfile` parses the list. What members hold is read here, because each is to end exactly where the
list says, with the length and the checksum that it says: sizes that lie, and members that share
bytes, are refused.
"""

from __future__ import annotations

import bz2
import calendar
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from datasets_prep.download.archives.rules import FILE, FOLDER, SLACK, SYMBOLIC, Guard, Member
from datasets_prep.download.archives.streams import PIECE, Bytes
from datasets_prep.errors import ArchiveError

_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_PLACE64: Final = struct.Struct("<4sLQL")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_COMMENT: Final = 0xFFFF
_ENTRY: Final = 2048  # bytes of the list for one member: the longest name, and what goes with it
_OVERLAPS: Final = "its bytes overlap with those of another member"
_LIST: Final = 512 << 20  # bytes of it; all of it is in memory
_ENCRYPTED: Final = 0x1 | 0x40
_UTF8: Final = 0x800
_UNIX: Final = 3
_TARGET: Final = 4096  # bytes of what a link points to
_EXTENDED_TIME: Final = 0x5455
_STORED: Final = zipfile.ZIP_STORED
_MAKE: Final = {
    zipfile.ZIP_DEFLATED: lambda: zlib.decompressobj(-15),
    zipfile.ZIP_BZIP2: bz2.BZ2Decompressor,
}
_ERRORS: Final = (zlib.error, OSError, ValueError, EOFError)


class ZipReader:
    """Reads members in the order in which their bytes lie.

    Parameters
    ----------
    source : file
        The archive; seekable.
    guard : Guard
        Makes the errors that name a member.
    """

    def __init__(self, source: BinaryIO, guard: Guard) -> None:
        self._source = source
        self._guard = guard
        self._check_end()
        source.seek(0)
        try:
            self._zip = zipfile.ZipFile(source)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise ArchiveError(f"{guard.what}: damaged: {error}") from None
        self._infos = sorted(self._zip.infolist(), key=lambda i: i.header_offset)
        self._now: zipfile.ZipInfo

    @property
    def total(self) -> int:
        """How many members there are that are no folders."""
        return sum(not info.is_dir() for info in self._infos)

    def members(self) -> Iterator[Member]:
        """Every member.

        Raises
        ------
        ArchiveError
            When two share bytes, and for what is encrypted or compressed in another way.
        """
        self._compare_sizes()
        self._compare_places()
        after = 0
        for info in self._infos:
            self._now = info
            raw = self._name(info)
            if info.header_offset < after:
                raise self._guard.refused(raw, _OVERLAPS)
            after = self._content(info, raw) + info.compress_size
            if after > self._zip.start_dir:
                raise self._guard.refused(raw, "its bytes overlap with the list of members")
            yield self._member(info, raw)

    def whole(self) -> Bytes:
        """The content of the member that was given last."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[Bytes]:
        """The same in pieces."""
        info, raw = self._now, self._name(self._now)
        if not info.compress_size and not info.file_size:
            return
        size = crc = 0
        for piece in self._decompressed(info, raw):
            size += len(piece)
            if size > info.file_size:
                break
            crc = zlib.crc32(piece, crc)
            yield piece
        if size != info.file_size:
            more = "more" if size > info.file_size else f"only {size}"
            why = f"{more} bytes, where {info.file_size} are declared"
            raise self._guard.refused(raw, why)
        if crc != info.CRC:
            raise self._guard.refused(raw, "damaged: its checksum does not match")

    # -- the list -------------------------------------------------------------------------------

    def _check_end(self) -> None:
        """Refuse what is cut off, followed by something, or has a list that fills the memory."""
        length = self._source.seek(0, 2)
        start = max(0, length - _END.size - _COMMENT)
        tail = self._read(start, length - start)
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < _END.size:
            raise ArchiveError(f"{self._guard.what}: truncated: the list of members is missing")
        end = _END.unpack_from(tail, at)
        if at + _END.size + end[7] != len(tail):
            raise ArchiveError(f"{self._guard.what}: trailing garbage after the archive's end")
        listed, count = end[5], end[4]
        place = start + at - _PLACE64.size
        if place >= 0 and (data := self._read(place, _PLACE64.size)).startswith(b"PK\x06\x07"):
            data = self._read(_PLACE64.unpack(data)[2], _END64.size)
            if len(data) == _END64.size:
                listed, count = _END64.unpack(data)[8], _END64.unpack(data)[7]
        most = self._guard.limits.files
        if count > most or listed > min(_LIST, (count + 1) * _ENTRY):
            raise ArchiveError(f"{self._guard.what}: lists {count} members in {listed} bytes")

    def _compare_sizes(self) -> None:
        limits = self._guard.limits
        files = sum(info.file_size for info in self._infos)
        packed = sum(info.compress_size for info in self._infos)
        if files > SLACK + limits.ratio * packed:
            raise ArchiveError(
                f"{self._guard.what}: expands to more than {limits.ratio} times its size"
            )

    def _compare_places(self) -> None:
        """Refuse what overlaps before anything is written, as far as the list tells."""
        after = 0
        for info in self._infos:
            raw = self._name(info)
            if info.header_offset < after:
                raise self._guard.refused(raw, _OVERLAPS)
            after = info.header_offset + _LOCAL.size + len(raw) + info.compress_size

    def _name(self, info: zipfile.ZipInfo) -> bytes:
        """The name's bytes as they stand in the archive."""
        return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")

    def _member(self, info: zipfile.ZipInfo, raw: bytes) -> Member:
        if info.flag_bits & _ENCRYPTED:
            raise self._guard.refused(raw, "encrypted, which is refused")
        if info.compress_type != _STORED and info.compress_type not in _MAKE:
            raise self._guard.refused(raw, f"compressed by method {info.compress_type}, unknown")
        mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
        kind = FOLDER if raw.endswith(b"/") else FILE
        if kind == FILE and stat.S_ISLNK(mode):
            kind = SYMBOLIC
        elif stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise self._guard.refused(raw, "a device, pipe or socket, which is refused")
        if kind == FOLDER and info.file_size:
            raise self._guard.refused(raw, f"damaged: a folder with {info.file_size} bytes")
        member = Member(raw, kind, info.file_size, mode & 0o777 or 0o666, _time(info))
        if kind == SYMBOLIC:
            if info.file_size > _TARGET:
                raise self._guard.refused(raw, "a link to more than 4096 bytes")
            member.target = bytes(self.whole())
            member.size = 0
        return member

    # -- content --------------------------------------------------------------------------------

    def _content(self, info: zipfile.ZipInfo, raw: bytes) -> int:
        """Where the content begins, by the header in front of it."""
        data = self._read(info.header_offset, _LOCAL.size)
        if len(data) < _LOCAL.size or not data.startswith(b"PK\x03\x04"):
            raise self._guard.refused(raw, "damaged: no header where the list says")
        *_, name, extra = _LOCAL.unpack(data)
        if self._read(info.header_offset + _LOCAL.size, name) != raw:
            raise self._guard.refused(raw, "has another name in front of its content")
        return int(info.header_offset + _LOCAL.size + name + extra)

    def _read(self, offset: int, size: int) -> bytes:
        self._source.seek(offset)
        parts: list[bytes] = []
        while size and (data := self._source.read(size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def _packed(self, info: zipfile.ZipInfo, raw: bytes) -> Iterator[bytes]:
        at, left = self._content(info, raw), info.compress_size
        while left:
            data = self._read(at, min(left, PIECE))
            if not data:
                raise self._guard.refused(raw, "truncated")
            at += len(data)
            left -= len(data)
            yield data

    def _decompressed(self, info: zipfile.ZipInfo, raw: bytes) -> Iterator[bytes]:
        if info.compress_type == _STORED:
            yield from self._packed(info, raw)
            return
        decoder: Any = _MAKE[info.compress_type]()
        for data in self._packed(info, raw):
            left = data
            while left or not _hungry(decoder):
                if decoder.eof:
                    raise self._guard.refused(raw, "has more content than it should")
                try:
                    got = decoder.decompress(left, PIECE)
                except _ERRORS as error:
                    raise self._guard.refused(raw, f"damaged: {error}") from None
                left = getattr(decoder, "unconsumed_tail", b"")
                if got:
                    yield got
                elif not left:
                    break
            if decoder.unused_data:
                raise self._guard.refused(raw, "has more content than it should")
        if not decoder.eof:
            raise self._guard.refused(raw, "truncated, or its sizes are wrong")


def _hungry(decoder: Any) -> bool:
    """Whether nothing more can come without further bytes."""
    return bool(decoder.eof or getattr(decoder, "needs_input", False))


def _time(info: zipfile.ZipInfo) -> int | None:
    """When it was changed: in UTC where that is said, else what is written there, taken as UTC."""
    extra = info.extra
    while len(extra) >= 4:  # noqa: PLR2004 - two numbers
        key, size = struct.unpack_from("<2H", extra)
        if key == _EXTENDED_TIME and size >= 5 and extra[4] & 1:  # noqa: PLR2004 - flags, seconds
            return int(struct.unpack_from("<L", extra, 5)[0]) * 10**9
        extra = extra[4 + size :]
    try:
        return calendar.timegm((*info.date_time, 0, 0, 0)) * 10**9
    except ValueError:
        return None
