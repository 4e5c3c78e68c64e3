"""Shards: the tokens of one piece of the input, as an artifact of the store.

A shard's identity is its recipe: the ranges of files, what is taken of them, the tokenizer and
`VERSION`. Its files are ``tokens.bin``, each document followed by the end-of-text token, and
``lengths.bin``, how many tokens each has (unsigned 32-bit little-endian).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from datasets_prep import documents
from datasets_prep.corpora.encoding import Encoding
from datasets_prep.corpora.telling import Tell
from datasets_prep.documents import Bad, Batch, Piece, Text
from datasets_prep.errors import SourceError
from datasets_prep.places import place_of
from tieredstore import (
    ArtifactNotFound,
    Build,
    NoSuchFile,
    Recipe,
    TieredStore,
    open_source,
    open_store,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tieredstore import SourceFiles

PREPARER: Final = "datasets_prep.corpora"
VERSION: Final = "1"
TOKENS, LENGTHS = "tokens.bin", "lengths.bin"
FILES: Final = (TOKENS, LENGTHS)
LENGTH_TYPE: Final = "<u4"
_NAMED: Final = 5  # bad documents that are named


@dataclass(frozen=True, slots=True)
class Setting:
    """What all shards of a run have in common; sent to each process that works.

    Attributes
    ----------
    location : str
        The source, at one revision.
    dataset : str
        The corpus, whose first tier is used.
    data_dir, config : str or None
        Where that is; see `datasets_prep.PrepareOptions`.
    allowed : int
        Bad documents that are passed over.
    promote : bool
        Whether shards are kept in durable tiers too.
    encoding : Encoding or None
        Makes the tokens; loads its engine where it is used.
    """

    location: str
    dataset: str
    data_dir: str | None
    config: str | None
    allowed: int = 0
    promote: bool = False
    encoding: Encoding | None = None

    def with_encoding(self, encoding: Encoding) -> Setting:
        """The same, now that it is chosen."""
        return replace(self, encoding=encoding)

    def open_store(self) -> TieredStore:
        """The store in which the corpus is prepared."""
        first = None if self.data_dir is None else place_of(self.data_dir, self.dataset).tier
        return open_store(self.config, first=first)

    def open_source(self) -> SourceFiles:
        """Where documents are read."""
        return open_source(self.location)


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a corpus.

    Attributes
    ----------
    name : str
        Its artifact, which says what it is made from: one that is of no use has another name.
    piece : Piece
        What it is made from.
    tokenizer : str
        Its identity.
    wanted : bytes or None
        Which documents of the piece are taken, as numbers (signed 64-bit); all by default.
    """

    name: str
    piece: Piece
    tokenizer: str
    wanted: bytes | None = None

    @classmethod
    def of(cls, folder: str, piece: Piece, tokenizer: str, wanted: bytes | None) -> Shard:
        """The shard of a piece, by its name below a folder."""
        shard = cls("", piece, tokenizer, wanted)
        return replace(shard, name=f"{folder}/{_digest(shard.recipe.fingerprint)[:24]}")

    @property
    def recipe(self) -> Recipe:
        """What it is made from."""
        ranges = [[p.path, p.format, p.start, p.end] for p in self.piece.parts]
        taken = "all" if self.wanted is None else hashlib.sha256(self.wanted).hexdigest()
        options = {
            "column": self.piece.column,
            "ranges": _digest(ranges),
            "documents": taken,
            "tokenizer": self.tokenizer,
        }
        tags = sorted({(part.path, part.tag) for part in self.piece.parts})
        return Recipe(PREPARER, VERSION, options, {"files": _digest(tags)})


@dataclass(frozen=True, slots=True)
class Made:
    """A shard that is there.

    Attributes
    ----------
    documents, tokens : int
        How many it has.
    bad : int
        Documents that were passed over.
    named : tuple of str
        Some of them, with the reason.
    """

    documents: int
    tokens: int
    bad: int
    named: tuple[str, ...]

    @classmethod
    def of(cls, recipe: Recipe | None) -> Made:
        """What a shard's manifest says of it."""
        facts: Any = {} if recipe is None else recipe.facts
        named = tuple(map(str, facts["named"]))
        return cls(int(facts["documents"]), int(facts["tokens"]), int(facts["bad"]), named)

    def facts(self) -> dict[str, Any]:
        """The same for the manifest."""
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "bad": self.bad,
            "named": list(self.named),
        }


def make(shard: Shard, setting: Setting, store: TieredStore, tell: Tell) -> Made:
    """A shard: found, or brought up, or made and published.

    Raises
    ------
    SourceError
        For input that cannot be used, with file and line.
    """
    made = found(shard, store)
    if made is None:
        with store.create(shard.name, shard.recipe) as stage:
            made = _written(shard, setting, stage, tell)
            stage.facts.update(made.facts())
    else:
        tell(made.documents, shard.piece.size, made.tokens)
    if setting.promote:
        store.promote(shard.name)
    return made


def found(shard: Shard, store: TieredStore) -> Made | None:
    """A shard that was made before, now in the first tier."""
    try:
        with store.restore(shard.name, FILES, shard.recipe) as got:
            return Made.of(got.recipe)
    except (ArtifactNotFound, NoSuchFile, KeyError):
        return None


def count(piece: Piece, setting: Setting) -> int:
    """The documents of a piece that can be used."""
    counted, bad = 0, _BadOnes(setting.allowed)
    for batch in documents.read(_checked(setting, piece), piece):
        bad.add(batch.bad)
        counted += len(batch.texts)
    return counted


def _written(shard: Shard, setting: Setting, stage: Build, tell: Tell) -> Made:
    import numpy as np

    encoding, bad = setting.encoding, _BadOnes(setting.allowed)
    assert encoding is not None
    count = tokens = 0
    with stage.writer() as writer, writer.open(TOKENS) as data, writer.open(LENGTHS) as lengths:
        for batch in _batches(shard, setting, bad):
            encoded = encoding.encode(batch.texts)
            data.write(_bytes(encoded.tokens))
            lengths.write(_bytes(np.asarray(encoded.lengths).astype(LENGTH_TYPE)))
            count += len(encoded.lengths)
            tokens += len(encoded.tokens)
            tell(len(encoded.lengths), batch.size, len(encoded.tokens))
    return Made(count, tokens, bad.count, tuple(bad.named))


def _bytes(numbers: NDArray[np.generic[Any]]) -> memoryview:
    return numbers.data.cast("B") if numbers.size else memoryview(b"")


def _batches(shard: Shard, setting: Setting, bad: _BadOnes) -> Iterator[Batch]:
    """The documents that are wanted."""
    if shard.wanted is not None and not shard.wanted:
        return
    source = _checked(setting, shard.piece)
    chosen = _Chosen(shard.wanted)
    for batch in documents.read(source, shard.piece):
        bad.add(batch.bad)
        batch.texts = chosen.of(batch.texts)
        yield batch
    chosen.check(shard.piece)


class _Chosen:
    """Takes documents by their numbers, as they come."""

    def __init__(self, wanted: bytes | None) -> None:
        import numpy as np

        self._wanted = None if wanted is None else np.frombuffer(wanted, "<i8")
        self._seen = 0
        self._taken = 0

    def of(self, texts: list[Text]) -> list[Text]:
        """Those of the next documents that are wanted."""
        first, self._seen = self._seen, self._seen + len(texts)
        if self._wanted is None:
            return texts
        left = self._wanted[self._taken :]
        here = left[: left.searchsorted(self._seen)]
        self._taken += len(here)
        return [texts[number - first] for number in here.tolist()]

    def check(self, piece: Piece) -> None:
        if self._wanted is not None and self._taken < len(self._wanted):
            raise SourceError(
                f"{piece.parts[0].path}: {self._seen} documents can be used, fewer than its "
                f"metadata says; prepare without --subset"
            )


class _BadOnes:
    """Counts documents that cannot be used, up to what is allowed."""

    def __init__(self, allowed: int) -> None:
        self.count = 0
        self.named: list[str] = []
        self._allowed = allowed

    def add(self, bad: Sequence[Bad]) -> None:
        self.count += len(bad)
        self.named.extend(str(each) for each in bad[: max(_NAMED - len(self.named), 0)])
        if self.count > self._allowed:
            raise SourceError(too_many(self.count, self._allowed, [str(bad[-1])]))


def too_many(count: int, allowed: int, named: Sequence[str]) -> str:
    """Why bad documents are an error."""
    if not allowed:
        return f"{named[0]}; --skip-bad-documents N passes over up to N such documents"
    return f"{named[0]}; that makes {count} bad documents, --skip-bad-documents allows {allowed}"


def _checked(setting: Setting, piece: Piece) -> SourceFiles:
    """The source, whose files of the piece are those that the plan was made from."""
    source = setting.open_source()
    for part in piece.parts:
        file = source.stat(part.path)
        if (file.sha256 or file.tag) != part.tag:
            raise SourceError(
                f"{os.path.join(source.shown, part.path)}: was changed while it was used; "
                f"run the command again"
            )
    return source


def _digest(value: object) -> str:
    import json

    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
