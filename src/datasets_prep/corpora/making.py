"""A corpus as something that is prepared: what it is made from, and how it comes to be made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from datasets_prep import documents, tokenizers
from datasets_prep.console import Console
from datasets_prep.corpora import shards
from datasets_prep.corpora.assembly import Assembly, Inputs
from datasets_prep.corpora.choice import CorpusChoice
from datasets_prep.errors import SourceError
from datasets_prep.preparers.corpus import Corpus
from datasets_prep.splits import Given
from tieredstore import Build, SourceFile, SourceFiles, TieredStore, TieredStoreError, open_source


@dataclass(frozen=True, slots=True)
class Where:
    """How a process finds the store of a preparation again."""

    data_dir: str | None
    config: str | None


class Making:
    """One corpus of a store; an `Input` of a preparation.

    Parameters
    ----------
    corpus : Corpus
        What is made.
    choice : CorpusChoice
        How.
    where : Where
        The store, for other processes.
    console : Console
        Told what happens.
    """

    def __init__(
        self, corpus: Corpus, choice: CorpusChoice, where: Where, console: Console
    ) -> None:
        self._corpus = corpus
        self._choice = choice
        self._where = where
        self._console = console
        self._assembly: Assembly | None = None
        remote = "://" in choice.location and not choice.location.startswith("file://")
        self.key = hashlib.sha256(choice.location.encode()).hexdigest() if remote else ""

    # -- what it is made from -------------------------------------------------------------------

    @property
    def shown(self) -> str:
        """The source, without credentials."""
        return self._source.shown

    @property
    def sha256(self) -> str | None:
        """The digest of the input, where it is known without asking a server."""
        return None if self.key else self.digest()

    def digest(self) -> str:
        """What tells this input from another: its files, by path, size and content or version."""
        listed = [[[f.path, f.size, f.sha256 or f.tag] for f in group] for group in self._files]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()

    def options(self) -> dict[str, Any]:
        """What the recipe says beside the input."""
        options = {
            "column": self._corpus.column,
            "shards": shards.VERSION,
            "split": str(self._corpus.split),
            "subset": self._choice.subset,
            "tokenizer": tokenizers.identity(self._choice.tokenizer),
        }
        if self._choice.shuffle or isinstance(self._corpus.split, Given):
            return options
        return {**options, "shuffle": False}

    @cached_property
    def _source(self) -> SourceFiles:
        location = self._choice.location
        try:
            return open_source(location)
        except FileNotFoundError:
            raise SourceError(f"{location}: there is no such file or folder") from None

    @cached_property
    def _files(self) -> list[list[SourceFile]]:
        """The files: of all documents, or of each split that has files of its own."""
        rule = self._corpus.split
        groups: Sequence[tuple[str, ...]]
        groups = [rule.train, rule.val] if isinstance(rule, Given) else [()]
        listed = self._source.files()
        return [documents.chosen(listed, group, self.shown) for group in groups]

    # -- making it ------------------------------------------------------------------------------

    def prepare(self, stage: Build, store: TieredStore) -> dict[str, Any]:
        """Write ``train.bin``, ``val.bin`` and ``meta.pkl`` to a stage.

        Returns
        -------
        dict
            Facts for the recipe.

        Raises
        ------
        SourceError
            For input that cannot be used. Shards that were made stay.
        """
        self._assembly = self._assembled(store)
        facts = self._assembly.run(stage)
        if self._source.revision:
            facts["revision"] = self._source.revision
        return facts

    def make_share(self, store: TieredStore, number: int, of: int) -> int:
        """Make some of the shards; see `Assembly.make_share`."""
        return self._assembled(store).make_share(number, of)

    def _assembled(self, store: TieredStore) -> Assembly:
        location = _pinned(self._choice.location, self._source.revision)
        setting = shards.Setting(
            location,
            self._corpus.name,
            self._where.data_dir,
            self._where.config,
            self._choice.skip_bad,
            self._choice.keep_shards,
        )
        inputs = Inputs(self._source, self._files, setting)
        return Assembly(self._corpus, self._choice, inputs, store, self._console)

    def finished(self, store: TieredStore) -> None:
        """The corpus is published: its shards have done their work."""
        if self._assembly is None or self._choice.keep_shards:
            return
        for shard in self._assembly.shards:
            with suppress(TieredStoreError, OSError):
                store.remove(shard.name)


def _pinned(location: str, revision: str) -> str:
    """A location of the Hub at one commit; others as they are."""
    if not revision:
        return location
    scheme, _, rest = location.partition("://")
    kind, owner, name, *folder = rest.split("/")
    name = name.partition("@")[0]
    return f"{scheme}://{'/'.join([kind, owner, f'{name}@{revision}', *folder])}"
