"""Files to pieces: by row groups, by ranges of bytes, or whole, whatever can be read by itself.

How a source is cut depends on its files alone, so that what has been made of a piece is of use
however many work on the next run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Final

from datasets_prep.documents import formats
from datasets_prep.documents.pieces import WHOLE, Files, Listed, Part, Piece
from datasets_prep.errors import SourceError, reason

SMALLEST: Final = 1 << 20  # bytes of a piece
LARGEST: Final = 64 << 20
PIECES: Final = 16  # at least so many, where their sizes allow it
_AT_ONCE: Final = 8  # files that are looked at
_LOOK: Final = 4096  # bytes at the beginning of a file


def size_of_piece(total: int) -> int:
    """How large pieces are to be, for so many bytes of input.

    A power of two, so that pieces stay what they are when some files are added or taken away.
    """
    size = min(max(total // PIECES, SMALLEST), LARGEST)
    return 1 << size.bit_length() - 1


def cut(
    source: Files, files: Sequence[Listed], column: str, size: int | None = None
) -> list[Piece]:
    """Cut files into pieces, small ones put together.

    Parameters
    ----------
    source : SourceFiles
        Where they are opened; of Parquet files the ends are read.
    files : sequence of SourceFile
        In the order of their documents.
    column : str
        Where a document's text stands.
    size : int, optional
        Bytes of a piece, about; by the size of the input by default.

    Raises
    ------
    SourceError
        For a file that cannot be read, and a Parquet file without that column.
    """
    size = size or size_of_piece(sum(file.size for file in files))

    def parts(file: Listed) -> list[Part]:
        try:
            return list(_parts(source, file, column, size))
        except SourceError:
            raise
        except (OSError, ValueError, EOFError) as error:
            raise SourceError(f"{file.path}: cannot be read: {reason(error)}") from error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(_together(pool.map(parts, files), column, size))


def _parts(source: Files, file: Listed, column: str, size: int) -> Iterator[Part]:
    kind = formats.format_of(file.path)
    if kind == formats.PARQUET:
        yield from _row_groups(source, file, column, size)
        return
    if kind == formats.JSON and not _is_array(source, file):
        kind = formats.LINES
    if kind == formats.LINES:
        edges = [*range(0, max(file.size - size // 2, 1), size), file.size]
        for start, end in pairwise(edges):
            yield _part(file, kind, start, end, end - start)
    else:
        yield _part(file, kind, 0, WHOLE, file.size)


def _part(file: Listed, kind: str, start: int, end: int, size: int) -> Part:
    return Part(file.path, file.sha256 or file.tag, kind, start, end, size)


def _row_groups(source: Files, file: Listed, column: str, size: int) -> Iterator[Part]:
    from datasets_prep.documents.parquet import group_sizes

    first, gathered = 0, 0
    sizes = group_sizes(source, file.path, column)
    for number, each in enumerate(sizes):
        gathered += each
        if gathered >= size or number == len(sizes) - 1:
            yield _part(file, formats.PARQUET, first, number + 1, gathered)
            first, gathered = number + 1, 0


def _is_array(source: Files, file: Listed) -> bool:
    with source.open(file.path) as opened:
        return opened.read(_LOOK).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _together(found: Iterable[list[Part]], column: str, size: int) -> Iterator[Piece]:
    """Parts in order as pieces; small ones share a piece until it is large enough."""
    waiting: list[Part] = []
    gathered = 0
    for part in (part for parts in found for part in parts):
        if waiting and gathered + part.size > size:
            yield Piece(tuple(waiting), column)
            waiting, gathered = [], 0
        waiting.append(part)
        gathered += part.size
    if waiting:
        yield Piece(tuple(waiting), column)
