"""Records of JSON lines and of JSON arrays as tables of one schema.

Lines are parsed by Arrow, a block of them at a time. A block in which anything is not as expected
is read once more, record by record, so that what is wrong can be named, and so that nothing that
is right is refused.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from datasets_prep.documents.arrays import Elements
from datasets_prep.errors import OptionError, PrepError, SourceError, reason
from datasets_prep.tabular.inputs import Inputs, is_lines, opened
from datasets_prep.tabular.options import ParquetOptions
from datasets_prep.tabular.shape import Mixed, Shape, check, kind_of
from tieredstore import TieredStoreError

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK: Final = 8 << 20  # bytes
_SAMPLE: Final = 8 << 20  # bytes from which the schema is taken
_MAX_LINE: Final = 256 << 20
_MOST: Final = 4096  # records of an array at once
_BOM: Final = b"\xef\xbb\xbf"
_BLANK: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class _Record:
    where: str
    value: object


def schema_of(inputs: Inputs, options: ParquetOptions) -> pa.Schema:
    """The schema that the first records have.

    Raises
    ------
    SourceError
        When they have none in common, or no file has any.
    OptionError
        When a column that was asked for is not among theirs.
    """
    import pyarrow as pa

    shape, left = Shape(), _SAMPLE
    records = chain.from_iterable(_records(inputs, path, options) for path in inputs.paths)
    for record, size in records:
        value = _object(record, options)
        try:
            shape.see(value)
        except Mixed as error:
            raise SourceError(f"{record.where}: {error}") from None
        left -= size
        if left <= 0:
            break
    if left == _SAMPLE:
        raise SourceError(f"{inputs.source.shown}: has no records")
    found = dict(shape.fields())
    found |= {name: pa.type_for_alias(kind) for name, kind in options.types.items()}
    missing = [name for name in options.columns if name not in found]
    if missing:
        there = ", ".join(name for name, _ in _first(inputs, options)) or "none"
        raise OptionError(f"column {missing[0]!r}: the first record has {there}")
    if not found:
        raise SourceError(f"{inputs.source.shown}: its records are empty")
    return pa.schema([(name, found[name]) for name in options.columns or found])


def _first(inputs: Inputs, options: ParquetOptions) -> Iterator[tuple[str, object]]:
    """The columns of the first record."""
    for path in inputs.paths:
        for record, _ in _records(inputs, path, options):
            if isinstance(record.value, dict):
                yield from record.value.items()
            return


def tables(
    inputs: Inputs, path: str, schema: pa.Schema, options: ParquetOptions
) -> Iterator[pa.Table]:
    """The records of a file.

    Raises
    ------
    SourceError
        When one does not fit the schema, or is no JSON: with the file and the line.
    """
    with opened(inputs.source, path) as file:
        if _has_lines(file, path, options):
            for first, block in _blocks(file, path):
                table = _parsed(block, schema, options)
                yield table or _checked(_in_lines(block, first, path), schema, options)
            return
        for records in _together(_in_array(file, path, options)):
            yield _checked(records, schema, options)


def _records(inputs: Inputs, path: str, options: ParquetOptions) -> Iterator[tuple[_Record, int]]:
    """The records of a file, and about how many bytes each has."""
    with opened(inputs.source, path) as file:
        if not _has_lines(file, path, options):
            yield from _in_array(file, path, options)
            return
        for first, block in _blocks(file, path):
            size = len(block) // max(1, block.count(b"\n"))
            for record in _in_lines(block, first, path):
                yield record, size


def _has_lines(file: io.BufferedReader, path: str, options: ParquetOptions) -> bool:
    """Whether a file has a record in each line; where its name does not say, its beginning does."""
    if is_lines(path):
        if options.field:
            raise OptionError(f"field {options.field!r}: {path} has lines, and no one object")
        return True
    if options.field:
        return False
    begins = file.peek(1).removeprefix(_BOM).lstrip(_BLANK)
    return not begins.startswith(b"[")


# -- lines ----------------------------------------------------------------------------------------


def _blocks(file: io.BufferedReader, path: str) -> Iterator[tuple[int, bytes]]:
    """Whole lines, many at a time, with the number of the first."""
    first, rest, place = 1, b"", _Place(path)
    while True:
        with place.named():
            data = file.read(_BLOCK)
        cut = data.rfind(b"\n") + 1
        if not data or cut:
            block = (rest + data[:cut]).removeprefix(_BOM if first == 1 else b"")
            if block.strip(_BLANK):
                yield first, block
            first += block.count(b"\n")
            place.line = first
            rest = data[cut:]
        else:
            rest += data
        if not data:
            return
        if len(rest) > _MAX_LINE:
            raise SourceError(f"{path}: line {first}: longer than {_MAX_LINE} bytes")


def _parsed(block: bytes, schema: pa.Schema, options: ParquetOptions) -> pa.Table | None:
    """A block by Arrow; ``None`` where it finds, or would pass over, anything unexpected."""
    import pyarrow as pa
    import pyarrow.json as pj

    if any(_holds_nulls_only(field.type) for field in schema):
        return None
    unexpected = "infer" if options.columns else "error"
    reading = pj.ReadOptions(use_threads=False, block_size=len(block) + 1)
    parsing = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior=unexpected)
    try:
        str(block, "utf-8")  # Arrow does not look
        table = pj.read_json(pa.BufferReader(block), reading, parsing).select(schema.names)
        table.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError, KeyError):
        return None
    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    if table.num_rows != lines:
        lines = sum(1 for line in block.split(b"\n") if line.strip(_BLANK))
    fits = table.num_rows == lines and table.schema.equals(schema)
    return table if fits else None


def _holds_nulls_only(kind: pa.DataType) -> bool:
    """Whether something in a type is always null: Arrow 26 makes broken arrays of lists of it."""
    import pyarrow as pa

    inner = [kind.field(number).type for number in range(kind.num_fields)]
    return any(pa.types.is_null(each) or _holds_nulls_only(each) for each in inner)


def _in_lines(block: bytes, first: int, path: str) -> Iterator[_Record]:
    for number, line in enumerate(block.split(b"\n"), first):
        if not line.strip(_BLANK):
            continue
        where = f"{path}: line {number}"
        try:
            yield _Record(where, json.loads(line.decode()))
        except UnicodeDecodeError as error:
            raise SourceError(f"{where}: no valid UTF-8: byte {error.start + 1}") from None
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{where}: no valid JSON: {reason(error)}") from None


# -- arrays ---------------------------------------------------------------------------------------


class _Counted:
    """A file that says how much of it was read."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self.count = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.count += len(data)
        return data


def _in_array(
    file: io.BufferedReader, path: str, options: ParquetOptions
) -> Iterator[tuple[_Record, int]]:
    counted, before, place = _Counted(file), 0, _Place(path)
    with place.named():
        for line, value in Elements(cast(BinaryIO, counted), path).rows(options.path):
            place.line = line
            yield _Record(f"{path}: line {line}", value), counted.count - before
            before = counted.count


def _together(records: Iterable[tuple[_Record, int]]) -> Iterator[list[_Record]]:
    """As many as a block has bytes."""
    held: list[_Record] = []
    total = 0
    for record, size in records:
        held.append(record)
        total += size
        if total >= _BLOCK or len(held) >= _MOST:
            yield held
            held, total = [], 0
    if held:
        yield held


# -- records --------------------------------------------------------------------------------------


def _checked(records: Iterable[_Record], schema: pa.Schema, options: ParquetOptions) -> pa.Table:
    """Records one by one, each compared with the schema."""
    import pyarrow as pa

    rows = []
    for record in records:
        row = _object(record, options)
        try:
            for name, value in row.items():
                if name not in schema.names:
                    raise Mixed(f"{name} is new: no earlier record has it")
                check(value, schema.field(name).type, name)
        except Mixed as error:
            raise SourceError(f"{record.where}: {error}{_hint(options)}") from None
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=schema)


def _hint(options: ParquetOptions) -> str:
    return "" if options.types else "; a column's type can be given with --type"


def _object(record: _Record, options: ParquetOptions) -> dict[str, object]:
    """A record's columns, of those that were asked for."""
    if not isinstance(record.value, dict):
        raise SourceError(f"{record.where}: {kind_of(record.value)}, expected an object")
    if not options.columns:
        return record.value
    return {name: record.value[name] for name in options.columns if name in record.value}


class _Place:
    """How far a file was read."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.line = 1

    @contextmanager
    def named(self) -> Iterator[None]:
        """Where reading fails, name the line from which on."""
        import pyarrow as pa

        try:
            yield
        except (PrepError, TieredStoreError):
            raise
        except (OSError, EOFError, pa.ArrowException) as error:
            raise SourceError(
                f"{self._path}: line {self.line} on: cannot be read: {reason(error)}"
            ) from error
