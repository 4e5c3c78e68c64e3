"""Tokenizers that a Hugging Face ``tokenizer.json`` describes, by the package ``tokenizers``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from datasets_prep.errors import OptionError, VocabularyUnavailable, reason
from datasets_prep.tokenizers.protocol import (
    BytePairs,
    Encoded,
    Traits,
    gathered,
    without_surrogates,
)

_MAX_FILE: Final = 256 << 20  # bytes
# How the vocabularies that people use call the end of a text, the more exact names first.
_ENDS: Final = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]")


class TokenizerJson(BytePairs):
    """A ``tokenizer.json``, ordinary text only: a special token's text stays text.

    Nothing is put before or after a text, nothing cut off or filled up, whatever the file says.

    Parameters
    ----------
    name : str
        How people call it.
    data : bytes
        The file.

    Raises
    ------
    OptionError
        When it is none.
    """

    engine = "tokenizers"

    def __init__(self, name: str, data: bytes) -> None:
        import tokenizers

        try:
            made = tokenizers.Tokenizer.from_str(data.decode())
            special = _special(json.loads(data))
        except Exception as error:  # noqa: BLE001 - its errors are plain ones
            raise OptionError(f"{name}: no tokenizer.json: {reason(error)[:200]}") from None
        made.no_padding()
        made.no_truncation()
        made.encode_special_tokens = True
        self.data = data
        self._made = made
        size = max(made.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        eot = next((special[end] for end in _ENDS if end in special), None)
        super().__init__(Traits(name, size, eot, hashlib.sha256(data).hexdigest()))

    def encode_batch(self, texts: Sequence[str]) -> Encoded:
        """See `Tokenizer.encode_batch`."""
        return gathered([self._encode(text) for text in texts], self.dtype)

    def _encode(self, text: str) -> list[int]:
        try:
            ids: list[int] = self._made.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError):
            if (mended := without_surrogates(text)) == text:
                raise
            return self._encode(mended)
        return ids

    def __reduce__(self) -> Any:
        return TokenizerJson, (self.name, self.data)


def read(path: Path) -> TokenizerJson:
    """The tokenizer that a file describes.

    Raises
    ------
    OptionError
        When it cannot be read, or is no ``tokenizer.json``.
    VocabularyUnavailable
        Where the package ``tokenizers`` is not installed.
    """
    data = _bytes(path)
    try:
        return TokenizerJson(path.name, data)
    except ImportError as error:
        raise VocabularyUnavailable(f"tokenizer {path}: {error}; pip install tokenizers") from None


def identity_of(path: Path) -> str:
    """What tells the tokenizer of a file from every other one; the package is not loaded.

    Raises
    ------
    OptionError
        When it cannot be read.
    """
    return Traits(path.name, 0, sha256=hashlib.sha256(_bytes(path)).hexdigest()).identity


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise OptionError(f"tokenizer {path}: {reason(error)}") from None
    if len(data) > _MAX_FILE:
        raise OptionError(f"tokenizer {path}: larger than {_MAX_FILE} bytes")
    return data


def _special(config: Any) -> dict[str, int]:
    added = config.get("added_tokens") or []
    return {each["content"]: each["id"] for each in added if each.get("special")}
