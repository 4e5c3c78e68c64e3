"""Phases: how the items of a range are made, and what has to come out of it.

A phase is a row of a small table in TOML, ``[phases.NAME]``, or is given by options.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from datasets_prep.chunks.plan import Chunk, check_phase
from datasets_prep.errors import OptionError
from tieredstore import Recipe

PREPARER: Final = "datasets_prep.chunks"
VERSION: Final = "1"
LOG: Final = "run.log"
FIELDS: Final = ("{start}", "{end}")
_KEYS: Final = frozenset({"command", "callable", "variable", "outputs", "code", "inputs"})
_LARGE: Final = 64 << 20  # bytes; larger inputs are told apart by size and time


@dataclass(frozen=True, slots=True)
class Phase:
    """How chunks are made.

    Attributes
    ----------
    name : str
        Such as ``1`` or ``3.5``.
    command : tuple of str
        Run for each chunk, with ``{start}`` and ``{end}`` filled in; or
    callable : str
        ``module:name`` or ``file.py:name``: called for each chunk in a process that stays.
    variable : str
        The environment variable that tells a command its output folder.
    outputs : tuple of str
        Glob patterns, each of which has to match a file of the chunk's.
    code, inputs : tuple of str
        Files and folders whose content is part of what a chunk is made from.
    """

    name: str
    command: tuple[str, ...] = ()
    callable: str = ""
    variable: str = ""
    outputs: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_phase(self.name)
        if bool(self.command) == bool(self.callable):
            raise OptionError(
                f"phase {self.name}: expected either a command (after --) or a callable"
            )
        for field in FIELDS if self.command else ():
            if not any(field in word for word in self.command):
                raise OptionError(
                    f"phase {self.name}: {field} is nowhere in the command "
                    f"{' '.join(self.command)!r}; it tells the command its range"
                )
        if not self.variable:
            usual = f"PHASE{self.name.replace('.', '_').upper()}_OUTPUT_DIR"
            object.__setattr__(self, "variable", usual)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.variable):
            raise OptionError(f"phase {self.name}: {self.variable!r} cannot name a variable")

    def words(self, chunk: Chunk) -> list[str]:
        """The command for one chunk."""
        first, last = FIELDS
        filled = [word.replace(first, str(chunk.start)) for word in self.command]
        return [word.replace(last, str(chunk.end)) for word in filled]

    def recipe(self, chunk: Chunk, digests: Mapping[str, str]) -> Recipe:
        """What a chunk is made from."""
        work = {"command": list(self.command)} if self.command else {"callable": self.callable}
        items = {"start": chunk.start, "end": chunk.end}
        return Recipe(PREPARER, VERSION, {"phase": self.name, **work, **items}, dict(digests))

    def digests(self, folder: Path) -> dict[str, str]:
        """Digests of the code and inputs, by their names relative to ``folder``.

        Words of the command that name files below ``folder`` count as code.

        Raises
        ------
        OptionError
            When something that is named is not there.
        """
        named = [*self.code, *self.inputs]
        for each in named:
            if not (folder / each).exists():
                raise OptionError(f"phase {self.name}: {folder / each} is not there")
        file = self.callable.rpartition(":")[0]
        for word in [*self.command, file]:
            path = folder / word
            if word and not os.path.isabs(word) and path.is_file():
                named.append(word)
        return {os.path.normpath(each): _digest(folder / each) for each in named}

    def with_callable_of(self, function: Callable[..., object]) -> Phase:
        """The same phase, done by a function that a process of its own can import.

        Raises
        ------
        OptionError
            For a function that cannot be imported, such as a lambda.
        """
        return replace(self, command=(), callable=reference(function))


def reference(function: Callable[..., object]) -> str:
    """How a function is found in another process: ``module:name`` or ``/path/file.py:name``."""
    import inspect

    name = getattr(function, "__qualname__", "<unnamed>")
    if "<" in name:
        raise OptionError(f"{name}: expected a function at the top of a module, to be imported")
    if function.__module__ == "__main__":
        return f"{os.path.abspath(inspect.getfile(function))}:{name}"
    return f"{function.__module__}:{name}"


def read_phases(table: object, where: str) -> dict[str, Phase]:
    """The phases of a configuration's table.

    Raises
    ------
    OptionError
        For a key that is unknown or of the wrong kind; the message names table and key.
    """
    if not isinstance(table, Mapping):
        raise OptionError(f"{where}: phases is {table!r}, expected tables [phases.NAME]")
    return {
        str(name): _phase(str(name), row, f"{where}: [phases.{name}]")
        for name, row in table.items()
    }


def _phase(name: str, row: object, where: str) -> Phase:
    if not isinstance(row, Mapping):
        raise OptionError(f"{where} is {row!r}, expected a table")
    for key in sorted(row.keys() - _KEYS):
        raise OptionError(f"{where}: unknown key {key!r}; expected {', '.join(sorted(_KEYS))}")
    texts = {key: row.get(key, "") for key in ("callable", "variable")}
    lists = {key: row.get(key, ()) for key in ("command", "outputs", "code", "inputs")}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise OptionError(f"{where}: {key} is {text!r}, expected text")
    for key, words in lists.items():
        if not isinstance(words, Sequence) or isinstance(words, str):
            raise OptionError(f"{where}: {key} is {words!r}, expected a list of texts")
        if not all(isinstance(word, str) for word in words):
            raise OptionError(f"{where}: {key} is {words!r}, expected a list of texts")
    rest: dict[str, Any] = {**texts, **{key: tuple(words) for key, words in lists.items()}}
    try:
        return Phase(name, **rest)
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from None


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder with their names."""
    if path.is_dir():
        total = hashlib.sha256()
        for each in _files(path):
            total.update(f"{each.relative_to(path)}\0{_digest(each)}\n".encode())
        return total.hexdigest()
    stat = path.stat()
    if stat.st_size > _LARGE:
        return f"size {stat.st_size}, modified {stat.st_mtime_ns}"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for each in sorted(folder.rglob("*")):
        hidden = any(
            p.startswith(".") or p == "__pycache__" for p in each.relative_to(folder).parts
        )
        if each.is_file() and not hidden:
            yield each
