"""Tokenizers that need no vocabulary file: one token a character, or one a byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from datasets_prep.errors import OptionError
from datasets_prep.tokenizers.protocol import BytePairs, Encoded, Traits, Utf8, gathered, utf8

if TYPE_CHECKING:
    from datasets_prep.tokenizers.protocol import Tokens

_MAX_SYMBOLS: Final = 2048  # characters of a vocabulary that are kept with the recipe


class Characters(BytePairs):
    """One token for each different character of a text, in their order.

    Parameters
    ----------
    text : str
        Whose characters are the vocabulary.
    """

    engine = "char"

    def __init__(self, text: str) -> None:
        self._symbols = sorted(set(text))
        super().__init__(Traits("char", len(self._symbols)))

    def encode(self, text: str) -> Tokens:
        """See `Tokenizer.encode`; every character must be in the vocabulary."""
        import numpy as np

        known = np.array([ord(c) for c in self._symbols], dtype="<u4")
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        places = np.searchsorted(known, points)
        if len(points) and not np.array_equal(known[np.minimum(places, len(known) - 1)], points):
            raise OptionError("the text has characters that are not in the vocabulary")
        return places.astype("<u2" if self.dtype == "uint16" else "<u4")

    def encode_batch(self, texts: Sequence[str]) -> Encoded:
        """See `Tokenizer.encode_batch`."""
        return gathered([self.encode(text) for text in texts], self.dtype)

    def meta(self) -> dict[str, Any]:
        """See `Tokenizer.meta`."""
        return {
            **super().meta(),
            "itos": dict(enumerate(self._symbols)),
            "stoi": {symbol: n for n, symbol in enumerate(self._symbols)},
        }

    def facts(self) -> dict[str, Any]:
        """See `Tokenizer.facts`."""
        facts: dict[str, Any] = {"vocab_size": len(self._symbols), "tokenizer": "char"}
        if len(self._symbols) <= _MAX_SYMBOLS:
            facts["symbols"] = "".join(self._symbols)
        return facts


class Bytes(BytePairs):
    """The bytes of the text in UTF-8."""

    engine = "byte"
    dtype = "uint8"

    def __init__(self) -> None:
        super().__init__(Traits("byte", 256))

    def encode_batch(self, texts: Sequence[str]) -> Encoded:
        """See `Tokenizer.encode_batch`."""
        return self.encode_utf8([utf8(text) for text in texts])

    def encode_utf8(self, documents: Sequence[Utf8]) -> Encoded:
        """See `Tokenizer.encode_utf8`."""
        import numpy as np

        lengths = np.fromiter(map(len, documents), dtype=np.int64, count=len(documents))
        return Encoded(np.frombuffer(b"".join(documents), dtype="|u1"), lengths)

    def meta(self) -> dict[str, Any]:
        """See `Tokenizer.meta`."""
        return {"vocab_size": 256, "tokenizer": "byte", "byte_level": True}
