"""Text to tokens: splits, subsets, and the three tokenizers."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_prep import OptionError, SourceError, tokens
from datasets_prep.preparers.pydoc_topics import PydocTopics, topics
from datasets_prep.tokenizers import Bytes, Characters, tokenizer

TEXT = "Zürich, 12 €\n" * 50 + "end \U0001f600"


@given(st.integers(0, 5000), st.floats(0, 1, exclude_min=True))
def test_a_subset_keeps_the_first_characters_of_each_split(length: int, subset: float) -> None:
    text = "".join(chr(33 + n % 90) for n in range(length))
    whole = tokens.splits_of(text, 1.0)
    assert whole["train"] + whole["val"] == text
    assert len(whole["train"]) == int(length * 0.9)
    for name, part in tokens.splits_of(text, subset).items():
        assert part == whole[name][: int(len(whole[name]) * subset)]


def test_characters(tmp_path: Path) -> None:
    facts = tokens.write_text(TEXT, tmp_path, 1.0, "char")
    meta = pickle.loads((tmp_path / "meta.pkl").read_bytes())
    assert meta["vocab_size"] == facts["vocab_size"] == len(set(TEXT))
    assert [meta["itos"][n] for n in range(meta["vocab_size"])] == sorted(set(TEXT))
    assert all(meta["stoi"][c] == n for n, c in meta["itos"].items())
    read = [np.fromfile(tmp_path / f"{s}.bin", dtype="<u2") for s in ("train", "val")]
    assert "".join(meta["itos"][int(n)] for part in read for n in part) == TEXT
    assert (facts["train_tokens"], facts["val_tokens"]) == tuple(map(len, read))


def test_the_vocabulary_is_that_of_the_whole_text_whatever_the_subset(tmp_path: Path) -> None:
    tokens.write_text(TEXT, tmp_path, 0.1, "char")
    assert pickle.loads((tmp_path / "meta.pkl").read_bytes())["vocab_size"] == len(set(TEXT))


@given(st.text(min_size=1))
def test_characters_are_what_a_plain_loop_gives(text: str) -> None:
    coder = Characters(text)
    stoi = coder.meta()["stoi"]
    assert coder.encode(text).tolist() == [stoi[c] for c in text]


def test_a_character_outside_the_vocabulary_is_refused() -> None:
    for text in ("abz", "ab!"):
        with pytest.raises(OptionError, match="not in the vocabulary"):
            Characters("abc").encode(text)


def test_more_than_65536_characters_are_stored_in_32_bits(tmp_path: Path) -> None:
    text = "".join(chr(n) for n in range(0x10000, 0x10000 + 70_000))
    facts = tokens.write_text(text, tmp_path, 1.0, "char")
    assert facts["dtype"] == "uint32"
    assert "symbols" not in facts
    assert pickle.loads((tmp_path / "meta.pkl").read_bytes())["dtype"] == "uint32"
    assert np.fromfile(tmp_path / "val.bin", dtype="<u4")[-1] == 69_999


def test_bytes(tmp_path: Path) -> None:
    facts = tokens.write_text(TEXT, tmp_path, 1.0, "byte")
    cut = int(len(TEXT) * 0.9)
    assert (tmp_path / "train.bin").read_bytes() == TEXT[:cut].encode()
    assert (tmp_path / "val.bin").read_bytes() == TEXT[cut:].encode()
    assert facts["dtype"] == "uint8"
    meta = pickle.loads((tmp_path / "meta.pkl").read_bytes())
    assert meta == {"vocab_size": 256, "tokenizer": "byte", "byte_level": True}
    assert Bytes().encode("").tolist() == []


def test_a_split_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="nothing of the val split of 10 characters"):
        tokens.write_text("0123456789", tmp_path, 0.5, "byte")


def test_an_unknown_tokenizer_is_refused() -> None:
    with pytest.raises(OptionError, match="expected one of gpt2, char, byte"):
        tokenizer("gpt3", "")


def test_a_source_that_is_no_text_is_refused() -> None:
    with pytest.raises(SourceError, match="byte 2"):
        tokens.decoded(b"ab\xff")


def test_the_topics_of_this_python_are_a_real_text() -> None:
    text = topics().decode()
    assert len(text) > 300_000
    assert "assert" in text
    source = PydocTopics().source()
    assert source.digest() == PydocTopics().source().digest()
    assert source.read() == topics()


def test_counts_come_from_the_facts_or_from_the_files(tmp_path: Path) -> None:
    assert tokens.token_counts(tmp_path, {"train_tokens": 5, "val_tokens": 2}) == (5, 2)
    (tmp_path / "train.bin").write_bytes(bytes(8))
    (tmp_path / "val.bin").write_bytes(bytes(4))
    for untrusted in ({"train_tokens": True, "val_tokens": 2}, {"train_tokens": -5}, {}):
        assert tokens.token_counts(tmp_path, untrusted) == (4, 2)
    assert tokens.token_counts(tmp_path, {"dtype": "uint32"}) == (2, 1)


def test_importing_loads_neither_numpy_nor_tiktoken_nor_requests() -> None:
    code = (
        "import sys, datasets_prep; "
        "print([m for m in ('numpy', 'tiktoken', 'requests', 'fsspec', 'filelock') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
