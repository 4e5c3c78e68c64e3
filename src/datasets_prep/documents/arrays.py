"""Documents of a JSON array of objects, one object after the other."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from datasets_prep.documents.pieces import Batch, Files, Part, text_of
from datasets_prep.errors import SourceError

MAX_ELEMENT: Final = 256 << 20  # characters
_BLOCK: Final = 1 << 20  # bytes
_BLANK: Final = " \t\r\n\ufeff"


def read(source: Files, part: Part, column: str) -> Iterator[Batch]:
    """The documents of a file; where one is not to be used, the line is named."""
    batch, before = Batch(), 0
    with source.open(part.path) as file:
        for line, row in Elements(file, part.path).rows():
            where = f"{part.path}: line {line}"
            batch.add(text_of(row, column, lambda where=where: where))  # type: ignore[misc]
            if batch.full:
                before, batch.size = file.tell(), file.tell() - before
                yield batch
                batch = Batch()
        batch.size = file.tell() - before
    yield batch


class Elements:
    """The elements of an array, as the file is read; what has been used is dropped.

    Parameters
    ----------
    file : BinaryIO
        JSON in UTF-8.
    path : str
        How messages call it.
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._lines = 1  # up to _counted
        self._counted = 0
        self._ended = False

    def rows(self, field: Sequence[str] = ()) -> Iterator[tuple[int, object]]:
        """Each element, with the line that it begins in.

        Parameters
        ----------
        field : sequence of str
            Where the array stands: keys from the outermost object inwards; by default it is all
            there is. Values before it are read one at a time; what comes after it is not read.

        Raises
        ------
        SourceError
            For what is no such array, with the line.
        """
        for name in field:
            self._enter(name)
        if self._next() != "[":
            within = f" in {'.'.join(field)}" if field else ""
            raise self._error(f"expected an array of objects{within}, '['")
        self._at += 1
        if self._next() == "]":
            self._at += 1
        else:
            yield from self._all()
        if not field and self._next():
            raise self._error("something stands after the array's end")

    def _all(self) -> Iterator[tuple[int, object]]:
        while True:
            self._next()
            line = self._line()
            yield line, self._element()
            if self._another("]", "an element"):
                continue
            return

    def _enter(self, name: str) -> None:
        """Go to the value of a key in an object."""
        if self._next() != "{":
            raise self._error(f"expected an object with {name!r}, '{{'")
        self._at += 1
        if self._next() == "}":
            raise self._error(f"has no field {name!r}")
        while True:
            self._next()
            key = self._element()
            if self._next() != ":":
                raise self._error("expected ':' after a key")
            self._at += 1
            self._next()
            if key == name:
                return
            self._element()
            if not self._another("}", "a value"):
                raise self._error(f"has no field {name!r}")

    def _another(self, end: str, what: str) -> bool:
        """Whether a comma follows, and not the end."""
        after = self._next()
        if after not in {",", end} or not after:
            raise self._error(f"expected ',' or {end!r} after {what}")
        self._at += 1
        return after == ","

    def _element(self) -> object:
        decoder = json.JSONDecoder()
        wanted = _BLOCK
        while True:
            try:
                row, end = decoder.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if self._ended or len(self._text) - self._at > MAX_ELEMENT:
                    raise self._error(f"no valid JSON: {error}") from None
                wanted *= 2  # or a large element would be begun again for each block
                while not self._ended and len(self._text) - self._at < wanted:
                    self._more()
                continue
            if end == len(self._text) and not self._ended:
                self._more()  # a number may go on
                continue
            self._at = end
            found: object = row
            return found

    def _next(self) -> str:
        """The next character that is not blank, left where it is; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _BLANK:
                    return self._text[self._at]
                self._at += 1
            if self._ended:
                return ""
            self._more()

    def _more(self) -> None:
        self._line()
        data = self._file.read(_BLOCK)
        self._ended = not data
        try:
            new = self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            lines = self._text.count("\n", self._at) + data[: error.start].count(b"\n")
            raise SourceError(
                f"{self._path}: line {self._lines + lines}: no valid UTF-8: {error.reason}"
            ) from None
        self._text = self._text[self._at :] + new
        self._at = self._counted = 0

    def _line(self) -> int:
        self._lines += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._lines

    def _error(self, why: str) -> SourceError:
        return SourceError(f"{self._path}: line {self._line()}: {why}")
