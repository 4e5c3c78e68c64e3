"""Rows of CSV files and of datasets that were saved as Arrow, as tables of one schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from datasets_prep.errors import OptionError, SourceError, reason
from datasets_prep.tabular.inputs import CSV, Inputs, delimiter, opened
from datasets_prep.tabular.options import ParquetOptions

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK: Final = 8 << 20  # bytes of CSV from which types are taken, and that are read at once
_ARROW_FILE: Final = b"ARROW1"  # how its file format begins; else it is its stream format


def schema_of(inputs: Inputs, options: ParquetOptions) -> pa.Schema:
    """The schema of the first file.

    Raises
    ------
    SourceError
        When it cannot be read, or has text that is no UTF-8.
    OptionError
        When a column that was asked for is missing.
    """
    path = inputs.paths[0]
    with _batches(inputs, path, options, None) as (schema, _):
        found: pa.Schema = schema
    import pyarrow as pa

    for name in (*options.columns, *options.types):
        if name not in found.names:
            raise OptionError(f"column {name!r}: {path} has {', '.join(found.names)}")
    for field in found if inputs.kind == CSV else ():
        if pa.types.is_binary(field.type):
            raise SourceError(f"{path}: column {field.name} has values that are no valid UTF-8")
    chosen = [found.field(name) for name in options.columns or found.names]
    return pa.schema([_without_dictionary(field) for field in chosen], found.metadata)


def tables(
    inputs: Inputs, path: str, schema: pa.Schema, options: ParquetOptions
) -> Iterator[pa.Table]:
    """The rows of a file.

    Raises
    ------
    SourceError
        When the file has other columns, or a value does not fit: with the file and the row.
    """
    import pyarrow as pa

    with _batches(inputs, path, options, schema) as (found, batches):
        names = [name for name in found.names if not options.columns or name in options.columns]
        if sorted(names) != sorted(schema.names):
            raise SourceError(
                f"{path}: has {', '.join(names)}, expected {', '.join(schema.names)} as in "
                f"{inputs.paths[0]}"
            )
        for batch in batches:
            table = pa.Table.from_batches([batch]).select(schema.names)
            yield _as(table, schema, path, inputs)


def _as(table: pa.Table, schema: pa.Schema, path: str, inputs: Inputs) -> pa.Table:
    import pyarrow as pa

    fields = [_without_dictionary(field) for field in table.schema]
    if pa.schema(fields) != schema:
        there = ", ".join(f"{field.name}: {field.type}" for field in fields)
        wanted = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise SourceError(f"{path}: has {there}; expected {wanted} as in {inputs.paths[0]}")
    return table.cast(schema)


def _without_dictionary(field: pa.Field) -> pa.Field:
    import pyarrow as pa

    kind = field.type
    return field.with_type(kind.value_type) if pa.types.is_dictionary(kind) else field


@contextmanager
def _batches(
    inputs: Inputs, path: str, options: ParquetOptions, schema: pa.Schema | None
) -> Iterator[tuple[Any, Any]]:
    """A file's schema, and its rows in batches."""
    import pyarrow as pa

    with opened(inputs.source, path) as file:
        try:
            if inputs.kind == CSV:
                found = _csv(file, path, options, schema)
                yield found.schema, found
            elif file.peek(len(_ARROW_FILE)).startswith(_ARROW_FILE):
                whole = pa.ipc.open_file(file)
                numbers = range(whole.num_record_batches)
                yield whole.schema, (whole.get_batch(number) for number in numbers)
            else:
                stream = pa.ipc.open_stream(file)
                yield stream.schema, stream
        except (pa.ArrowException, KeyError) as error:
            raise SourceError(f"{path}: {reason(error)}") from error


def _csv(file: Any, path: str, options: ParquetOptions, schema: pa.Schema | None) -> Any:
    import pyarrow as pa
    import pyarrow.csv as pc

    given = {name: pa.type_for_alias(kind) for name, kind in options.types.items()}
    known = {field.name: field.type for field in schema} if schema is not None else given
    return pc.open_csv(
        file,
        pc.ReadOptions(use_threads=False, block_size=_BLOCK),
        pc.ParseOptions(delimiter=delimiter(path), newlines_in_values=True),
        pc.ConvertOptions(column_types=known),
    )
