"""A process that tokenizes for long does not grow, even where no word comes twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.realdata

CODE = """
import numpy as np
from datasets_prep import tokenizers
from datasets_prep.corpora import encoding
from datasets_prep.corpora.encoding import Encoding, resident

slow = tokenizers.load("gpt2")
fast = tokenizers.fastest(slow, ["words"], print)
assert fast.engine == "gigatoken"
work, chance = Encoding(fast), np.random.default_rng(1)
sizes = []
for number in range(30):
    letters = chance.integers(97, 123, 2 << 20, dtype="u1")
    letters[::10] = 32
    text = letters.tobytes().decode()
    found = work.encode([text[:1000], text])
    sizes.append(resident() - sizes[0] if sizes else resident())
    if number % 15 == 0:
        first = slow.encode(text[:1000])
        assert found.tokens[: len(first)].tolist() == first.tolist()
        assert found.tokens[len(first)] == found.tokens[-1] == 50256
print(max(sizes[1:]) // 1_000_000)
"""


def test_memory_does_not_grow_with_the_words_of_a_corpus(vocabulary: Path) -> None:
    pytest.importorskip("gigatoken", reason="the extra fast is not installed")
    environment = {**os.environ, "TIKTOKEN_CACHE_DIR": str(vocabulary)}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, check=True, capture_output=True, timeout=110
    )
    assert int(done.stdout) < 450  # without it: 700
