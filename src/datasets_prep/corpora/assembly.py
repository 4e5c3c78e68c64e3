"""From files to ``train.bin`` and ``val.bin``: shards made where they are missing, then gathered.

What has been made is kept when a run ends early; whoever runs next goes on, with however many
processes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from datasets_prep import documents, tokenizers
from datasets_prep import meta as metas
from datasets_prep.console import Console
from datasets_prep.corpora import selecting, shards
from datasets_prep.corpora.choice import CorpusChoice
from datasets_prep.corpora.crew import Crew
from datasets_prep.corpora.encoding import Encoding
from datasets_prep.corpora.gathering import Gathering, Standing
from datasets_prep.corpora.shards import Made, Setting, Shard
from datasets_prep.corpora.tasks import CountDocuments, Cut, CutFiles, MakeShard
from datasets_prep.corpora.telling import Meter, Tell
from datasets_prep.documents import Piece
from datasets_prep.errors import SourceError
from datasets_prep.preparers.corpus import Corpus
from datasets_prep.splits import Drawn, Order, drawn, given, subset_of
from datasets_prep.tokenizers.probes import probes
from tieredstore import Build, SourceFile, SourceFiles, TieredStore

if TYPE_CHECKING:
    from datasets_prep.tokenizers import Tokenizer

_NAMED: Final = 5  # bad documents that are told


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a corpus is made from, and what the processes that work are told.

    Attributes
    ----------
    source : SourceFiles
        Where files are opened.
    groups : list of list of SourceFile
        All files, or those of each split.
    setting : Setting
        For other processes.
    """

    source: SourceFiles
    groups: list[list[SourceFile]]
    setting: Setting

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for group in self.groups for file in group)

    @property
    def formats(self) -> set[str]:
        """Which there are."""
        return {documents.format_of(file.path) for group in self.groups for file in group}


class Assembly:
    """One corpus while it is made.

    Parameters
    ----------
    corpus : Corpus
        What is made.
    choice : CorpusChoice
        How.
    inputs : Inputs
        What from.
    store : TieredStore
        Where shards are.
    console : Console
        Told what happens.

    Attributes
    ----------
    shards : list of Shard
        Those that it is made of.
    """

    def __init__(
        self,
        corpus: Corpus,
        choice: CorpusChoice,
        inputs: Inputs,
        store: TieredStore,
        console: Console,
    ) -> None:
        self._corpus = corpus
        self._choice = choice
        self._inputs = inputs
        self._store = store
        self._console = console
        self.shards: list[Shard] = []
        self._trained = 0  # pieces of the first group of files

    def run(self, stage: Build) -> dict[str, Any]:
        """Write the files of the corpus, and give what there is to know of them.

        Raises
        ------
        SourceError
            For input that cannot be used, with file and line.
        """
        with self._crew() as crew:
            tokenizer, orders = self._plan(crew)
            made = self._make(crew)
            orders = orders or self._orders([each.documents for each in made])
            facts = self._gather(crew, stage, orders, made, tokenizer.dtype)
        (stage.path / metas.META).write_bytes(metas.dumps(tokenizer.meta()))
        facts.update(tokenizer.facts(), dtype=tokenizer.dtype)
        facts["bad_documents"] = sum(each.bad for each in made)
        return facts

    def make_share(self, number: int, of: int) -> int:
        """Make each ``of``-th shard from the ``number``-th on, and say how many those are."""
        with self._crew() as crew:
            self._plan(crew)
            self.shards = self.shards[number::of]
            self._make(crew)
        return len(self.shards)

    def _crew(self) -> Crew:
        count = min(self._choice.num_proc, max(-(-self._inputs.size // documents.SMALLEST), 1))
        return Crew(count, "parquet" if documents.PARQUET in self._inputs.formats else "")

    def _plan(self, crew: Crew) -> tuple[Tokenizer, dict[str, Order] | None]:
        """Say what shards there are to be; of a subset also which documents of which split."""
        crew.brief(self._inputs.setting)
        with ThreadPoolExecutor(1) as pool:  # beside the processes, which start and cut meanwhile
            loading = pool.submit(self._engines, crew)
            groups = self._cut(crew)
            reference, fast = loading.result()
        tokenizer = self._proven(crew, fast, reference, groups[0].sample)
        pieces = [piece for group in groups for piece in group.pieces]
        if not pieces:
            raise self._empty()
        self._trained = len(groups[0].pieces)
        orders: dict[str, Order] | None = None
        wanted: Sequence[bytes | None] = [None] * len(pieces)
        if self._choice.subset != 1:
            counts = self._count(crew, pieces)
            orders = subset_of(self._orders(counts), self._choice.subset)
            wanted = selecting.wanted_of(orders, counts)
            orders = selecting.renumbered(orders)
        folder = f"{self._corpus.name}-shards"
        self.shards = [
            Shard.of(folder, piece, tokenizer.identity, numbers)
            for piece, numbers in zip(pieces, wanted, strict=True)
            if numbers != b""
        ]
        return tokenizer, orders

    def _engines(self, crew: Crew) -> tuple[Tokenizer, Tokenizer]:
        """The reference, and what is faster as far as it is proven; the processes load that now."""
        reference = tokenizers.load(self._choice.tokenizer, self._store)
        fast = tokenizers.faster(reference, self._console.warn)
        self._brief(crew, fast)
        return reference, self._proven(crew, fast, reference, probes())

    def _proven(
        self, crew: Crew, fast: Tokenizer, reference: Tokenizer, texts: Sequence[str]
    ) -> Tokenizer:
        proven = tokenizers.proven(fast, reference, texts, self._console.warn)
        if proven is not fast:
            self._brief(crew, proven)
        return proven

    def _brief(self, crew: Crew, tokenizer: Tokenizer) -> None:
        crew.brief(self._inputs.setting.with_encoding(Encoding(tokenizer)))

    # -- what there is to do --------------------------------------------------------------------

    def _cut(self, crew: Crew) -> list[Cut]:
        size, column = documents.size_of_piece(self._inputs.size), self._corpus.column
        tasks = [CutFiles(group, column, size) for group in self._inputs.groups]
        found: dict[int, Cut] = dict(crew.do(tasks, _untold))
        return [found[number] for number in range(len(tasks))]

    def _orders(self, counts: Sequence[int]) -> dict[str, Order]:
        """The splits, of so many documents in each piece."""
        total = sum(counts)
        if not total:
            raise self._empty()
        rule = self._corpus.split
        if isinstance(rule, Drawn):
            return drawn(rule, total, shuffle=self._choice.shuffle)
        trained = sum(counts[: self._trained])
        return given(trained, total - trained)

    def _empty(self) -> SourceError:
        return SourceError(f"{self._inputs.source.shown}: its files hold no documents")

    # -- doing it -------------------------------------------------------------------------------

    def _count(self, crew: Crew, pieces: Sequence[Piece]) -> list[int]:
        tasks = [CountDocuments(piece) for piece in pieces]
        tell = self._meter("count", sum(piece.size for piece in pieces))
        found = dict(crew.do(tasks, tell))
        return [found[number] for number in range(len(pieces))]

    def _make(self, crew: Crew) -> list[Made]:
        tasks = [MakeShard(shard) for shard in self.shards]
        tell = self._meter("tokenize", sum(shard.piece.size for shard in self.shards))
        found: dict[int, Made] = dict(crew.do(tasks, tell))
        made = [found[number] for number in range(len(tasks))]
        count, named = sum(each.bad for each in made), [t for each in made for t in each.named]
        if count > self._choice.skip_bad:
            raise SourceError(shards.too_many(count, self._choice.skip_bad, named))
        for text in named[:_NAMED]:
            self._console.warn(f"passed over: {text}")
        return made

    def _gather(
        self,
        crew: Crew,
        stage: Build,
        orders: dict[str, Order],
        made: Sequence[Made],
        dtype: str,
    ) -> dict[str, Any]:
        """Write the splits."""
        width = int(metas.TYPES[dtype][-1])
        facts: dict[str, Any] = {}
        with ExitStack() as held:
            standing = []
            for shard, each in zip(self.shards, made, strict=True):
                got = held.enter_context(
                    self._store.restore(shard.name, shards.FILES, shard.recipe)
                )
                standing.append(Standing(got.path, each.documents, each.tokens))
            gathering = Gathering(standing, width)
            for split, order in orders.items():
                facts[f"{split}_documents"] = len(order)
                facts[f"{split}_tokens"] = gathering.tokens(order)
            stage.reserve(sum(facts[f"{split}_tokens"] for split in orders) * width, len(orders))
            for split, order in orders.items():
                file, size = stage.path / f"{split}.bin", facts[f"{split}_tokens"] * width
                with file.open("wb") as made_now:
                    os.truncate(made_now.fileno(), size)
                for _ in crew.do(gathering.tasks(order, file), self._meter(f"write {split}", size)):
                    pass
        return facts

    def _meter(self, what: str, total: int) -> Tell:
        return Meter(f"{self._corpus.name}: {what}", total, self._console)


def _untold(documents: int, size: int, tokens: int) -> None:
    """Of a step that takes no time worth telling."""
    del documents, size, tokens
