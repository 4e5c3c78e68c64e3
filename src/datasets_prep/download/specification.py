"""What a dataset has to be: plain data, read from TOML or made in Python."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module, resources
from pathlib import Path
from typing import Any, Final

from datasets_prep.errors import OptionError, reason

Check = Callable[[Path], Iterable[str]]

_SHIPPED: Final = "datasets_prep.download.specs"
_OR: Final = "|"


@dataclass(frozen=True, slots=True)
class Lines:
    """A file with a JSON object in each line.

    Attributes
    ----------
    file : str
        Its path in the dataset.
    records : int or None
        How many there have to be; at least one where nothing is said.
    fields : tuple of str
        Fields that each record has, and not empty; ``one|other`` is one of the two.
    image : str
        The field that names the record's image, relative to the top or to the folder of images.
    """

    file: str
    records: int | None = None
    fields: tuple[str, ...] = ()
    image: str = ""


@dataclass(frozen=True, slots=True)
class Images:
    """A folder of images.

    Attributes
    ----------
    folder : str
        Its path in the dataset; images may lie in folders below it.
    count : int or None
        How many there have to be; at least one where nothing is said.
    suffixes : tuple of str
        How names of images end.
    open : bool
        Each is opened, where Pillow is installed.
    """

    folder: str
    count: int | None = None
    suffixes: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".webp", ".gif")
    open: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """What a dataset has to be.

    Attributes
    ----------
    name : str
        The dataset.
    files, folders : tuple of str
        What has to be there.
    jsonl : tuple of Lines
        Files of records.
    images : Images or None
        A folder of images.
    checks : tuple of callable
        Further ones, in Python: each is given the folder and yields a line for each problem.
    """

    name: str
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    jsonl: tuple[Lines, ...] = ()
    images: Images | None = None
    checks: tuple[Check, ...] = ()

    @property
    def top(self) -> frozenset[str]:
        """Names that are expected at the top of the dataset."""
        named = [*self.files, *self.folders, *(lines.file for lines in self.jsonl)]
        if self.images is not None:
            named.append(self.images.folder)
        return frozenset(path.partition("/")[0] for path in named)


def names_of(field: str) -> tuple[str, ...]:
    """The names that a field may go by."""
    return tuple(field.split(_OR))


def read_spec(where: str | os.PathLike[str]) -> Spec:
    """A specification.

    Parameters
    ----------
    where : str or path
        The name of one that is shipped (``websight``), a TOML file, or ``module:attribute``.

    Raises
    ------
    OptionError
        When there is none, or it cannot be understood; it names the key.
    """
    text = os.fspath(where)
    module, colon, attribute = text.partition(":")
    if colon and not os.path.exists(text):
        return _imported(module, attribute)
    if text.endswith(".toml") or "/" in text:
        return _parsed(_read(Path(text)), text)
    shipped = resources.files(_SHIPPED)
    known = sorted(f.name.removesuffix(".toml") for f in shipped.iterdir() if ".toml" in f.name)
    if text not in known:
        raise OptionError(
            f"specification {text!r}: expected one of {', '.join(known)}, a TOML file, or "
            f"module:attribute"
        )
    return _parsed((shipped / f"{text}.toml").read_text(encoding="utf-8"), text)


def _imported(module: str, attribute: str) -> Spec:
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(f"specification {module}:{attribute}: {reason(error)}") from None
    if not isinstance(found, Spec):
        raise OptionError(f"specification {module}:{attribute}: {type(found).__name__}, no Spec")
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"specification {path}: cannot be read: {reason(error)}") from None


def _parsed(text: str, where: str) -> Spec:
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise OptionError(f"specification {where}: no valid TOML: {reason(error)}") from None
    given = _Table(table, f"specification {where}")
    images = given.table("images")
    spec = Spec(
        given.text("name", where),
        given.texts("files"),
        given.texts("folders"),
        tuple(_lines(each) for each in given.tables("jsonl")),
        None if images is None else _images(images),
    )
    given.end()
    return spec


def _lines(given: _Table) -> Lines:
    lines = Lines(
        given.text("file"), given.count("records"), given.texts("fields"), given.text("image", "")
    )
    given.end()
    return lines


def _images(given: _Table) -> Images:
    suffixes = given.texts("suffixes") or Images("").suffixes
    lower = tuple(suffix.lower() for suffix in suffixes)
    images = Images(given.text("folder"), given.count("count"), lower, open=given.flag("open"))
    given.end()
    return images


class _Table:
    """One table of a file: each key is taken once, and what is left is unknown."""

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        self._table = dict(table)
        self._where = where

    def text(self, key: str, usual: str | None = None) -> str:
        found = self._table.pop(key, usual)
        if not isinstance(found, str):
            raise self._wrong(key, found, "a text")
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        found = self._table.pop(key, [])
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise self._wrong(key, found, "a list of texts")
        return tuple(found)

    def count(self, key: str) -> int | None:
        found = self._table.pop(key, None)
        if found is not None and (type(found) is not int or found < 0):
            raise self._wrong(key, found, "a whole number")
        return found

    def flag(self, key: str) -> bool:
        found = self._table.pop(key, False)
        if not isinstance(found, bool):
            raise self._wrong(key, found, "true or false")
        return found

    def table(self, key: str) -> _Table | None:
        found = self._table.pop(key, None)
        if found is not None and not isinstance(found, dict):
            raise self._wrong(key, found, "a table")
        return None if found is None else _Table(found, f"{self._where}: {key}")

    def tables(self, key: str) -> list[_Table]:
        found = self._table.pop(key, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise self._wrong(key, found, "a list of tables")
        return [_Table(each, f"{self._where}: {key}") for each in found]

    def end(self) -> None:
        for key in sorted(self._table):
            raise OptionError(f"{self._where}: unknown key {key!r}")

    def _wrong(self, key: str, found: object, expected: str) -> OptionError:
        shown = "is missing" if found is None else f"is {found!r}"
        return OptionError(f"{self._where}: {key} {shown}, expected {expected}")
