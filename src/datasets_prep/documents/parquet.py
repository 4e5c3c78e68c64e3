"""Documents of Parquet files: one column, some row groups, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

from datasets_prep.documents.pieces import BATCH, MOST, Bad, Batch, Files, Part, Text
from datasets_prep.errors import SourceError

_BUFFER: Final = 1 << 20  # bytes read at once of a column, which is never in memory as a whole


def group_sizes(source: Files, path: str, column: str) -> list[int]:
    """The bytes of a column in each row group, as they lie in the file.

    Raises
    ------
    SourceError
        When the file is none of Parquet, or has no such column of text.
    """
    with _opened(source, path) as file:
        number = _column_number(file, path, column)
        groups = range(file.metadata.num_row_groups)
        return [file.metadata.row_group(n).column(number).total_compressed_size for n in groups]


def read(source: Files, part: Part, column: str) -> Iterator[Batch]:
    """The documents of a part; where one is not to be used, the row is named, counted from 1."""
    import pyarrow as pa

    with _opened(source, part.path) as file:
        number = _column_number(file, part.path, column)
        meta = file.metadata
        row = sum(meta.row_group(n).num_rows for n in range(part.start)) + 1
        for group in range(part.start, part.end):
            rows = max(meta.row_group(group).num_rows, 1)
            chunk = meta.row_group(group).column(number)
            each = max(chunk.total_uncompressed_size // rows, 1)
            share = chunk.total_compressed_size / rows
            batches = file.iter_batches(
                batch_size=min(max(BATCH // each, 1), MOST),
                row_groups=[group],
                columns=[column],
                use_threads=False,
            )
            try:
                for found in batches:
                    yield _batch(found.column(0), part.path, row, column, share)
                    row += found.num_rows
            except (pa.ArrowException, OSError) as error:
                why = f"row group {group + 1} (row {row} on) cannot be read: {error}"
                raise SourceError(f"{part.path}: {why}") from error


def _batch(values: Any, path: str, first: int, column: str, share: float) -> Batch:
    batch = Batch(size=int(share * len(values)))
    lying = _lying(values)
    if lying is not None:
        batch.texts, batch.length = lying
        return batch
    for number, text in enumerate(map(_text, values), first):
        if isinstance(text, str):
            batch.add(text)
        elif text is None:
            batch.add(Bad(f"{path}: row {number}", f"column {column!r} is null, expected text"))
        else:
            batch.add(Bad(f"{path}: row {number}", f"no valid UTF-8: {text}"))
    return batch


def _lying(values: Any) -> tuple[list[Text], int] | None:
    """Documents as they lie in memory, and their bytes; ``None`` where they cannot all be used."""
    import pyarrow as pa

    try:
        if not pa.types.is_string(values.type):
            values = values.cast(pa.large_string())
        values.validate(full=True)  # that all is UTF-8
    except pa.ArrowException:
        return None
    if values.null_count:
        return None
    _, offsets, data = values.buffers()
    if data is None:
        return [b""] * len(values), 0
    plain = memoryview(offsets).cast("B")
    numbers = plain.cast("i") if pa.types.is_string(values.type) else plain.cast("q")
    ends = numbers[values.offset : values.offset + len(values) + 1].tolist()
    view = memoryview(data)
    return [view[start:end] for start, end in pairwise(ends)], ends[-1] - ends[0]


def _text(value: Any) -> str | UnicodeDecodeError | None:
    try:
        text: str | None = value.as_py()
    except UnicodeDecodeError as error:
        return error
    return text


@contextmanager
def _opened(source: Files, path: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with source.open(path) as opened:
        try:
            file = pq.ParquetFile(opened, buffer_size=_BUFFER, pre_buffer=False)
        except pa.ArrowException as error:
            raise SourceError(f"{path}: no whole Parquet file: {error}") from error
        with file:
            yield file


def _column_number(file: Any, path: str, column: str) -> int:
    import pyarrow as pa

    names = file.schema_arrow.names
    if column not in names:
        raise SourceError(f"{path}: has no column {column!r}; there are {', '.join(names)}")
    kind = file.schema_arrow.field(column).type
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not any(test(plain) for test in tests):
        raise SourceError(f"{path}: column {column!r} is {kind}, expected text")
    leaves = [file.schema.column(n).path for n in range(len(file.schema))]
    return leaves.index(column)
