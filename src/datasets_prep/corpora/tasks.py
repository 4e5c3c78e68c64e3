"""What the processes of a crew do beside writing: make a shard, count documents."""

from __future__ import annotations

from dataclasses import dataclass

from datasets_prep.corpora import shards
from datasets_prep.corpora.shards import Made, Setting, Shard
from datasets_prep.corpora.telling import Tell
from datasets_prep.documents import Piece


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
