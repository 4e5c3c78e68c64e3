"""Parquet files joined without decoding a value: their row groups copied, byte for byte.

For files of one schema whose row groups stay true where they are put (see ``footer.py``). What is
copied is verified against each source's manifest while it is read, and compared once more where it
lies. Everything else is decoded and written anew, in ``parquet.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import xxhash

from datasets_prep.chunks.footer import MAGIC, MAX_FOOTER, TAIL, Encoded, Footer, NotMovable
from datasets_prep.errors import MergeError

if TYPE_CHECKING:
    import pyarrow as pa

_PIECE: Final = 4 << 20  # bytes that are copied at once
_MAX_FOOTERS: Final = 256 << 20  # bytes of footers that are held until the end


@dataclass(frozen=True, slots=True)
class Joinable:
    """One file to join.

    Attributes
    ----------
    path : Path
        Where it lies.
    open : callable
        Gives it as a stream whose bytes are verified.
    """

    path: Path
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class _Copied:
    """Bytes that were copied: where they lie now, how many, and their digest."""

    at: int
    size: int
    digest: bytes


def join(sources: Sequence[Joinable], target: Path) -> int:
    """Write the rows of all sources, in their order, to one file.

    Parameters
    ----------
    sources : sequence of Joinable
        Parquet files of one schema.
    target : Path
        The file to write.

    Returns
    -------
    int
        Rows.

    Raises
    ------
    NotMovable
        When they have to be decoded to become one.
    MergeError
        When what was written is not what was read.
    """
    schema = _schema(sources)
    copied: list[_Copied] = []
    groups: list[Encoded] = []
    rows, held, first = 0, 0, None
    with target.open("wb") as file:
        file.write(MAGIC)
        for source in sources:
            found, piece = _copy(source, file)
            copied.append(piece)
            first = first or found
            if found.schema != first.schema:
                raise NotMovable
            moved = found.moved_groups(piece.at - len(MAGIC))
            held += sum(len(group.data) for group in moved)
            if held > _MAX_FOOTERS:
                raise NotMovable
            groups += moved
            rows += found.rows
        assert first is not None
        _write_footer(file, first.with_groups(groups, rows))
    _compare(target, copied)
    _check(target, schema, rows)
    return rows


def _schema(sources: Sequence[Joinable]) -> pa.Schema:
    """The schema that all sources have, whatever else they say of themselves."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schemas = [pq.read_schema(source.path) for source in sources]
    except (pa.ArrowException, OSError):
        raise NotMovable from None
    if not all(schema.equals(schemas[0]) for schema in schemas):
        raise NotMovable
    return schemas[0]


def _copy(source: Joinable, file: BinaryIO) -> tuple[Footer, _Copied]:
    """Copy everything between a file's first magic and its footer."""
    size = source.path.stat().st_size
    with source.path.open("rb") as unverified:
        unverified.seek(-min(size, TAIL), 2)
        tail = unverified.read()
    length = int.from_bytes(tail[:4], "little")
    body = size - len(MAGIC) - length - TAIL
    if tail[4:] != MAGIC or not 0 < length <= MAX_FOOTER or body < 0:
        raise NotMovable
    with source.open() as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise NotMovable
        copied = _copy_body(stream, file, body)
        footer = stream.read(length)
        if stream.read() != tail:
            raise NotMovable
    return Footer.parse(footer), copied


def _copy_body(stream: BinaryIO, file: BinaryIO, size: int) -> _Copied:
    at, left, digest = file.tell(), size, xxhash.xxh3_128()
    while left:
        piece = stream.read(min(left, _PIECE))
        if not piece:
            raise NotMovable
        digest.update(piece)
        file.write(piece)
        left -= len(piece)
    return _Copied(at, size, digest.digest())


def _write_footer(file: BinaryIO, footer: Footer) -> None:
    data = footer.emit()
    file.write(data + len(data).to_bytes(4, "little") + MAGIC)


def _compare(target: Path, copied: Sequence[_Copied]) -> None:
    """Read back what was copied."""
    with target.open("rb") as file:
        for each in copied:
            file.seek(each.at)
            digest, left = xxhash.xxh3_128(), each.size
            while left:
                piece = file.read(min(left, _PIECE))
                digest.update(piece)
                left -= len(piece)
                if not piece:
                    break
            if digest.digest() != each.digest:
                raise MergeError(
                    f"{target.name}: byte {each.at} on was written otherwise than it was read; "
                    f"merge again, and suspect the disk or the memory"
                )


def _check(target: Path, schema: pa.Schema, rows: int) -> None:
    """Open it as a reader will, its first and last row group too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(target) as file:
            last = file.metadata.num_row_groups - 1
            ends = [n for n in {0, last} if n >= 0]
            counted = sum(file.metadata.row_group(n).num_rows for n in range(last + 1))
            columns = schema.names[:1]
            right = all(
                file.read_row_group(n, columns=columns).num_rows
                == file.metadata.row_group(n).num_rows
                for n in ends
            )
            same = file.schema_arrow.equals(schema) and counted == file.metadata.num_rows == rows
    except (pa.ArrowException, OSError) as error:
        raise MergeError(f"{target.name}: {' '.join(str(error).split())}") from error
    if not (right and same):
        raise MergeError(f"{target.name}: {counted} rows can be read, expected {rows}")
