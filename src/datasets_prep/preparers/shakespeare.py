"""Tiny Shakespeare: one text of 1,115,394 characters, split nine to one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from datasets_prep.preparers import Choice, Preparer
from datasets_prep.sources import Source, source_at
from datasets_prep.tokens import decoded, write_text

URL: Final = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHA256: Final = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


class Shakespeare(Preparer):
    """GPT-2 tokens by default; no end-of-text token."""

    name = "shakespeare"
    title = "Shakespeare"
    tokenizers = ("gpt2", "char", "byte")

    def source(self) -> Source:
        """See `Preparer.source`."""
        return source_at(URL, SHA256)

    def prepare(self, data: bytes, folder: Path, choice: Choice) -> dict[str, Any]:
        """See `Preparer.prepare`."""
        return write_text(decoded(data), folder, choice.subset, choice.tokenizer)
