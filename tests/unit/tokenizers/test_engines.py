"""Every engine gives the tokens of the reference, for strange texts too."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets_prep import tokenizers
from datasets_prep.tokenizers.fast import SEPARATOR, Gigatoken
from datasets_prep.tokenizers.probes import probes
from datasets_prep.tokenizers.protocol import utf8

COUNT = int(os.environ.get("DATASETS_PREP_FUZZ", "1000"))
SEED = int(os.environ.get("DATASETS_PREP_SEED", "1"))
CACHE = Path(__file__).parents[4] / "shared/data/tiktoken-cache"
BATCH = 250

pytest.importorskip("tiktoken")
pytest.importorskip("tokenizers")
pytest.importorskip("gigatoken")


def engines_of(engines, kind):
    """A reference of tiktoken's, and the engines that must give the same."""
    reference = engines.reference(kind)
    others = [reference, Gigatoken(reference.traits, reference.vocabulary())]
    if kind == "gpt2":
        slow = engines.tokenizer_json()
        others += [slow, Gigatoken(slow.traits, slow.data)]
    return reference._encoding, others


@pytest.mark.parametrize("kind", ["gpt2", "cl100k_base", "o200k_base"])
def test_strange_texts_have_the_tokens_of_tiktoken(engines, kind):
    encoding, others = engines_of(engines, kind)
    compare(encoding, others, engines.strings(COUNT, SEED))


@pytest.mark.realdata
def test_strange_texts_have_gpt2s_tokens(engines, monkeypatch):
    if not CACHE.is_dir():
        pytest.skip(f"{CACHE} is missing")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(CACHE))
    reference = tokenizers.load("gpt2")
    others = [reference, Gigatoken(reference.traits, reference.vocabulary())]
    compare(reference._encoding, others, engines.strings(COUNT, SEED + 1))


def compare(encoding, others, texts):
    texts = list(texts)
    for begin in range(0, len(texts), BATCH):
        batch = texts[begin : begin + BATCH]
        expected = [encoding.encode_ordinary(text) for text in batch]
        for other in others:
            check(other, batch, expected)


def check(other, batch, expected):
    documents = [utf8(text) for text in batch]
    views = [memoryview(document) for document in documents]  # of a larger buffer, say
    for found in (other.encode_batch(batch), other.encode_utf8(views)):
        assert found.tokens.dtype.name == other.dtype
        assert found.lengths.tolist() == [len(each) for each in expected], first(
            other, batch, expected
        )
        joined = [n for each in expected for n in each]
        assert found.tokens.tolist() == joined, first(other, batch, expected)
    found = other.encode_ended(documents)
    assert found.tokens.tolist() == [n for each in expected for n in (*each, other.eot)]
    assert found.lengths.tolist() == [len(each) + 1 for each in expected]


def first(other, batch, expected):
    """The first text that differs, for people."""
    for text, tokens in zip(batch, expected, strict=True):
        if other.encode(text).tolist() != tokens:
            return f"{other.engine}: {text!r}"
    return f"{other.engine}: only together"


def test_a_documents_own_separator_moves_no_border(engines):
    encoding, others = engines_of(engines, "gpt2")
    parts = [SEPARATOR, SEPARATOR[:1], SEPARATOR[1:], SEPARATOR[:-1], SEPARATOR[-1:], "a", ""]
    near = [one + two for one in parts for two in parts]
    for texts in (near, [text for text in near if SEPARATOR not in text], [], [""], ["", ""]):
        expected = [encoding.encode_ordinary(text) for text in texts]
        for other in others:
            check(other, texts, expected)


def test_long_runs_are_encoded_in_time(engines):
    """Of one character or of a few: engines have taken the square of their length."""
    encoding, others = engines_of(engines, "gpt2")
    for run in (" ", "a", "\n", "=", "é", "\u0301", engines.EOT, " a", "\t\n"):
        text = run * (100_000 // len(run))
        for other in others:
            assert other.encode(text).tolist() == encoding.encode_ordinary(text)


MEMORY = """
import os, pickle, sys
fast = pickle.load(sys.stdin.buffer)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
before, most, tokens = resident(), 0, 0
for number in range(24):
    words = os.urandom(1 << 20).hex().translate(str.maketrans("0123456789", "ghijklmnop"))
    text = " ".join(words[at : at + 8] for at in range(0, len(words), 8)).encode()
    tokens += len(fast.encode_ended([text]).tokens)
    most = max(most, resident())
assert tokens > 6_000_000
print(most - before)
"""


def test_memory_does_not_grow_with_what_was_seen(engines):
    """54 MB of words that never come twice; 400 MB more than before if all were remembered."""
    reference = engines.reference("gpt2")
    fast = Gigatoken(reference.traits, reference.vocabulary())
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], input=pickle.dumps(fast), capture_output=True, check=True
    )
    assert int(done.stdout) < 250 << 20


def test_no_text_gives_the_end_of_text(engines):
    _, others = engines_of(engines, "gpt2")
    for other in others:
        found = other.encode(f"a{engines.EOT}b")
        assert other.eot not in found.tolist()
        assert len(found) > 3


@pytest.mark.parametrize("kind", ["gpt2", "o200k_base"])
def test_the_stored_type_is_that_of_the_vocabulary(engines, kind):
    _, others = engines_of(engines, kind)
    for other in others:
        large = other.vocab_size > 1 << 16
        assert other.dtype == ("uint32" if large else "uint16")
        assert other.meta().get("dtype") == ("uint32" if large else None)
        assert (
            other.meta()["vocab_size"] == other.vocab_size == other.eot + (1 if not large else 20)
        )
        assert other.facts() == {**other.meta(), "eot": other.eot}


def test_another_process_has_the_same_tokenizer(engines):
    _, others = engines_of(engines, "gpt2")
    texts = [*probes()[:200], engines.EOT]
    expected = [list(other.encode_batch(texts)) for other in others]
    with multiprocessing.get_context("spawn").Pool(1, _take, [others]) as pool:
        for number, want in enumerate(expected):
            found = pool.apply(_encode, [number, texts])
            assert np.array_equal(found[1], want[0])
            assert np.array_equal(found[2], want[1])
            assert found[0] == (others[number].identity, others[number].engine, [])


_TAKEN = []


def _take(others):
    _TAKEN[:] = others


def _encode(number, texts):
    other = _TAKEN[number]
    heavy = [name for name in ("awkward", "datasets", "torch") if name in sys.modules]
    return (other.identity, other.engine, heavy), *other.encode_batch(texts)
