"""The base of preparers of corpora: documents in, a rule for the splits, a tokenizer."""

from __future__ import annotations

from typing import ClassVar

from datasets_prep.splits import Drawn, Rule


class Corpus:
    """How one corpus is made: documents, each followed by the end-of-text token.

    A subclass says what is in it; nothing has to be programmed.

    Attributes
    ----------
    name, title : str
        The artifact's name, and how people call it.
    version : str
        Changes whenever the same input and options are to give other bytes.
    tokenizers : tuple of str
        The usual one; any other that `datasets_prep.tokenizers` knows may be asked for.
    location : str
        The usual source: a folder or URL, see `tieredstore.open_source`.
    column : str
        Where a document's text stands in a row or object.
    split : Drawn or Given
        Which documents are validation, and the order of all.
    about : str
        How large it is, for people.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[str] = "1"
    tokenizers: ClassVar[tuple[str, ...]] = ("gpt2",)
    location: ClassVar[str]
    column: ClassVar[str] = "text"
    split: ClassVar[Rule] = Drawn()
    about: ClassVar[str] = ""
