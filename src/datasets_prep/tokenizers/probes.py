"""Texts on which tokenizers have been seen to differ; every engine is tried on them first."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Final

_WORDS: Final = (
    "don't DON'T we'll I'VE it's 's 'S 're'RE ''ll l'l 'd'D'm'M't'T'ſ",
    "http://example.org/a?b=c&d=%20 user@example.org C:\\path\\n 3.14159 1,234,567 0x1F 1e-9",
    "def f(x):\n\treturn {'a': [x, *y], **z}  # comment\n\n\n    if x != y: pass\r\n",
    "camelCaseWords snake_case_words SHOUTING kebab-case 漢字かな交じり文 한국어",
    "ภาษาไทย हिन्दी العربية עברית Ελληνικά кириллица Tiếng Việt",
    "naïve café Zürich Ünïcödé e\u0301 n\u0303 \u0301\u0301a \u200d\u200c \ufeff \u00ad \u2028",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇨🇭🇯 👍🏽 ☃ ∑∫√ ½ ² Ⅷ ٣ ௧ 𝔘𝔫𝔦 𐍈 \U0010ffff \ufffd \ufffe",
    "<|endoftext|> <|endoftext|><|fim_prefix|><|endofprompt|> <|im_start|> <s></s> [CLS] <|",
    "\x00\x01\x02 \x1b[0m \x1c\x1d\x1e\x1f \x7f\x80\x85\x9f \x0b\x0c",
    "\ud83d\ude00 \ud83d \ude00\ud83d x\udfff",
)
_DENSE: Final = 0x800
_LAST: Final = 0x20000  # what comes after it is rare and of few categories
_SPACES: Final = (" ", "\t", "\n", "\r", "\r\n", "\x0b", "\x0c", "\x85", "\xa0", "\u2003", "\u3000")
_RUNS: Final = (" ", "\n", "a", "A", "1", "!", "=", "é", "漢", "\u0301", "\x00", "ab", " a", "'s")


def probes() -> list[str]:
    """All of them, in a fixed order."""
    return list(_all())


def _all() -> Iterator[str]:
    yield ""
    yield from _WORDS
    for space in _SPACES:
        for other in _SPACES:
            yield f"{space}{other}a{space}{other}{space} b{other}"
            yield f"1{space}{other}!{other}{other}"
    for run in _RUNS:
        for length in (2, 3, 7, 64, 1000):
            yield run * length
            yield f"x{run * length} y"
    yield from _characters()


def _characters() -> Iterator[str]:
    """Characters of every script and category, each beside a letter and a space."""
    seen: set[tuple[int, str]] = set()
    for point in (*range(_DENSE), *range(_DENSE, _LAST, 7)):
        category = unicodedata.category(chr(point))
        if category != "Cs" and (point >> 6, category) not in seen:
            seen.add((point >> 6, category))
            yield f"a{chr(point)} {chr(point)}{chr(point)}1{chr(point)}"
