"""The footer of a Parquet file, read and written again with row groups that lie elsewhere.

Only what moving row groups needs: Thrift's compact protocol as a tree that keeps every field, known
or not, and the fields of ``FileMetaData`` that are positions in the file. No values are decoded.
Sources: Apache Thrift's "Thrift compact protocol" specification, and ``parquet.thrift`` of the
Apache Parquet format 2.12, whose field numbers stand below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

MAGIC: Final = b"PAR1"
TAIL: Final = 8  # bytes: the footer's length, and the magic
MAX_FOOTER: Final = 16 << 20  # bytes of one that is taken apart here
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_MAX_DEPTH: Final = 16
_SHORT: Final = 15  # lists of fewer elements, and steps between fields up to it, take no varint
_MORE: Final = 0x80  # of a varint's byte: another follows

# FileMetaData
_VERSION, _SCHEMA, _ROWS, _GROUPS = 1, 2, 3, 4
_ENCRYPTED: Final = (8, 9)  # encryption_algorithm, footer_signing_key_metadata
# RowGroup
_COLUMNS, _GROUP_AT, _ORDINAL = 1, 5, 7
# ColumnChunk
_FILE, _CHUNK_AT, _META = 1, 2, 3
_INDEXES: Final = (4, 5, 6, 7)  # offset_index and column_index: they hold positions themselves
_CRYPTO: Final = (8, 9)
# ColumnMetaData: data_page_offset, index_page_offset, dictionary_page_offset, bloom_filter_offset
_AT: Final = (9, 10, 11, 14)

Struct = dict[int, tuple[int, Any]]


class NotMovable(Exception):
    """A footer that says things which do not stay true when its row groups are moved."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A struct that is written already."""

    data: bytes


@dataclass(slots=True)
class Footer:
    """One file's footer.

    Attributes
    ----------
    fields : dict
        ``FileMetaData``, by field number.
    """

    fields: Struct

    @classmethod
    def parse(cls, data: bytes) -> Footer:
        """Read a footer.

        Raises
        ------
        NotMovable
            When it is encrypted, or does not give the same bytes when it is written again.
        """
        try:
            found = cls(_Reader(data).struct(0))
            same = found.emit() == data
        except (LookupError, ValueError):
            same = False
        if not same or any(field in found.fields for field in _ENCRYPTED):
            raise NotMovable
        if not {_VERSION, _SCHEMA, _ROWS, _GROUPS} <= found.fields.keys():
            raise NotMovable
        return found

    def emit(self) -> bytes:
        """The footer as it is written."""
        out = bytearray()
        _put_struct(out, self.fields)
        return bytes(out)

    @property
    def rows(self) -> int:
        """Rows of the whole file."""
        return int(self.fields[_ROWS][1])

    @property
    def schema(self) -> object:
        """The file's own schema, to be compared with another's."""
        return self.fields[_SCHEMA]

    def moved_groups(self, distance: int) -> list[Encoded]:
        """Its row groups, so many bytes farther on.

        Raises
        ------
        NotMovable
            When one lies in another file, or is encrypted.
        """
        _, groups = self.fields[_GROUPS][1]
        return [_moved(group, distance) for group in groups]

    def with_groups(self, groups: list[Encoded], rows: int) -> Footer:
        """The same for a file of these row groups."""
        own = {_ROWS: (_I64, rows), _GROUPS: (_LIST, (_STRUCT, groups))}
        return Footer({**self.fields, **own})


def _moved(group: Struct, distance: int) -> Encoded:
    group.pop(_ORDINAL, None)
    _shift(group, _GROUP_AT, distance)
    for chunk in group[_COLUMNS][1][1]:
        if _META not in chunk or _FILE in chunk or any(field in chunk for field in _CRYPTO):
            raise NotMovable
        for field in _INDEXES:
            chunk.pop(field, None)
        _shift(chunk, _CHUNK_AT, distance)
        for field in _AT:
            _shift(chunk[_META][1], field, distance)
    out = bytearray()
    _put_struct(out, group)
    return Encoded(bytes(out))


def _shift(fields: Struct, field: int, distance: int) -> None:
    if field in fields:
        kind, at = fields[field]
        fields[field] = (kind, at + distance if at > 0 else at)  # 0: not said


class _Reader:
    """Reads a tree from bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._readers: dict[int, Callable[[int], Any]] = {
            _BYTE: lambda _: self._byte(),
            _I16: lambda _: _unzigzag(self._varint()),
            _I32: lambda _: _unzigzag(self._varint()),
            _I64: lambda _: _unzigzag(self._varint()),
            _DOUBLE: lambda _: self._bytes(8),
            _BINARY: lambda _: self._bytes(self._varint()),
            _LIST: self._list,
            _STRUCT: self.struct,
        }

    def struct(self, depth: int) -> Struct:
        if depth > _MAX_DEPTH:
            raise ValueError(depth)
        found: Struct = {}
        field = 0
        while head := self._byte():
            kind, step = head & 15, head >> 4
            field = field + step if step else _unzigzag(self._varint())
            found[field] = (kind, self._value(kind, depth + 1))
        return found

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & ~_MORE) << shift
            if byte < _MORE:
                return value
            shift += 7

    def _value(self, kind: int, depth: int) -> Any:
        if kind in {_TRUE, _FALSE}:
            return None
        return self._readers[kind](depth)

    def _bytes(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise ValueError(size)
        return self._data[self._at - size : self._at]

    def _list(self, depth: int) -> tuple[int, list[Any]]:
        head = self._byte()
        kind, size = head & 15, head >> 4
        if size == _SHORT:
            size = self._varint()
        if kind in {_TRUE, _FALSE}:
            return kind, list(self._bytes(size))
        return kind, [self._value(kind, depth) for _ in range(size)]


def _put_struct(out: bytearray, fields: Struct) -> None:
    before = 0
    for field in sorted(fields):
        kind, value = fields[field]
        step = field - before
        if 0 < step <= _SHORT:
            out.append(step << 4 | kind)
        else:
            out.append(kind)
            _put_varint(out, _zigzag(field))
        _put(out, kind, value)
        before = field
    out.append(0)


def _put(out: bytearray, kind: int, value: Any) -> None:
    if isinstance(value, Encoded):
        out += value.data
    elif kind in {_I16, _I32, _I64}:
        _put_varint(out, _zigzag(value))
    elif kind == _BYTE:
        out.append(value)
    elif kind == _DOUBLE:
        out += value
    elif kind == _BINARY:
        _put_varint(out, len(value))
        out += value
    elif kind == _LIST:
        _put_list(out, *value)
    elif kind == _STRUCT:
        _put_struct(out, value)


def _put_list(out: bytearray, kind: int, values: list[Any]) -> None:
    if len(values) < _SHORT:
        out.append(len(values) << 4 | kind)
    else:
        out.append(0xF0 | kind)
        _put_varint(out, len(values))
    if kind in {_TRUE, _FALSE}:
        out += bytes(values)
        return
    for value in values:
        _put(out, kind, value)


def _put_varint(out: bytearray, value: int) -> None:
    while value >= _MORE:
        out.append(value & 0x7F | _MORE)
        value >>= 7
    out.append(value)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _unzigzag(value: int) -> int:
    return value >> 1 if value % 2 == 0 else -(value + 1 >> 1)
