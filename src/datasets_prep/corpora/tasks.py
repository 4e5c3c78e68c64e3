"""What the processes of a crew do beside writing: cut files, count documents, make a shard."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from datasets_prep import documents
from datasets_prep.corpora import shards
from datasets_prep.corpora.shards import Made, Setting, Shard
from datasets_prep.corpora.telling import Tell
from datasets_prep.documents import Piece
from datasets_prep.errors import SourceError
from tieredstore import SourceFile, SourceFiles

_SAMPLE: Final = 256 << 10  # characters of the input that a fast tokenizer is tried on


@dataclass(frozen=True, slots=True)
class Cut:
    """Files, cut into pieces.

    Attributes
    ----------
    pieces : list of Piece
        In order.
    sample : list of str
        Some documents of the first piece.
    """

    pieces: list[Piece]
    sample: list[str]


@dataclass(frozen=True, slots=True)
class CutFiles:
    """Cut files into pieces of so many bytes, about."""

    files: list[SourceFile]
    column: str
    size: int

    def run(self, setting: Setting, tell: Tell) -> Cut:
        """Cut them."""
        del tell
        source = setting.open_source()
        pieces = documents.cut(source, self.files, self.column, self.size)
        return Cut(pieces, _sample(source, pieces[0]) if pieces else [])


def _sample(source: SourceFiles, piece: Piece) -> list[str]:
    """Some documents; what cannot be read is told by whoever reads all of it."""
    sample: list[str] = []
    left = _SAMPLE
    with suppress(SourceError):
        batch = next(documents.read(source, piece), None)
        for text in [] if batch is None else batch.texts:
            sample.append((text if isinstance(text, str) else str(text, "utf-8"))[:left])
            left -= len(sample[-1])
            if left <= 0:
                break
    return sample


@dataclass(frozen=True, slots=True)
class MakeShard:
    """Make a shard, unless it is there."""

    shard: Shard

    def run(self, setting: Setting, tell: Tell) -> Made:
        """Make it."""
        return shards.make(self.shard, setting, setting.open_store(), tell)


@dataclass(frozen=True, slots=True)
class CountDocuments:
    """Count the documents of a piece that can be used."""

    piece: Piece

    def run(self, setting: Setting, tell: Tell) -> int:
        """Count them."""
        counted = shards.count(self.piece, setting)
        tell(counted, self.piece.size, 0)
        return counted
