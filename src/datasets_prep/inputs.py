"""What a preparation is made from, whatever is prepared: one text, or a corpus of many files."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

from datasets_prep import tokenizers
from datasets_prep.console import Console
from datasets_prep.preparers import Choice, Preparer
from datasets_prep.sources import Source
from tieredstore import Build, TieredStore


class Input(Protocol):
    """What a preparation asks of what it is made from.

    Attributes
    ----------
    shown : str
        How messages and facts call it, without credentials.
    sha256 : str or None
        Its digest, where that is known without a server being asked.
    key : str
        Tells one location from another where the content is not known beforehand.
    """

    key: str

    @property
    def shown(self) -> str: ...

    @property
    def sha256(self) -> str | None: ...

    def digest(self) -> str:
        """Its digest, read or asked for where it is not known."""

    def options(self) -> dict[str, Any]:
        """What the recipe says beside it."""

    def prepare(self, stage: Build, store: TieredStore) -> dict[str, Any]:
        """Write the dataset's files to a stage, and give the facts of the recipe."""

    def finished(self, store: TieredStore) -> None:
        """The dataset is published."""


class TextInput:
    """One text, that fits in memory."""

    def __init__(
        self, preparer: Preparer, source: Source, choice: Choice, console: Console
    ) -> None:
        self._preparer = preparer
        self._source = source
        self._choice = choice
        self._console = console
        self.key = source.key

    @property
    def shown(self) -> str:
        """See `Input`."""
        return self._source.shown

    @property
    def sha256(self) -> str | None:
        """See `Input`."""
        return self._source.sha256

    def digest(self) -> str:
        """See `Input`."""
        return self._source.sha256 or hashlib.sha256(self._read()).hexdigest()

    def options(self) -> dict[str, Any]:
        """See `Input`."""
        return {"subset": self._choice.subset, "tokenizer": self._choice.tokenizer}

    def prepare(self, stage: Build, store: TieredStore) -> dict[str, Any]:
        """See `Input`."""
        tokenizers.ready(self._choice.tokenizer, store)
        return self._preparer.prepare(self._read(), stage.path, self._choice)

    def finished(self, store: TieredStore) -> None:
        """See `Input`."""

    def _read(self) -> bytes:
        if self._source.is_url:
            self._console.downloading(self._preparer.title)
        return self._source.read()
