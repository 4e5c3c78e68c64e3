"""What JSON records look like: found out from the first ones, checked of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

_NULL, _BOOL, _INT, _FLOAT = "null", "a truth value", "a whole number", "a number"
_TEXT, _OBJECT, _LIST = "text", "an object", "a list"
_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1
_KINDS: Final = {bool: _BOOL, int: _INT, float: _FLOAT, str: _TEXT, dict: _OBJECT, list: _LIST}


class Mixed(ValueError):
    """A value that does not go with those before it, or with its column."""


def kind_of(value: object) -> str:
    """What a value of JSON is, in words."""
    return _KINDS.get(type(value), _NULL)


class Shape:
    """What the values of one place are, as far as they were seen.

    Attributes
    ----------
    kind : str
        In words.
    """

    __slots__ = ("_fields", "_item", "kind")

    def __init__(self) -> None:
        self.kind = _NULL
        self._fields: dict[str, Shape] = {}
        self._item: Shape | None = None

    def see(self, value: object, at: str = "") -> None:
        """Take a value in.

        Raises
        ------
        Mixed
            When no type holds it and those before it.
        """
        if value is None:
            return
        kind = kind_of(value)
        if {kind, self.kind} == {_INT, _FLOAT}:
            kind = self.kind = _FLOAT
        if self.kind not in {_NULL, kind}:
            raise Mixed(f"{at or 'the record'} is {kind}, and {self.kind} before")
        self.kind = kind
        if isinstance(value, dict):
            for key, each in value.items():
                self._fields.setdefault(key, Shape()).see(each, f"{at}.{key}".lstrip("."))
        elif isinstance(value, list):
            self._item = self._item or Shape()
            for each in value:
                self._item.see(each, f"{at}[]")

    def type(self) -> pa.DataType:
        """The type that holds all of them."""
        import pyarrow as pa

        if self.kind == _OBJECT:
            return pa.struct(self.fields())
        if self.kind == _LIST:
            return pa.list_(self._item.type() if self._item else pa.null())
        plain = {_BOOL: pa.bool_(), _INT: pa.int64(), _FLOAT: pa.float64(), _TEXT: pa.string()}
        return plain.get(self.kind, pa.null())

    def fields(self) -> list[tuple[str, pa.DataType]]:
        """The types of an object's values, in the order in which they were seen first."""
        return [(name, each.type()) for name, each in self._fields.items()]


def check(value: object, kind: pa.DataType, at: str) -> None:
    """See that a value fits a type.

    Parameters
    ----------
    value : object
        Of JSON.
    kind : pyarrow.DataType
        What its column holds.
    at : str
        Its place in the record, such as ``a.b[]``.

    Raises
    ------
    Mixed
        When it does not; it says where and why.
    """
    import pyarrow as pa

    if value is None:
        return
    if pa.types.is_struct(kind) and isinstance(value, dict):
        known = {field.name: field.type for field in kind}
        for name, each in value.items():
            if name not in known:
                raise Mixed(f"{at}.{name} is new: no earlier record has it")
            check(each, known[name], f"{at}.{name}")
    elif pa.types.is_list(kind) and isinstance(value, list):
        for each in value:
            check(each, kind.value_type, f"{at}[]")
    else:
        _check_plain(value, kind, at)


def _check_plain(value: Any, kind: pa.DataType, at: str) -> None:
    import pyarrow as pa

    types = pa.types
    fits = (
        (types.is_boolean(kind) and isinstance(value, bool))
        or (types.is_integer(kind) and type(value) is int)
        or (types.is_floating(kind) and type(value) in {int, float})
        or ((types.is_string(kind) or types.is_large_string(kind)) and isinstance(value, str))
    )
    if not fits:
        more = "; its first records have none" if types.is_null(kind) else ""
        raise Mixed(f"{at} is {kind_of(value)}, expected {kind}{more}")
    try:
        pa.scalar(value, kind)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        shown = ascii(value)[:40]
        raise Mixed(f"{at} is {shown}, which {kind} does not hold") from None
