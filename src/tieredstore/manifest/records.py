r"""The records of a generation: each file's path, size, mode, mtime, sha256 and blocks.

Parse, emit and validate; no input or output but `find`, which looks one file up in a mapped
records file without reading the rest. Format version 1::

    {"files": N, "blocks": M, "lines": L}\n          one JSON line of at most 256 bytes
    ["path", size, mode, mtime_ns, first, count, sha256 or null]\n     N lines, L bytes together,
                                                     sorted by the path's UTF-8 bytes
    M entries of 20 bytes: length (uint32, little-endian) and 128-bit XXH3 of each block

Each block carries its length, so the table of a merged file is its inputs' tables one after the
other. Their digest is kept in the head.
"""

from __future__ import annotations

import json
import mmap
import re
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final

import xxhash

from tieredstore.errors import InvalidName, ManifestError, NoSuchFile, reason
from tieredstore.manifest.artifact import Head, Recipe, digest128
from tieredstore.manifest.names import check_distinct, check_file, check_files

BLOCK: Final = 1 << 20  # bytes; the length of every block that this library cuts
MAX_BLOCK: Final = 64 << 20
MAX_RECORDS: Final = 1 << 30
MAX_FILES: Final = 5_000_000
ENTRY: Final = 20

_LENGTH: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<I16s")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_FIRST_LINE: Final = 256

_MALFORMED: Final = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
    struct.error,
)

block_digest = xxhash.xxh3_128_digest


@dataclass(frozen=True, slots=True)
class Block:
    """One run of a file's bytes: where it starts, how long it is, its digest (16 bytes)."""

    offset: int
    length: int
    digest: bytes


def head_of(
    records: Records, recipe: Recipe | None, *, generation: str, kind: str = "folder"
) -> Head:
    """The head that belongs to these records."""
    data = records.emit()
    return Head(
        generation=generation,
        files=len(records.files),
        size=records.size,
        records_size=len(data),
        records_digest=digest128(data),
        recipe=recipe,
        kind=kind,
        created=int(time.time()),
    )


def pack_block(length: int, digest: bytes) -> bytes:
    """One entry of a block table."""
    return _LENGTH.pack(length) + digest


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What the manifest says of one file.

    Attributes
    ----------
    path : str
        Relative to the artifact.
    size : int
        Bytes.
    mode : int
        Permission bits, never setuid, setgid or sticky.
    mtime_ns : int
        Modification time, nanoseconds since 1970.
    table : bytes
        Its block table: 20 bytes a block.
    sha256 : str or None
        Digest of the whole file where one is known.
    """

    path: str
    size: int
    mode: int = 0o644
    mtime_ns: int = 0
    table: bytes = b""
    sha256: str | None = None

    def blocks(self) -> Iterator[Block]:
        """The blocks in order."""
        offset = 0
        for at in range(0, len(self.table), ENTRY):
            (length,) = _LENGTH.unpack_from(self.table, at)
            yield Block(offset, length, self.table[at + 4 : at + ENTRY])
            offset += length


@dataclass(frozen=True, slots=True)
class Records:
    """All files of one generation, by path."""

    files: Mapping[str, FileRecord]
    _emitted: list[bytes] = field(default_factory=list, init=False, compare=False, repr=False)

    @classmethod
    def of(cls, files: Iterable[FileRecord]) -> Records:
        """Records of validated files in their canonical order."""
        ordered = sorted(files, key=lambda f: f.path.encode())
        check_files(f.path for f in ordered)
        return cls({f.path: f for f in ordered})

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(f.size for f in self.files.values())

    def emit(self) -> bytes:
        """The records as they are written; the head tells their digest before they are."""
        if not self._emitted:
            self._emitted.append(self._written())
        return self._emitted[0]

    def _written(self) -> bytes:
        lines: list[bytes] = []
        tables: list[bytes] = []
        first = 0
        for f in self.files.values():
            count = len(f.table) // ENTRY
            lines.append(_row(f, first, count))
            tables.append(f.table)
            first += count
        body = b"".join(lines)
        start = {"files": len(lines), "blocks": first, "lines": len(body)}
        data = json.dumps(start).encode() + b"\n" + body + b"".join(tables)
        if len(data) > MAX_RECORDS or len(lines) > MAX_FILES:
            raise ManifestError(
                f"records: {len(lines)} files, {len(data)} bytes; at most {MAX_FILES} files and "
                f"{MAX_RECORDS} bytes: split the artifact"
            )
        return data

    @classmethod
    def parse(cls, data: bytes, digest: str, where: str) -> Records:
        """Read records that come from somewhere not trusted.

        Parameters
        ----------
        data : bytes
            All of them.
        digest : str
            What the head says their digest is.
        where : str
            Their place, for messages.

        Raises
        ------
        ManifestError
            When they are damaged, oversized, malformed or name paths that escape.
        """
        if len(data) > MAX_RECORDS:
            raise ManifestError(f"{where}: records of more than {MAX_RECORDS} bytes")
        if digest128(data) != digest:
            raise ManifestError(f"{where}: the records do not match the head; they are damaged")
        try:
            return cls._parse(data)
        except _MALFORMED as error:
            raise ManifestError(f"{where}: malformed records: {reason(error)}") from None

    @classmethod
    def _parse(cls, data: bytes) -> Records:
        count, start, blocks, body = _regions(data)
        files: dict[str, FileRecord] = {}
        at, before = 0, ""
        for row in _rows(data[start:body], count):
            record, used = _parse_row(row, data, body, at)
            if record.path <= before:  # by code points, which is also the order of UTF-8
                raise ValueError(f"{record.path!r} is out of order or listed twice")
            before = record.path
            at += used
            files[before] = record
        if at != blocks:
            raise ValueError(f"{at} blocks are used, the table has {blocks}")
        check_distinct(list(files))
        return cls(files)


def _row(f: FileRecord, first: int, count: int) -> bytes:
    """One line; an encoder of its own for each would take three times as long."""
    path, sha256 = quoted(f.path), "null" if f.sha256 is None else quoted(f.sha256)
    return f"[{path},{f.size},{f.mode},{f.mtime_ns},{first},{count},{sha256}]\n".encode()


def _rows(lines: bytes, count: int) -> list[Any]:
    """Every line's row; all of them are read at once, a line at a time takes twice as long."""
    parts = lines.split(b"\n")
    if parts.pop() != b"" or len(parts) != count:
        raise ValueError(f"{len(parts)} lines, expected {count}")
    if not all(part.startswith(b'["') and part.endswith(b"]") for part in parts):
        raise ValueError("a line is no row")
    rows: list[Any] = json.loads(b"[" + b",".join(parts) + b"]")
    if len(rows) != count:
        raise ValueError(f"{len(rows)} rows, expected {count}")
    return rows


def _regions(data: bytes | mmap.mmap) -> tuple[int, int, int, int]:
    """Number of files, offset of the lines, number of blocks, offset of the block table."""
    end = data.find(b"\n", 0, _FIRST_LINE)
    if end < 0:
        raise ValueError("no first line")
    first = json.loads(data[:end])
    files, blocks, lines = first["files"], first["blocks"], first["lines"]
    if not all(type(n) is int and n >= 0 for n in (files, blocks, lines)) or files > MAX_FILES:
        raise ValueError("impossible counts")
    start = end + 1
    if start + lines + blocks * ENTRY != len(data):
        raise ValueError("the counts do not add up to the length")
    return files, start, blocks, start + lines


def _parse_row(row: Any, data: bytes, tables: int, at: int) -> tuple[FileRecord, int]:
    path, size, mode, mtime_ns, first, count, sha256 = row
    integers = type(size) is type(mode) is type(mtime_ns) is type(first) is type(count) is int
    if not integers or size < 0 or count < 0 or first != at:
        raise ValueError(f"{path!r}: impossible numbers")
    if mode & ~0o777 or not -(2**63) <= mtime_ns < 2**63:
        raise ValueError(f"{path!r}: mode {mode:o} or time {mtime_ns} is not allowed")
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ValueError(f"{path!r}: {sha256!r} is no sha256")
    begin = tables + first * ENTRY
    table = data[begin : begin + count * ENTRY]
    record = FileRecord(check_file(path), size, mode, mtime_ns, table, sha256)
    lengths = [length for length, _ in _ENTRY.iter_unpack(table)]
    if sum(lengths) != size or (lengths and not 0 < min(lengths) <= max(lengths) <= MAX_BLOCK):
        raise ValueError(f"{path!r}: its blocks do not add up to {size} bytes")
    return record, count


def find(data: bytes | mmap.mmap, path: str) -> FileRecord | None:
    """Look one file up by bisection, without its blocks and without checking the rest.

    Parameters
    ----------
    data : bytes or mmap
        A whole records file.
    path : str
        The file asked for.

    Returns
    -------
    FileRecord or None
        ``None`` when the artifact has no such file.

    Raises
    ------
    ManifestError
        When the records are malformed where they were read.
    """
    try:
        _, low, _, high = _regions(data)
        wanted = path.encode()
        while low < high:
            middle = max(data.rfind(b"\n", low, (low + high) // 2) + 1, low)
            end = data.find(b"\n", middle, high) + 1 or high
            row = json.loads(data[middle:end])
            here = row[0].encode()
            if here == wanted:
                return FileRecord(path, row[1], row[2], row[3], b"", row[6])
            low, high = (end, high) if here < wanted else (low, middle)
        return None
    except _MALFORMED as error:
        raise ManifestError(f"malformed records: {reason(error)}") from None


def entries(data: bytes | mmap.mmap) -> list[FileRecord]:
    """All files without their blocks, which are most of the records of large files.

    Raises
    ------
    ManifestError
        When the records are malformed; nothing is compared with a digest.
    """
    try:
        _, low, _, high = _regions(data)
        rows = [json.loads(line) for line in data[low:high].splitlines()]
        return [FileRecord(check_file(r[0]), r[1], r[2], r[3], b"", r[6]) for r in rows]
    except (*_MALFORMED, InvalidName) as error:
        raise ManifestError(f"malformed records: {reason(error)}") from None


def groups(blocks: list[Block], size: int) -> list[list[Block]]:
    """Neighbouring blocks together, up to ``size`` bytes (at least one block).

    Only the last group has less than half of ``size``: where blocks are long and short ones lie
    between them, a group is longer rather. No place takes any number of short pieces.
    """
    found: list[list[Block]] = []
    filled = size
    for block in blocks:
        if filled + block.length > size and 2 * filled >= size:
            found.append([])
            filled = 0
        found[-1].append(block)
        filled += block.length
    return found


def require(records: Records, files: Iterable[str], name: str) -> list[FileRecord]:
    """The records of the files asked for.

    Raises
    ------
    NoSuchFile
        When the artifact has no such file.
    """
    missing = [f for f in files if f not in records.files]
    if missing:
        raise NoSuchFile(f"{name}: no file {missing[0]!r} in this generation")
    return [records.files[f] for f in files]
