"""The documents of a piece, whatever its parts' formats are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from datasets_prep.documents import arrays, formats, lines
from datasets_prep.documents.pieces import Bad, Batch, Files, Part, Piece
from datasets_prep.errors import SourceError, reason

MAX_TEXT: Final = 256 << 20  # bytes of a file that is one document


def read(source: Files, piece: Piece) -> Iterator[Batch]:
    """The documents of a piece, in order.

    Parameters
    ----------
    source : SourceFiles
        Where its files are opened.
    piece : Piece
        One of `cut`.

    Raises
    ------
    SourceError
        For a file that cannot be read on, with file and line. Documents that cannot be used stand
        in the batches.
    """
    for part in piece.parts:
        try:
            yield from _read(source, part, piece.column)
        except SourceError:
            raise
        except OSError as error:
            raise SourceError(f"{part.path}: cannot be read: {reason(error)}") from error


def _read(source: Files, part: Part, column: str) -> Iterator[Batch]:
    if part.format == formats.PARQUET:
        from datasets_prep.documents import parquet

        return parquet.read(source, part, column)
    if part.format == formats.TEXT:
        return _text(source, part)
    if part.format == formats.JSON:
        return arrays.read(source, part, column)
    return lines.read(source, part, column)


def _text(source: Files, part: Part) -> Iterator[Batch]:
    with source.open(part.path) as file:
        data = file.read(MAX_TEXT + 1)
    if len(data) > MAX_TEXT:
        raise SourceError(
            f"{part.path}: larger than {MAX_TEXT} bytes, and a text file is one document; "
            f"give it as JSON lines"
        )
    batch = Batch(size=len(data))
    try:
        batch.add(data.decode())
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        batch.add(Bad(f"{part.path}: line {line}", f"no valid UTF-8: byte {error.start + 1}"))
    yield batch
