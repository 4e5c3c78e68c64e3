"""Documents as streams, from Parquet, JSON lines, JSON arrays and text, wherever these lie.

::

    from datasets_prep import documents

    files = documents.chosen(source.files())
    for piece in documents.cut(source, files, "text"):
        for batch in documents.read(source, piece):
            ...

No file is ever in memory as a whole. ``formats`` tells files apart, ``cutting`` cuts them into
pieces that can be read by themselves, each format has a reader of its own.
"""

from datasets_prep.documents.cutting import SMALLEST, cut, size_of_piece
from datasets_prep.documents.formats import PARQUET, chosen, format_of
from datasets_prep.documents.pieces import Bad, Batch, Part, Piece, Text
from datasets_prep.documents.reading import read

__all__ = [
    "PARQUET",
    "SMALLEST",
    "Bad",
    "Batch",
    "Part",
    "Piece",
    "Text",
    "chosen",
    "cut",
    "format_of",
    "read",
    "size_of_piece",
]
