r"""How many small files are packed into few objects: which shard has which file, and where.

A shard is a tar archive (POSIX.1-2001: ustar headers, extended ones where a name needs them) that
``tar`` and `tarfile` read. Shards are cut from the records in their order, so that every byte of
them follows from the records and the files: the size of each is known before anything is read.
Files above `LARGE` stay objects of their own. No input or output here.

The index says where each file's bytes begin. It lies beside the records under the name
``.tieredstore.shards``, its size and digest are kept in the head::

    {"files": N, "shards": M}\n     one JSON line of at most 256 bytes
    M numbers of 8 bytes            size of each shard, uint64, little-endian
    N entries of 12 bytes           in the order of the records: number of the shard (uint32) and
                                    offset of the file's first byte in it (uint64), both
                                    little-endian; 2**32 - 1 and 0: an object of its own

Shards are called ``.tieredstore.shards-00000.tar`` and so on.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from tieredstore.errors import CorruptData, reason
from tieredstore.manifest.artifact import SHARDS, Shards, digest128
from tieredstore.manifest.records import BLOCK, ENTRY, FileRecord, Records, pack_block

MANY: Final = 2_000  # small files above which an artifact is packed
LARGE: Final = 32 << 20  # bytes; a file above is read and written well enough by itself
SHARD: Final = 256 << 20  # bytes of a shard at most
MAX_SHARD: Final = 1 << 40
SLOT: Final = 512  # bytes; everything in a tar archive begins at a multiple of it
END: Final = 2 * SLOT  # bytes of zeros at the end of a tar archive

_SIZE: Final = struct.Struct("<Q")
_PLACE: Final = struct.Struct("<IQ")
_OWN: Final = 2**32 - 1
_FIRST_LINE: Final = 256
_NAME: Final = 100  # bytes of the field of a ustar header that holds the name
_TIME: Final = 8**11  # seconds since 1970 that its field for the time cannot hold any more


class Place(NamedTuple):
    """Where a file's bytes begin."""

    shard: int
    offset: int


@dataclass(frozen=True, slots=True)
class Index:
    """Which shard has which file.

    Attributes
    ----------
    sizes : tuple of int
        Bytes of each shard.
    places : mapping
        By the file's path, in the order of the records; ``None``: an object of its own.
    """

    sizes: tuple[int, ...]
    places: Mapping[str, Place | None]

    @classmethod
    def cut(cls, files: Iterable[FileRecord], most: int) -> Index:
        """Cut shards of at most ``most`` bytes from files in the order of their records."""
        sizes: list[int] = []
        places: dict[str, Place | None] = {}
        for file in files:
            if file.size > LARGE:
                places[file.path] = None
                continue
            begin = header_size(file)
            needed = begin + padded(file.size)
            if not sizes or sizes[-1] + needed > most:
                sizes.append(END)
            at = sizes[-1] - END
            places[file.path] = Place(len(sizes) - 1, at + begin)
            sizes[-1] += needed
        return cls(tuple(sizes), places)

    def emit(self) -> bytes:
        """The index as it is written."""
        first = json.dumps({"files": len(self.places), "shards": len(self.sizes)})
        sizes = b"".join(map(_SIZE.pack, self.sizes))
        places = b"".join(_PLACE.pack(*(p or (_OWN, 0))) for p in self.places.values())
        return first.encode() + b"\n" + sizes + places

    @classmethod
    def parse(cls, data: bytes, known: Shards, records: Records, where: str) -> Index:
        """Read an index that comes from somewhere not trusted.

        Parameters
        ----------
        data : bytes
            All of it.
        known : Shards
            What the head says of it.
        records : Records
            Of the same generation; they have been verified.
        where : str
            Its place, for messages.

        Raises
        ------
        CorruptData
            When it does not match the head, or does not fit the records.
        """
        if len(data) != known.size or digest128(data) != known.digest:
            raise CorruptData(f"{where}: the index of the shards does not match the head")
        try:
            return cls._parse(data, records)
        except (ValueError, TypeError, LookupError, struct.error, RecursionError) as error:
            raise CorruptData(f"{where}: malformed index of shards: {reason(error)}") from None

    @classmethod
    def _parse(cls, data: bytes, records: Records) -> Index:
        start = data.find(b"\n", 0, _FIRST_LINE) + 1
        first = json.loads(data[:start])
        files, shards = first["files"], first["shards"]
        if not (type(files) is type(shards) is int) or not 0 <= shards <= files:
            raise ValueError("impossible counts")
        table = start + shards * _SIZE.size
        if files != len(records.files) or table + files * _PLACE.size != len(data):
            raise ValueError("the counts do not fit the records, or the length")
        sizes = tuple(size for (size,) in _SIZE.iter_unpack(data[start:table]))
        if sizes and max(sizes) > MAX_SHARD:
            raise ValueError(f"a shard of {max(sizes)} bytes, at most {MAX_SHARD}")
        return cls(sizes, _places(data[table:], sizes, records))

    def is_cut_from(self, records: Records) -> bool:
        """Whether `cut` could have given it, wherever a new shard begins.

        For one that no head vouches for: bits that were flipped do not pass, even in several
        places.
        """
        ends = [0] * len(self.sizes)
        for path, place in self.places.items():
            if place is not None:
                file = records.files[path]
                begin = ends[place.shard] + header_size(file)
                if place.offset != begin:
                    return False
                ends[place.shard] = begin + padded(file.size)
        return [end + END for end in ends] == list(self.sizes)

    def members(self, records: Records) -> list[list[tuple[FileRecord, int]]]:
        """The files of each shard, with the offset of each one's first byte."""
        found: list[list[tuple[FileRecord, int]]] = [[] for _ in self.sizes]
        for path, place in self.places.items():
            if place is not None:
                found[place.shard].append((records.files[path], place.offset))
        return found


def _places(table: bytes, sizes: tuple[int, ...], records: Records) -> dict[str, Place | None]:
    """Each file's place; in the order of the records, none lies in another or outside."""
    places: dict[str, Place | None] = {}
    now, end = -1, 0
    for file, (shard, offset) in zip(
        records.files.values(), _PLACE.iter_unpack(table), strict=True
    ):
        if (shard, offset) == (_OWN, 0):
            places[file.path] = None
            continue
        if shard == now + 1:
            now, end = shard, 0
        if shard != now or offset < end + SLOT or offset + file.size + END > sizes[shard]:
            raise ValueError(f"{file.path!r}: byte {offset} of shard {shard} cannot be its place")
        places[file.path] = Place(shard, offset)
        end = offset + file.size
    if now + 1 != len(sizes):
        raise ValueError(f"{now + 1} shards have files, expected {len(sizes)}")
    return places


def max_size(files: int) -> int:
    """Bytes that an index of so many files may have: a shard has one file at least."""
    return _FIRST_LINE + files * (_SIZE.size + _PLACE.size)


def known_as(data: bytes) -> Shards:
    """What a head says of an index."""
    return Shards(len(data), digest128(data))


def shard_name(number: int) -> str:
    """The name of a shard's object, beside the records."""
    return f"{SHARDS}-{number:05d}.tar"


def worth_packing(records: Records) -> bool:
    """Whether there are so many small files that shards are better."""
    return sum(file.size <= LARGE for file in records.files.values()) > MANY


def padded(size: int) -> int:
    """Bytes that a file of ``size`` bytes takes in an archive, without its header."""
    return -(-size // SLOT) * SLOT


def header(file: FileRecord) -> bytes:
    """What stands before a file in an archive: its name, size, mode and time in whole seconds."""
    import tarfile

    info = tarfile.TarInfo(file.path)
    info.size, info.mode = file.size, file.mode
    info.mtime = file.mtime_ns // 10**9
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def header_size(file: FileRecord) -> int:
    """Bytes of `header`; most are not made for it."""
    plain = len(file.path) <= _NAME and file.path.isascii() and file.size < 1 << 33
    if plain and 0 <= file.mtime_ns // 10**9 < _TIME:
        return SLOT
    return len(header(file))


def blank_blocks(size: int) -> bytes:
    """A block table for ``size`` bytes without digests: a shard's are those of its files."""
    return b"".join(_blanks(size))


def _blanks(size: int) -> Iterator[bytes]:
    none = bytes(ENTRY - 4)
    for begin in range(0, size, BLOCK):
        yield pack_block(min(BLOCK, size - begin), none)
