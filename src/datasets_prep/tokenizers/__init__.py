"""Text to token ids: one small protocol, an engine a file. Engines are loaded when first used.

``load`` gives the reference engine of a tokenizer, ``fastest`` a faster one that has been shown to
give the same tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from datasets_prep.errors import OptionError
from datasets_prep.tokenizers.fast import difference, faster, fastest, proven
from datasets_prep.tokenizers.huggingface import TokenizerJson, identity_of, read
from datasets_prep.tokenizers.plain import Bytes, Characters
from datasets_prep.tokenizers.protocol import BytePairs, Encoded, Tokenizer, Traits, ended
from datasets_prep.tokenizers.reference import Tiktoken, encoding, encodings, keep

if TYPE_CHECKING:
    from tieredstore import TieredStore

__all__ = [
    "GPT2_VOCAB",
    "NAMES",
    "BytePairs",
    "Bytes",
    "Characters",
    "Encoded",
    "Tiktoken",
    "Tokenizer",
    "TokenizerJson",
    "Traits",
    "difference",
    "ended",
    "faster",
    "fastest",
    "gpt2_encoding",
    "identity",
    "keep",
    "load",
    "proven",
    "ready",
    "tokenizer",
]
GPT2_VOCAB: Final = 50257
NAMES: Final = ("gpt2", "char", "byte")  # those that every preparer of one text has


def load(name: str, store: TieredStore | None = None) -> Tokenizer:
    """The tokenizer of a name, by its reference engine.

    Parameters
    ----------
    name : str
        One of tiktoken's encodings, ``byte``, or the path of a ``tokenizer.json``.
    store : TieredStore, optional
        Asked for a vocabulary of tiktoken's before the internet is.

    Raises
    ------
    OptionError
        When there is none of that name.
    VocabularyUnavailable
        When its vocabulary cannot be had.
    """
    if name == "byte":
        return Bytes()
    if name.endswith(".json"):
        return read(Path(name))
    if name == "char":
        raise OptionError("tokenizer char: its vocabulary is that of one text; expected another")
    known = encodings()
    if name == "gpt2" or name in known:
        return Tiktoken(encoding(name, store))
    others = ", ".join(each for each in known if each not in NAMES)
    raise OptionError(
        f"tokenizer {name!r}: expected one of {', '.join(NAMES)}, another encoding of tiktoken's"
        f"{others and f' ({others})'}, or the path of a tokenizer.json"
    )


def identity(name: str) -> str:
    """What tells a tokenizer from every other one, without loading it: see `Tokenizer.identity`.

    Raises
    ------
    OptionError
        When it is a ``tokenizer.json`` that cannot be read.
    """
    return identity_of(Path(name)) if name.endswith(".json") else name


def ready(name: str, store: TieredStore) -> None:
    """Have a vocabulary here, from the store if need be, before `tokenizer` is called.

    Raises
    ------
    VocabularyUnavailable
        When it cannot be had.
    """
    if name not in {"byte", "char"}:
        load(name, store)


def tokenizer(name: str, text: str) -> Tokenizer:
    """The tokenizer of a name, for one text: that may be the vocabulary of ``char``.

    Raises
    ------
    OptionError, VocabularyUnavailable
        As `load`.
    """
    return Characters(text) if name == "char" else load(name)


def gpt2_encoding() -> Any:
    """The GPT-2 encoding of tiktoken, which tiktoken itself keeps once it is loaded.

    Raises
    ------
    VocabularyUnavailable
        When its vocabulary is neither in tiktoken's cache nor to be had from the internet.
    """
    return encoding("gpt2")
