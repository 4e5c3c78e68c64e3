"""``meta.pkl``: written so that ``pickle.load`` reads it, read so that it can do no harm.

One that came from elsewhere is looked through before it is loaded: only opcodes that make plain
data are admitted, none that imports or calls anything.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from datasets_prep.errors import MetaError, reason

META: Final = "meta.pkl"
MAX_META: Final = 16 << 20  # bytes
TYPES: Final[Mapping[str, str]] = {"uint8": "|u1", "uint16": "<u2", "uint32": "<u4"}

# fmt: off
_PLAIN: Final = frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "MEMOIZE", "GET", "BINGET",
    "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "NONE", "NEWTRUE", "NEWFALSE", "INT",
    "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "EMPTY_LIST", "LIST", "APPEND",
    "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_TUPLE", "TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3", "EMPTY_SET", "ADDITEMS", "FROZENSET",
))
# fmt: on
_PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_MAX_DIGITS: Final = 4096  # of one number


class _PlainUnpickler(pickle.Unpickler):
    """A second lock: nothing is ever looked up, whatever the opcodes say."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain data")


def dumps(meta: Mapping[str, Any]) -> bytes:
    """The bytes of a ``meta.pkl``."""
    return pickle.dumps(dict(meta), protocol=4)


def loads(data: bytes, where: str = META) -> dict[str, Any]:
    """Read a ``meta.pkl`` that is not trusted.

    Parameters
    ----------
    data : bytes
        All of it.
    where : str
        Its place, for messages.

    Raises
    ------
    MetaError
        When it is too large, damaged, more than plain data, or no table of named facts.
    """
    if len(data) > MAX_META:
        raise MetaError(f"{where}: larger than {MAX_META} bytes, expected a small table")
    try:
        _check_opcodes(data)
        meta = _PlainUnpickler(io.BytesIO(data)).load()
    except MetaError as error:
        raise MetaError(f"{where}: {error}; it was not loaded") from None
    except Exception as error:  # noqa: BLE001 - damage shows itself in many ways
        raise MetaError(f"{where}: damaged, or no pickle: {reason(error)}") from None
    if not isinstance(meta, dict) or not all(isinstance(key, str) for key in meta):
        raise MetaError(f"{where}: expected a table such as {{'vocab_size': 50257}}")
    return meta


def _check_opcodes(data: bytes) -> None:
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name not in _PLAIN:
            raise MetaError(f"holds {opcode.name}, expected plain data only")
        if opcode.name in _PUTS and isinstance(argument, int) and argument > count:
            raise MetaError(f"numbers a value {argument}, of {count} so far")
        if isinstance(argument, int) and argument.bit_length() > 3 * _MAX_DIGITS:
            raise MetaError("holds a number of thousands of digits")


def read(folder: Path) -> dict[str, Any] | None:
    """The facts in a folder's ``meta.pkl``, or ``None`` where there is none.

    Raises
    ------
    MetaError
        As `loads`.
    """
    path = folder / META
    try:
        with path.open("rb") as file:
            data = file.read(MAX_META + 1)
    except FileNotFoundError:
        return None
    return loads(data, str(path))


def type_of(facts: Mapping[str, Any]) -> str:
    """How each token is stored, as NumPy writes it: ``<u2`` unless the facts say otherwise.

    Raises
    ------
    MetaError
        When they name a type that tokens are never stored in.
    """
    named = facts.get("dtype")
    if named is None:
        return TYPES["uint8" if facts.get("byte_level") else "uint16"]
    if not isinstance(named, str) or named not in TYPES:
        raise MetaError(f"dtype is {named!r}, expected one of {', '.join(TYPES)}")
    return TYPES[named]


def token_type(folder: str | Path) -> str:
    """How the tokens in a dataset's folder are stored, for ``np.memmap``.

    Parameters
    ----------
    folder : path
        Where ``train.bin`` and ``meta.pkl`` lie.

    Returns
    -------
    str
        ``<u2``, or ``|u1`` and ``<u4`` where ``meta.pkl`` says so.

    Raises
    ------
    MetaError
        When ``meta.pkl`` cannot be believed.
    """
    return type_of(read(Path(folder)) or {})
