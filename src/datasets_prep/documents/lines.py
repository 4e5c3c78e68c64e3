"""Documents of JSON lines: plain, of which a range of bytes is read, or compressed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO, Final

from datasets_prep.documents import formats
from datasets_prep.documents.pieces import Bad, Batch, Files, Part, text_of
from datasets_prep.errors import SourceError, reason

MAX_LINE: Final = 1 << 30  # bytes
_BLOCK: Final = 1 << 20


def read(source: Files, part: Part, column: str) -> Iterator[Batch]:
    """The documents of a part; where one is not to be used, the line is named."""
    if part.format == formats.LINES:
        return _read_range(source, part, column)
    return _read_compressed(source, part, column)


def document(line: bytes, column: str, where: str) -> str | Bad | None:
    """The document of a line; ``None`` where the line is empty."""
    try:
        text = line.decode()
        if not text.strip():
            return None
        row = json.loads(text)
    except UnicodeDecodeError as error:
        why = f"no valid UTF-8: byte {error.start + 1} of the line is 0x{line[error.start]:02x}"
        return Bad(where, why)
    except json.JSONDecodeError as error:
        return Bad(where, f"no valid JSON: {error.msg}, at character {error.pos + 1}")
    except (ValueError, RecursionError) as error:
        return Bad(where, f"no valid JSON: {reason(error)}")
    return text_of(row, column, lambda: where)


# -- plain ----------------------------------------------------------------------------------------


def _read_range(source: Files, part: Part, column: str) -> Iterator[Batch]:
    batch = Batch()
    counted = _LineNumbers(source, part)
    with source.open(part.path) as file:
        begin = _first_line(file, part.start)
        while begin < part.end and (line := _line(file, part.path)):
            batch.size += len(line)
            place = begin
            begin += len(line)
            found = document(line.removeprefix(b"\xef\xbb\xbf") if not place else line, column, "")
            if isinstance(found, Bad):
                found = _placed(found, f"{part.path}: line {counted.at(place)}")
            if found is not None:
                batch.add(found)
            if batch.full:
                yield batch
                batch = Batch()
    yield batch


def _placed(bad: Bad, where: str) -> Bad:
    return Bad(where, bad.why)


def _first_line(file: BinaryIO, start: int) -> int:
    """Go to the first line that begins at ``start`` or later, and say where that is."""
    if not start:
        return 0
    file.seek(start - 1)
    at = start - 1
    while rest := file.readline(_BLOCK):
        at += len(rest)
        if rest.endswith(b"\n"):
            break
    return at


def _line(file: BinaryIO, path: str) -> bytes:
    line = file.readline(MAX_LINE + 1)
    if len(line) > MAX_LINE:
        raise SourceError(f"{path}: a line is longer than {MAX_LINE} bytes")
    return line


class _LineNumbers:
    """Lines by number, counted only where one has to be named."""

    def __init__(self, source: Files, part: Part) -> None:
        self._source = source
        self._path = part.path
        self._place = 0
        self._lines = 0

    def at(self, place: int) -> int:
        """The number, from 1, of the line that begins at a byte; later calls ask further on."""
        with self._source.open(self._path) as file:
            file.seek(self._place)
            while self._place < place:
                block = file.read(min(_BLOCK, place - self._place))
                if not block:
                    break
                self._place += len(block)
                self._lines += block.count(b"\n")
        return self._lines + 1


# -- compressed -----------------------------------------------------------------------------------


def _read_compressed(source: Files, part: Part, column: str) -> Iterator[Batch]:
    import pyarrow as pa

    number, batch, before = 0, Batch(), 0
    with source.open(part.path) as file, ExitStack() as opened:
        lines = _decompressed(file, part.format, opened)
        try:
            while line := _line(lines, part.path):
                number += 1
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                found = document(line, column, f"{part.path}: line {number}")
                if found is not None:
                    batch.add(found)
                if batch.full:
                    before, batch.size = file.tell(), file.tell() - before
                    yield batch
                    batch = Batch()
        except (EOFError, zlib.error, pa.ArrowException, OSError) as error:
            if isinstance(error, SourceError):
                raise
            raise SourceError(
                f"{part.path}: line {number + 1}: its compressed data is damaged or ends too "
                f"early: {reason(error)}"
            ) from error
        if not file.tell():
            raise SourceError(f"{part.path}: is empty, expected compressed data")
        batch.size = file.tell() - before
    yield batch


def _decompressed(file: BinaryIO, kind: str, opened: ExitStack) -> BinaryIO:
    import gzip
    import io

    import pyarrow as pa

    if kind == formats.GZIP_LINES:
        return opened.enter_context(gzip.GzipFile(fileobj=file))  # type: ignore[return-value]
    stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
    return opened.enter_context(io.BufferedReader(stream, _BLOCK))
