"""Documents of a JSON array of objects, one object after the other."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import BinaryIO, Final

from datasets_prep.documents.pieces import Bad, Batch, Files, Part, text_of
from datasets_prep.errors import SourceError

MAX_ELEMENT: Final = 256 << 20  # characters
_BLOCK: Final = 1 << 20  # bytes
_BLANK: Final = " \t\r\n\ufeff"


def read(source: Files, part: Part, column: str) -> Iterator[Batch]:
    """The documents of a file; where one is not to be used, the line is named."""
    batch, before = Batch(), 0
    with source.open(part.path) as file:
        for found in _Elements(file, part.path).documents(column):
            batch.add(found)
            if batch.full:
                before, batch.size = file.tell(), file.tell() - before
                yield batch
                batch = Batch()
        batch.size = file.tell() - before
    yield batch


class _Elements:
    """The elements of an array, as the file is read; what has been used is dropped."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._lines = 1  # up to _counted
        self._counted = 0
        self._ended = False

    def documents(self, column: str) -> Iterator[str | Bad]:
        """The document of each element."""
        if self._next() != "[":
            raise self._error("expected an array of objects, '['")
        self._at += 1
        if self._next() == "]":
            self._at += 1
        else:
            yield from self._all(column)
        if self._next():
            raise self._error("something stands after the array's end")

    def _all(self, column: str) -> Iterator[str | Bad]:
        while True:
            self._next()
            where = f"{self._path}: line {self._line()}"
            row = self._element()
            yield text_of(row, column, lambda where=where: where)  # type: ignore[misc]
            after = self._next()
            self._at += 1
            if after == "]":
                return
            if after != ",":
                self._at -= 1
                raise self._error("expected ',' or ']' after an element")

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
