"""Parquet files one after the other as one, row group by row group, and the result compared.

Memory is bounded by a few pieces of the size of a row group, large row groups cut into several.
Each piece is written as one row group and its digest kept; the file is read back and each row
group's digest compared, so that what is published has been read once as readers will read it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from datasets_prep.errors import MergeError
from datasets_prep.rowgroups import Digest, compare, digest, opened

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_PIECE: Final = 8 << 20  # bytes of decoded columns
_AHEAD: Final = 1  # pieces read before they are written


def concatenate(sources: Sequence[Path], target: Path) -> int:
    """Write the rows of all sources, in their order, to one file.

    Parameters
    ----------
    sources : sequence of Path
        Parquet files of one schema.
    target : Path
        The file to write.

    Returns
    -------
    int
        Rows.

    Raises
    ------
    MergeError
        When a source cannot be read or has another schema, or what was written is not what was
        read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema, options = _checked(sources)
        digests: list[Digest] = []
        with pq.ParquetWriter(target, schema, **options) as writer:
            for piece, read in _read_ahead(sources, schema):
                digests.append(read)
                writer.write_table(piece, row_group_size=max(1, piece.num_rows))
                pa.default_memory_pool().release_unused()
        compare(target, digests)
    except pa.ArrowException as error:
        raise MergeError(f"{target.name}: {' '.join(str(error).split())}") from error
    return sum(rows for rows, _ in digests)


def _checked(sources: Sequence[Path]) -> tuple[pa.Schema, dict[str, Any]]:
    """The one schema of all sources, and how the first is compressed.

    A column that has nothing but nulls in one file takes its type from the others.
    """
    import pyarrow as pa

    with opened(sources[0]) as file:
        schema, options = file.schema_arrow, _compression(file)
    for path in sources[1:]:
        with opened(path) as file:
            other = file.schema_arrow
        same = other.names == schema.names
        try:
            schema = pa.unify_schemas([schema, other]) if same else schema
        except pa.ArrowException:
            same = False
        if not same:
            raise MergeError(
                f"{path}: has {_text(other)}, expected {_text(schema)} as in {sources[0]}; "
                f"make the chunks that differ again"
            )
    return schema, options


def _compression(file: pq.ParquetFile) -> dict[str, Any]:
    if not file.metadata.num_row_groups or not file.metadata.num_columns:
        return {}
    codec = file.metadata.row_group(0).column(0).compression.lower()
    return {"compression": "none" if codec == "uncompressed" else codec}


def _text(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema) or "no columns"


def _pieces(sources: Sequence[Path]) -> Iterator[pa.Table]:
    import pyarrow as pa

    for path in sources:
        with opened(path) as file:
            for number in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(number)
                if group.total_byte_size <= 2 * _PIECE:
                    yield file.read_row_group(number, use_threads=False)
                    continue
                rows = max(1, group.num_rows * _PIECE // group.total_byte_size)
                for batch in file.iter_batches(rows, row_groups=[number], use_threads=False):
                    yield pa.Table.from_batches([batch])


def _read_ahead(sources: Sequence[Path], schema: pa.Schema) -> Iterator[tuple[pa.Table, Digest]]:
    """The pieces and their digests, the next read by a thread while one is written."""
    ready: queue.Queue[tuple[pa.Table, Digest] | BaseException | None] = queue.Queue(_AHEAD)
    ended = threading.Event()

    def put(item: tuple[pa.Table, Digest] | BaseException | None) -> None:
        while not ended.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def read() -> None:
        try:
            for piece in _pieces(sources):
                fitting = piece if piece.schema.equals(schema) else piece.cast(schema)
                put((fitting, digest(fitting)))
                del piece, fitting
                if ended.is_set():
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the pieces are taken
            put(error)

    threading.Thread(target=read, name="datasets-prep-merge", daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
