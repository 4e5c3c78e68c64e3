"""gigatoken in the place of a reference engine, once it has been shown to give the same tokens.

One call encodes a whole batch: its documents are joined by a separator that gigatoken takes for a
special token, and comes back as one token that no text gives. So a document costs no call, no
object and no copy of its own. Where a document holds the separator itself, each is encoded alone.

It remembers every piece of text that it has seen, and forgets none: of random words ten times as
much memory as there is text. So it is made anew when it has grown too far.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from datasets_prep.errors import reason
from datasets_prep.tokenizers.huggingface import TokenizerJson
from datasets_prep.tokenizers.probes import probes
from datasets_prep.tokenizers.protocol import (
    NUMPY,
    BytePairs,
    Encoded,
    Tokenizer,
    Traits,
    Utf8,
    ended,
    gathered,
    utf8,
)
from datasets_prep.tokenizers.reference import Tiktoken, Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_SAMPLE: Final = 1 << 20  # characters of the input that are compared
# Its first character is nowhere else in it: where two of them meet or overlap with what a document
# begins or ends with, no third one appears.
SEPARATOR: Final = "\x1f\x1e\x00datasets-prep\x00\x1e"
_SEPARATOR: Final = SEPARATOR.encode()
_LARGEST: Final = 128 << 20  # bytes that the process may grow by meanwhile
# How gigatoken calls the regular expressions of tiktoken's encodings.
_SCHEMES: Final = {
    "gpt2": "gpt2",
    "r50k_base": "gpt2",
    "p50k_base": "gpt2",
    "p50k_edit": "gpt2",
    "cl100k_base": "gpt4",
    "o200k_base": "o200k",
    "o200k_harmony": "o200k",
}


class Gigatoken(BytePairs):
    """The same tokens as a reference engine's.

    Parameters
    ----------
    traits : Traits
        What the reference is.
    source : Vocabulary or bytes
        What it is made of: one of tiktoken's vocabularies, or a ``tokenizer.json``.
    """

    engine = "gigatoken"

    def __init__(self, traits: Traits, source: Vocabulary | bytes) -> None:
        super().__init__(traits)
        self._source = source
        self._joined: Any = None
        self._resident = 0  # bytes of the process, when the engine was first used
        self._renew()

    def _renew(self) -> None:
        self._joined = None  # first, so that there are never two
        self._joined = _made(self._source, {SEPARATOR: self.vocab_size})
        self._resident = 0

    def encode_batch(self, texts: Sequence[str]) -> Encoded:
        """See `Tokenizer.encode_batch`."""
        return self.encode_utf8([utf8(text) for text in texts])

    def encode_utf8(self, documents: Sequence[Utf8]) -> Encoded:
        """See `Tokenizer.encode_utf8`."""
        import numpy as np

        tokens = self._all(documents)
        if tokens is None:
            return self._one_by_one(documents)
        ends = np.flatnonzero(tokens == self.vocab_size)
        lengths = np.diff(ends, prepend=-1) - 1
        return Encoded(np.delete(tokens, ends).astype(NUMPY[self.dtype]), lengths)

    def encode_ended(self, documents: Sequence[Utf8]) -> Encoded:
        """See `Tokenizer.encode_ended`."""
        import numpy as np

        tokens = None if self.eot is None else self._all(documents)
        if tokens is None or self.eot is None:
            return ended(self.encode_utf8(documents), self.eot)
        ends = np.flatnonzero(tokens == self.vocab_size)
        tokens[ends] = self.eot
        return Encoded(tokens.astype(NUMPY[self.dtype]), np.diff(ends, prepend=-1))

    def _all(self, documents: Sequence[Utf8]) -> NDArray[np.uint32] | None:
        """All tokens, the separator's after each document; ``None`` where that will not do."""
        joined = _SEPARATOR.join([*documents, b""])
        if joined.count(_SEPARATOR) != len(documents):
            return None
        self._resident = self._resident or _resident()
        if _resident() - self._resident > _LARGEST:
            self._renew()
        tokens: NDArray[np.uint32] = self._joined.encode(joined)
        return tokens

    def _one_by_one(self, documents: Sequence[Utf8]) -> Encoded:
        alone = _made(self._source, {})
        return gathered([alone.encode(bytes(each)) for each in documents], self.dtype)

    def __reduce__(self) -> Any:
        return Gigatoken, (self.traits, self._source)


def fastest(
    reference: Tokenizer, sample: Sequence[str], warn: Callable[[str], object]
) -> Tokenizer:
    """The engine gigatoken if it gives the same tokens; else the reference itself.

    Parameters
    ----------
    reference : Tokenizer
        As `load` gives it.
    sample : sequence of str
        Documents of the actual input; of them the first million characters are compared, after
        a fixed set of difficult texts.
    warn : callable
        Told why gigatoken, which is installed, is not used.
    """
    fast = proven(faster(reference, warn), reference, probes(), warn)
    return proven(fast, reference, sample, warn)


def faster(reference: Tokenizer, warn: Callable[[str], object]) -> Tokenizer:
    """The engine gigatoken, yet to be `proven`; the reference itself where it cannot be had."""
    if not isinstance(reference, Tiktoken | TokenizerJson):
        return reference
    try:
        import gigatoken
    except ImportError:
        return reference
    del gigatoken
    source = reference.data if isinstance(reference, TokenizerJson) else reference.vocabulary()
    try:
        return Gigatoken(reference.traits, source)
    except Exception as error:  # noqa: BLE001 - whatever it is, there is the reference
        _not_used(reference, f"{type(error).__name__}: {reason(error)[:200]}", warn)
        return reference


def proven(
    fast: Tokenizer,
    reference: Tokenizer,
    texts: Sequence[str],
    warn: Callable[[str], object],
) -> Tokenizer:
    """A faster engine if it gives the same tokens for texts; else the reference. See `fastest`."""
    if fast is reference:
        return reference
    try:
        differs = difference(reference, fast, _bounded(texts))
    except Exception as error:  # noqa: BLE001 - likewise
        differs = f"{type(error).__name__}: {reason(error)[:200]}"
    if not differs:
        return fast
    _not_used(reference, differs, warn)
    return reference


def _not_used(reference: Tokenizer, why: str, warn: Callable[[str], object]) -> None:
    warn(f"gigatoken is not used for {reference.name}, {reference.engine} is: {why}")


def difference(reference: Tokenizer, other: Tokenizer, texts: Sequence[str]) -> str:
    """Where two engines differ, in a few words; empty when they give the same tokens."""
    import numpy as np

    expected, found = reference.encode_batch(texts), other.encode_batch(texts)
    if np.array_equal(expected.lengths, found.lengths) and np.array_equal(
        expected.tokens, found.tokens
    ):
        return ""
    for text in texts:
        one, two = reference.encode(text), other.encode(text)
        if not np.array_equal(one, two):
            return f"other tokens for {text[:60]!r}: {two[:8].tolist()} and not {one[:8].tolist()}"
    return "other tokens for documents that are encoded together"


def _bounded(sample: Sequence[str]) -> list[str]:
    kept, room = [], MAX_SAMPLE
    for text in sample:
        kept.append(text[:room])
        room -= len(kept[-1])
        if room <= 0:
            break
    return kept


def _made(source: Vocabulary | bytes, special: dict[str, int]) -> Any:
    from gigatoken.gigatoken_rs import BPETokenizer, load_hf_json

    if isinstance(source, bytes):
        return load_hf_json(_with_special(source, special))
    if source.name not in _SCHEMES:
        raise ValueError(f"gigatoken does not know {source.name}")
    file = os.memfd_create("ranks")  # it reads from a path only
    try:
        with open(file, "wb", closefd=False) as out:
            out.write(source.ranks)
        scheme = _SCHEMES[source.name]
        return BPETokenizer.from_tiktoken(f"/proc/self/fd/{file}", scheme, special)
    finally:
        os.close(file)


def _resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def _with_special(data: bytes, special: dict[str, int]) -> bytes:
    """A ``tokenizer.json`` with these special tokens and no others: their text stays text."""
    config = json.loads(data)
    plain = [each for each in config.get("added_tokens") or [] if not each.get("special")]
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": number, "content": text, **usual, "special": True}
        for text, number in special.items()
    ]
    config["added_tokens"] = plain + added
    return json.dumps(config).encode()
