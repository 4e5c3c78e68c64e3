"""Prepare a named dataset: found, restored, or else built once, published whole and promoted."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from datasets_prep import preparers
from datasets_prep.console import Console, label
from datasets_prep.errors import OptionError, SourceError
from datasets_prep.inputs import Input, TextInput
from datasets_prep.places import place_of
from datasets_prep.preparers import Choice, Preparer
from datasets_prep.preparers.corpus import Corpus
from datasets_prep.sources import source_at
from datasets_prep.tokens import REQUIRED, token_counts
from tieredstore import (
    ArtifactNotFound,
    Build,
    Got,
    Located,
    NoSuchFile,
    PromoteFailed,
    Recipe,
    RecipeConflict,
    TieredStore,
    open_store,
)

INPUT: Final = "input"
HIT, RESTORED, PREPARED = "hit", "restored", "prepared"


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """How a dataset is to be prepared, and where.

    Attributes
    ----------
    data_dir : path or None
        Files go to the dataset's folder below it; by default to the configured first tier.
    subset : float
        Which share of each split, from 0 (excluded) to 1; of a corpus at least one document.
    force : bool
        Prepare again even if files exist, and replace what durable tiers have.
    tokenizer : str or None
        By name, see `datasets_prep.tokenizers`; the preparer's usual one by default.
    source : str or None
        URL or path of the input; the preparer's usual one by default.
    num_proc : int
        Processes that may work at once.
    config : path or None
        A configuration of the tiers, see `tieredstore.open_store`.
    shuffle : bool
        Whether documents of a corpus that are drawn for a split are put into a random order.
    skip_bad : int
        So many documents of a corpus that cannot be used are passed over.
    keep_shards : bool
        Whether shards of a corpus are promoted as they are made, and kept.

    Raises
    ------
    OptionError
        For a subset that is not above 0 and at most 1, fewer than one process, and a negative
        number of documents.
    """

    data_dir: str | os.PathLike[str] | None = None
    subset: float = 1.0
    force: bool = False
    tokenizer: str | None = None
    source: str | None = None
    num_proc: int = 1
    config: str | os.PathLike[str] | None = None
    shuffle: bool = True
    skip_bad: int = 0
    keep_shards: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.subset <= 1:
            raise OptionError(f"subset {self.subset}: expected more than 0 and at most 1")
        if self.num_proc < 1:
            raise OptionError(f"num_proc {self.num_proc}: expected at least 1")
        if self.skip_bad < 0:
            raise OptionError(f"skip_bad {self.skip_bad}: expected 0 or more")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A dataset that is there now.

    Attributes
    ----------
    name : str
        The artifact.
    path : Path
        The folder of its files.
    action : str
        ``hit``, ``restored`` or ``prepared``.
    train_tokens, val_tokens : int
        How many tokens each split has.
    """

    name: str
    path: Path
    action: str
    train_tokens: int
    val_tokens: int


def prepare(
    name: str, options: PrepareOptions | None = None, console: Console | None = None
) -> Prepared:
    """Find, restore or prepare a dataset.

    Parameters
    ----------
    name : str
        A dataset that has a preparer.
    options : PrepareOptions, optional
        The usual ones by default.
    console : Console, optional
        Told what happens; prints by default.

    Raises
    ------
    OptionError
        For a dataset or option that cannot be used.
    SourceError, VocabularyUnavailable
        When the input or a vocabulary cannot be had.
    PromoteFailed
        When the dataset was prepared, and a durable tier could not take it.
    """
    options = options or PrepareOptions()
    preparer = preparers.load(name)
    return _Preparation(preparer, options, console or Console()).run()


def make_share(
    name: str, options: PrepareOptions, number: int, of: int, console: Console | None = None
) -> int:
    """Make some of a corpus's shards, and keep them in every durable tier.

    Parameters
    ----------
    name : str
        A corpus that has a preparer.
    options : PrepareOptions
        As for `prepare`, which finds the shards that are there.
    number, of : int
        Each ``of``-th shard is made, from the ``number``-th on, counted from 0.
    console : Console, optional
        Told what happens; prints by default.

    Returns
    -------
    int
        How many those are; 0 where the corpus is there already.

    Raises
    ------
    OptionError
        For a dataset that is no corpus.
    SourceError, VocabularyUnavailable
        When the input or a vocabulary cannot be had.
    """
    corpus = preparers.load(name)
    if not isinstance(corpus, Corpus):
        raise OptionError(f"dataset {name!r} is no corpus: it has no shards")
    kept = replace(options, keep_shards=True)
    return _Preparation(corpus, kept, console or Console()).share(number, of)


class _Preparation:
    """One preparation."""

    def __init__(
        self, preparer: Preparer | Corpus, options: PrepareOptions, console: Console
    ) -> None:
        usual = preparer.tokenizers[0]
        chosen = options.tokenizer or usual
        self._preparer = preparer
        self._name = preparer.name
        self._console = console
        self._force = options.force
        self._subset = float(options.subset)
        self._usual = chosen == usual and options.subset == 1 and options.source is None
        self._input: Input = _input_of(preparer, options, chosen, console)
        first = None if options.data_dir is None else place_of(options.data_dir, self._name).tier
        self._store: TieredStore = open_store(options.config, first=first, reporter=console)
        self._facts: dict[str, Any] | None = None
        self._expected = ""

    def run(self) -> Prepared:
        self._console.starting(self._preparer.title, self._subset)
        recipe = self._recipe(self._digest())
        try:
            got = None if self._force else self._found(recipe)
        except NoSuchFile:  # data from before, without all that is required
            got = None
        if got is not None:
            return self._existing(got)
        if self._facts is None:
            self._create(recipe)
        return self._prepared()

    def share(self, number: int, of: int) -> int:
        """Make some shards, unless the whole is there."""
        recipe = self._recipe(self._digest())
        there = self._store.locate(self._name, REQUIRED)
        if not self._force and any(where.serves(recipe) for where in there):
            return 0
        from datasets_prep.corpora.making import Making

        assert isinstance(self._input, Making)
        return self._input.make_share(self._store, number, of)

    # -- what is asked for ----------------------------------------------------------------------

    def _digest(self) -> str:
        """The input's digest, known, or seen when the same URL was used before, or read for it."""
        if self._input.key and not self._force and self._input.sha256 is None:
            for where in self._store.locate(self._name, REQUIRED):
                known = where.recipe
                if known is not None and known.facts.get("source_key") == self._input.key:
                    return str(known.inputs.get(INPUT))
        return self._input.digest()

    def _recipe(self, digest: str) -> Recipe:
        self._expected = digest
        options = self._input.options()
        return Recipe(self._name, self._preparer.version, options, {INPUT: digest})

    # -- what is there --------------------------------------------------------------------------

    def _found(self, recipe: Recipe) -> Got | None:
        """What is there or was built; ``None`` when something there must not be used."""
        located = self._store.locate(self._name, REQUIRED)
        serving = [w for w in located if w.serves(recipe)]
        if self._usual or not any(w.recipe is None for w in serving):
            return self._ensured(recipe)
        if serving[0].recipe is None:
            return None
        try:
            got = self._store.restore(self._name, REQUIRED, recipe)
        except ArtifactNotFound:
            return None
        return got if got.recipe is not None else None

    def _ensured(self, recipe: Recipe) -> Got | None:
        if self._input.sha256 is None:  # the URL may hold something else by now
            recipe = self._unchanged(recipe)
        try:
            got = self._store.ensure(self._name, self._build, recipe, REQUIRED)
        except RecipeConflict:
            if self._facts is None:
                raise
            return None  # said already; what was built is in the first tier
        except PromoteFailed as error:
            raise self._explained(error) from None
        return got if self._facts is None else None

    def _unchanged(self, recipe: Recipe) -> Recipe:
        """The recipe of what will be built when nothing serves the one that is known."""
        if any(w.serves(recipe) for w in self._store.locate(self._name, REQUIRED)):
            return recipe
        return self._recipe(self._input.digest())

    def _existing(self, got: Got) -> Prepared:
        action = HIT if got.source == self._store.tiers[0].name else RESTORED
        if action == HIT:
            self._console.found_locally()
        if got.recipe is None:
            self._console.recipe_unknown(self._name, got.source)
        train, val = token_counts(got.path, {} if got.recipe is None else got.recipe.facts)
        self._console.using_existing(train, val)
        got.close()
        return Prepared(self._name, got.path, action, train, val)

    # -- building -------------------------------------------------------------------------------

    def _build(self, stage: Build) -> None:
        why = self._why()
        if why:
            self._console.again(why)
        if self._input.digest() != self._expected:
            raise SourceError(
                f"{self._input.shown}: not what it was when it was used before; "
                f"use what it holds now with --force"
            )
        facts = self._input.prepare(stage, self._store)
        facts["source"] = self._input.shown
        if self._input.key:
            facts["source_key"] = self._input.key
        stage.facts.update(facts)
        self._facts = facts

    def _why(self) -> str:
        """Why what is there is not used, in the words of the first tier that has something."""
        if self._force:
            return "--force was given"
        asked = self._recipe(self._expected)
        for where in self._store.locate(self._name, REQUIRED):
            if where.present:
                return f"{label(where.tier.name)} has it, {_difference(where, asked)}"
        return ""

    def _create(self, recipe: Recipe) -> None:
        if self._input.sha256 is None:
            recipe = self._recipe(self._input.digest())
        with self._store.create(self._name, recipe) as stage:
            self._build(stage)
        try:
            self._store.promote(self._name, replace=self._force)
        except RecipeConflict:
            return  # the reporter has been told
        except PromoteFailed as error:
            raise self._explained(error) from None

    def _explained(self, error: PromoteFailed) -> PromoteFailed:
        path = self._place()
        return PromoteFailed(
            f"{error}; it is whole in {path}: when the tier is back, "
            f"tieredstore promote {self._name}",
            error.outcomes,
        )

    def _place(self) -> Path:
        here = self._store.tiers[0].locate(self._name)
        return Path(here.tier.backend.place, here.folder)

    def _prepared(self) -> Prepared:
        assert self._facts is not None
        self._input.finished(self._store)
        train, val = self._facts["train_tokens"], self._facts["val_tokens"]
        self._console.completion(self._name, train, val)
        return Prepared(self._name, self._place(), PREPARED, train, val)


def _input_of(
    preparer: Preparer | Corpus, options: PrepareOptions, tokenizer: str, console: Console
) -> Input:
    if isinstance(preparer, Corpus):
        return _corpus(preparer, options, tokenizer, console)
    if tokenizer not in preparer.tokenizers:
        known = ", ".join(preparer.tokenizers)
        raise OptionError(f"{preparer.name}: tokenizer {tokenizer!r}: expected one of {known}")
    choice = Choice(tokenizer, float(options.subset), options.num_proc)
    source = source_at(options.source) if options.source else preparer.source()
    return TextInput(preparer, source, choice, console)


def _corpus(corpus: Corpus, options: PrepareOptions, tokenizer: str, console: Console) -> Input:
    from datasets_prep.corpora.choice import CorpusChoice
    from datasets_prep.corpora.making import Making, Where

    choice = CorpusChoice(
        location=options.source or corpus.location,
        tokenizer=tokenizer,
        subset=float(options.subset),
        num_proc=options.num_proc,
        shuffle=options.shuffle,
        skip_bad=options.skip_bad,
        keep_shards=options.keep_shards,
    )
    folder, config = (
        None if path is None else os.path.abspath(path)
        for path in (options.data_dir, options.config)
    )
    return Making(corpus, choice, Where(folder, config), console)


def _difference(where: Located, asked: Recipe) -> str:
    if where.recipe is None:
        return "recipe unknown, and other than the usual options are asked for"
    return asked.differences(where.recipe) or "not whole"
