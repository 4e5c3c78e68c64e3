"""Tables to row groups of one size, written to one file and compared with it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from datasets_prep.rowgroups import Digest, compare, digest
from datasets_prep.tabular.options import ParquetOptions

if TYPE_CHECKING:
    import pyarrow as pa

_GROUP: Final = 32 << 20  # bytes of a row group in memory


@dataclass(frozen=True, slots=True)
class Written:
    """What a file has.

    Attributes
    ----------
    rows, groups : int
        How many.
    """

    rows: int
    groups: int


def write(
    target: Path, schema: pa.Schema, tables: Iterable[pa.Table], options: ParquetOptions
) -> Written:
    """Write tables to a Parquet file, and compare it with what was written.

    Raises
    ------
    MergeError
        When they differ.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    how: dict[str, Any] = {"compression": "zstd", "compression_level": options.level}
    stored = _stored(schema)
    digests: list[Digest] = []
    with pq.ParquetWriter(target, stored, **how) as writer:
        for group in row_groups(tables, options.group_rows):
            piece = group.cast(stored)
            digests.append(digest(piece))
            writer.write_table(piece, row_group_size=max(1, piece.num_rows))
            pa.default_memory_pool().release_unused()
    compare(target, digests)
    return Written(sum(rows for rows, _ in digests), len(digests))


def row_groups(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Tables cut and put together to so many rows each; 0: to about the same number of bytes."""
    import pyarrow as pa

    held: list[pa.Table] = []
    count = size = 0
    for table in tables:
        begin = 0
        while begin < table.num_rows:
            each = max(1, table.nbytes // table.num_rows)
            room = rows - count if rows else max(1, (_GROUP - size) // each)
            piece = table.slice(begin, room)
            held.append(piece)
            begin += piece.num_rows
            count += piece.num_rows
            size += piece.nbytes
            if count == rows or (not rows and size + each > _GROUP):
                yield pa.concat_tables(held)
                held, count, size = [], 0, 0
    if held:
        yield pa.concat_tables(held)


def _stored(schema: pa.Schema) -> pa.Schema:
    """The schema that a reader gets: Parquet has no seconds, say."""
    import pyarrow.parquet as pq

    kept = io.BytesIO()
    pq.write_table(schema.empty_table(), kept)
    kept.seek(0)
    return pq.read_schema(kept)
