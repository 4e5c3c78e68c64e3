"""What every tokenizer offers, and what they share; no engine is imported here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tokens = NDArray[np.unsignedinteger[Any]]
    Lengths = NDArray[np.int64]

Utf8 = bytes | memoryview
NUMPY: Final = {"uint8": "|u1", "uint16": "<u2", "uint32": "<u4"}


class Encoded(NamedTuple):
    """The tokens of several documents.

    Attributes
    ----------
    tokens : ndarray
        Those of all documents, one after the other, in the stored type.
    lengths : ndarray of int64
        How many each document has.
    """

    tokens: Tokens
    lengths: Lengths


@dataclass(frozen=True, slots=True)
class Traits:
    """What a tokenizer is, whichever engine does its work.

    Attributes
    ----------
    name : str
        How people call it: ``gpt2``, ``tokenizer.json``.
    vocab_size : int
        One more than its largest token.
    eot : int or None
        The end-of-text token, where there is one.
    sha256 : str
        Of the file that defines it; empty for one that is known by its name.
    """

    name: str
    vocab_size: int
    eot: int | None = None
    sha256: str = ""

    @property
    def dtype(self) -> str:
        """How its tokens are stored: in two bytes where all fit, else in four."""
        return "uint16" if self.vocab_size <= 1 << 16 else "uint32"

    @property
    def identity(self) -> str:
        """What tells it from every other one, for a recipe."""
        return f"{self.name}:{self.sha256}" if self.sha256 else self.name

    def meta(self) -> dict[str, Any]:
        """What ``meta.pkl`` says of it."""
        meta: dict[str, Any] = {"vocab_size": self.vocab_size, "tokenizer": self.name}
        if self.dtype != "uint16":
            meta["dtype"] = self.dtype
        return meta


class Tokenizer(Protocol):
    """What a preparer asks of one. It can be sent to another process, and needs no file there.

    Attributes
    ----------
    name, engine : str
        How people call it, and what does the work. Results do not depend on the engine.
    identity : str
        What tells it from every other one, for a recipe.
    dtype : str
        ``uint8``, ``uint16`` or ``uint32``: how its tokens are stored.
    vocab_size : int
        One more than its largest token.
    eot : int or None
        The end-of-text token, where there is one. No text ever gives it.
    """

    @property
    def name(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def identity(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def eot(self) -> int | None: ...

    def encode(self, text: str) -> Tokens:
        """The tokens of a text, in the stored type."""

    def encode_batch(self, texts: Sequence[str]) -> Encoded:
        """The tokens of several texts."""

    def encode_utf8(self, documents: Sequence[Utf8]) -> Encoded:
        """The tokens of several documents that are valid UTF-8."""

    def encode_ended(self, documents: Sequence[Utf8]) -> Encoded:
        """The same, each document followed by the end-of-text token."""

    def meta(self) -> dict[str, Any]:
        """What ``meta.pkl`` says of it."""

    def facts(self) -> dict[str, Any]:
        """The same as plain JSON, kept small, and ``eot``: it travels with the recipe."""


class BytePairs(ABC):
    """What the engines of byte-pair encodings share.

    Parameters
    ----------
    traits : Traits
        What the tokenizer is.
    """

    def __init__(self, traits: Traits) -> None:
        self.traits = traits

    @property
    @abstractmethod
    def engine(self) -> str:
        """See `Tokenizer.engine`."""

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> Encoded:
        """See `Tokenizer.encode_batch`."""

    @property
    def name(self) -> str:
        """See `Tokenizer.name`."""
        return self.traits.name

    @property
    def identity(self) -> str:
        """See `Tokenizer.identity`."""
        return self.traits.identity

    @property
    def dtype(self) -> str:
        """See `Tokenizer.dtype`."""
        return self.traits.dtype

    @property
    def vocab_size(self) -> int:
        """See `Tokenizer.vocab_size`."""
        return self.traits.vocab_size

    @property
    def eot(self) -> int | None:
        """See `Tokenizer.eot`."""
        return self.traits.eot

    def encode(self, text: str) -> Tokens:
        """See `Tokenizer.encode`."""
        return self.encode_batch([text]).tokens

    def encode_utf8(self, documents: Sequence[Utf8]) -> Encoded:
        """See `Tokenizer.encode_utf8`."""
        return self.encode_batch([str(document, "utf-8") for document in documents])

    def encode_ended(self, documents: Sequence[Utf8]) -> Encoded:
        """See `Tokenizer.encode_ended`."""
        return ended(self.encode_utf8(documents), self.eot)

    def meta(self) -> dict[str, Any]:
        """See `Tokenizer.meta`."""
        return self.traits.meta()

    def facts(self) -> dict[str, Any]:
        """See `Tokenizer.facts`."""
        return self.meta() if self.eot is None else {**self.meta(), "eot": self.eot}


def ended(encoded: Encoded, eot: int | None) -> Encoded:
    """Each document followed by the end-of-text token.

    Raises
    ------
    ValueError
        Where there is none.
    """
    import numpy as np

    if eot is None:
        raise ValueError("this vocabulary has no end-of-text token")
    tokens, lengths = encoded
    return Encoded(np.insert(tokens, np.cumsum(lengths), eot), lengths + 1)


def gathered(parts: Sequence[Any], dtype: str) -> Encoded:
    """The tokens of each document, one after the other, in the stored type."""
    import numpy as np

    lengths = np.fromiter((len(part) for part in parts), dtype=np.int64, count=len(parts))
    tokens = np.empty(int(lengths.sum()), dtype=NUMPY[dtype])
    begin = 0
    for part in parts:
        tokens[begin : begin + len(part)] = part
        begin += len(part)
    return Encoded(tokens, lengths)


def without_surrogates(text: str) -> str:
    """A text that can be UTF-8: pairs of surrogates joined, lone ones replaced by U+FFFD.

    That is what tiktoken does with them (``Encoding.encode_ordinary`` of tiktoken 0.14).
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def utf8(text: str) -> bytes:
    """A text in UTF-8, its lone surrogates replaced."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return without_surrogates(text).encode()
