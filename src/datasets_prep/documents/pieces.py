"""What passes between those who cut files, those who read them and those who use documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Protocol

BATCH: Final = 2 << 20  # characters of a batch's documents, about
MOST: Final = 4096  # documents of a batch
WHOLE: Final = -1  # the end of a part that is read to the end of its file

Text = str | bytes | memoryview  # of bytes: valid UTF-8


class Listed(Protocol):
    """A file of a source, as it was listed."""

    @property
    def path(self) -> str:
        """Relative to the source."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def tag(self) -> str:
        """Tells one content of the file from another."""

    @property
    def sha256(self) -> str:
        """In hexadecimal; empty where it is not known."""


class Files(Protocol):
    """Where files are opened; what `tieredstore.open_source` gives is one."""

    def open(self, path: str) -> BinaryIO:
        """Open one for reading; it can seek."""


@dataclass(frozen=True, slots=True)
class Part:
    """A range of one file that is read by itself.

    Attributes
    ----------
    path : str
        The file, relative to its source.
    tag : str
        Its sha256, or what else tells one content from another.
    format : str
        A name of `formats`.
    start, end : int
        Row groups of Parquet; bytes of lines that are not compressed: those lines count which
        begin in the range. ``end`` is `WHOLE` where all of the file is read.
    size : int
        Bytes of the file that it takes up, about.
    """

    path: str
    tag: str
    format: str
    start: int
    end: int
    size: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Parts that are worked on together, one after the other.

    Attributes
    ----------
    parts : tuple of Part
        In the order of their documents.
    column : str
        Where in a row or object the document's text stands.
    """

    parts: tuple[Part, ...]
    column: str

    @property
    def size(self) -> int:
        """Bytes of files that it takes up, about."""
        return sum(part.size for part in self.parts)


@dataclass(frozen=True, slots=True)
class Bad:
    """A document that cannot be used: where it stands, and why."""

    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


@dataclass(slots=True)
class Batch:
    """Some documents, in order.

    Attributes
    ----------
    texts : list of str, bytes or memoryview
        The documents; as UTF-8 where that is how they lie in memory.
    size : int
        Bytes of the file that were read for them.
    bad : list of Bad
        Those in between that cannot be used.
    length : int
        Characters, or bytes, of all documents.
    """

    texts: list[Text] = field(default_factory=list)
    size: int = 0
    bad: list[Bad] = field(default_factory=list)
    length: int = 0

    @property
    def full(self) -> bool:
        """Whether it should be handed on."""
        return self.length >= BATCH or len(self.texts) >= MOST

    def add(self, document: str | Bad) -> None:
        """Put a document in, or note one that cannot be used."""
        if isinstance(document, Bad):
            self.bad.append(document)
        else:
            self.texts.append(document)
            self.length += len(document)


def text_of(row: object, column: str, where: Callable[[], str]) -> str | Bad:
    """The document of one JSON value."""
    if not isinstance(row, dict):
        return Bad(where(), f"no JSON object, but {_kind(row)}")
    if column not in row:
        there = ", ".join(map(repr, list(row)[:8])) or "none"
        return Bad(where(), f"has no column {column!r}; there are {there}")
    text = row[column]
    if not isinstance(text, str):
        return Bad(where(), f"column {column!r} is {_kind(text)}, expected text")
    return text


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    return "null" if value is None else names.get(type(value), "a number")
