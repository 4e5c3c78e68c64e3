"""Which tokenizer a name gives, and when gigatoken is used; vocabularies from the store."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from datasets_prep import OptionError, tokenizers
from datasets_prep.tokenizers import fast

pytest.importorskip("tiktoken")
pytest.importorskip("tokenizers")
pytest.importorskip("gigatoken")


def test_gigatoken_is_used_where_it_gives_the_same_tokens(engines):
    told = []
    for reference in (engines.reference(), engines.tokenizer_json()):
        chosen = tokenizers.fastest(reference, ["a sample", ""], told.append)
        assert chosen.engine == "gigatoken"
        assert (chosen.name, chosen.identity) == (reference.name, reference.identity)
    assert told == []
    for plain in (tokenizers.load("byte"), tokenizers.tokenizer("char", "ab")):
        assert tokenizers.fastest(plain, ["ab"], told.append) is plain


def test_one_difference_and_it_is_not_used(engines, monkeypatch):
    told = []
    monkeypatch.setitem(fast._SCHEMES, "cl100k_base", "gpt2")  # cuts the text elsewhere
    reference = engines.reference("cl100k_base")
    assert tokenizers.fastest(reference, [], told.append) is reference
    assert "gigatoken is not used for cl100k_base, tiktoken is: other tokens for" in told[0]


def test_a_difference_in_the_input_alone_is_enough(engines, monkeypatch):
    told = []
    reference = engines.reference()
    monkeypatch.setattr(fast, "probes", list)  # what the probes do not show
    monkeypatch.setitem(fast._SCHEMES, "gpt2", "gpt4")
    assert tokenizers.fastest(reference, ["plain words"], told.append).engine == "gigatoken"
    assert tokenizers.fastest(reference, ["a\n\n    b"], told.append) is reference
    assert r"'a\n\n    b'" in told[0]


def test_an_encoding_that_gigatoken_does_not_know_stays_with_tiktoken(engines, monkeypatch):
    told = []
    monkeypatch.delitem(fast._SCHEMES, "gpt2")
    reference = engines.reference()
    assert tokenizers.fastest(reference, [], told.append) is reference
    assert "ValueError: gigatoken does not know gpt2" in told[0]


def test_without_gigatoken_the_reference_is_used_and_nothing_said(engines, monkeypatch):
    told = []
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    reference = engines.reference()
    assert tokenizers.fastest(reference, ["x"], told.append) is reference
    assert told == []


def test_a_tokenizer_json_is_known_by_its_digest(engines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = engines.trained().encode()
    Path("mine.json").write_bytes(data)
    found = tokenizers.load("mine.json")
    assert found.identity == f"mine.json:{hashlib.sha256(data).hexdigest()}"
    assert tokenizers.identity("mine.json") == found.identity
    assert tokenizers.identity("gpt2") == "gpt2"
    assert found.eot == engines.SIZE
    assert found.vocab_size == engines.SIZE + 1


def test_what_a_tokenizer_json_adds_cuts_off_or_fills_up_is_left_out(engines):
    config = json.loads(engines.trained())
    config["truncation"] = {
        "direction": "Right",
        "max_length": 4,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    piece = {"Sequence": {"id": "A", "type_id": 0}}
    token = {"SpecialToken": {"id": engines.EOT, "type_id": 0}}
    config["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [token, piece],
        "pair": [token, piece],
        "special_tokens": {
            engines.EOT: {"id": engines.EOT, "ids": [engines.SIZE], "tokens": [engines.EOT]}
        },
    }
    strict = tokenizers.TokenizerJson("tokenizer.json", json.dumps(config).encode())
    text = "some words, more than four of them"
    assert strict.encode(text).tolist() == engines.reference().encode(text).tolist()


def test_names_that_cannot_be_used_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text("{}")
    for name, why in {
        "none": "expected one of gpt2, char, byte, another encoding of tiktoken's .cl100k_base",
        "char": "its vocabulary is that of one text",
        "none.json": "No such file",
        "bad.json": "bad.json: no tokenizer.json",
    }.items():
        with pytest.raises(OptionError, match=why):
            tokenizers.load(name)


def test_bytes_and_characters_encode_batches(engines):
    texts = ["añb", "", "ab\ud800"]
    plain = tokenizers.load("byte")
    found = plain.encode_batch(texts)
    assert found.tokens.tobytes() == "añbab\ufffd".encode()
    assert found.lengths.tolist() == [4, 0, 5]
    chars = tokenizers.tokenizer("char", "".join(texts))
    assert chars.encode_batch(texts).tokens.tolist() == [
        *chars.encode("añb"),
        *chars.encode(texts[2]),
    ]
    with pytest.raises(ValueError, match="no end-of-text token"):
        plain.encode_ended([b"a"])


# -- vocabularies in the store ---------------------------------------------------------------------

CODE = """
import sys
from datasets_prep import tokenizers
from tieredstore import open_store
store = None if sys.argv[1] == "none" else open_store(sys.argv[1])
print(tokenizers.load("small", store).encode("hello there").tolist())
"""


@pytest.fixture
def small(engines, tmp_path):
    """An encoding that tiktoken finds as it finds its own; its address answers nothing."""
    data = engines.rank_file()
    site = tmp_path / "site/tiktoken_ext"
    site.mkdir(parents=True)
    url, digest = "http://127.0.0.1:9/v/small.tiktoken", hashlib.sha256(data).hexdigest()
    (site / "small.py").write_text(f"""
from tiktoken.load import load_tiktoken_bpe

def small():
    return {{
        "name": "small",
        "pat_str": "\\\\S+|\\\\s+",
        "mergeable_ranks": load_tiktoken_bpe({url!r}, {digest!r}),
        "special_tokens": {{}},
    }}

ENCODING_CONSTRUCTORS = {{"small": small}}
""")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / hashlib.sha1(url.encode()).hexdigest()).write_bytes(data)
    config = tmp_path / "tiers.toml"
    config.write_text(
        f'[[tier]]\nname = "here"\nbackend = "local"\npath = "{tmp_path}/here"\n'
        f'[[tier]]\nname = "far"\nbackend = "local"\npath = "{tmp_path}/far"\ndurable = true\n'
    )

    def run(*command, cache=cache):
        env = {**os.environ, "PYTHONPATH": str(site.parent), "TIKTOKEN_CACHE_DIR": str(cache)}
        env["no_proxy"] = env["NO_PROXY"] = "127.0.0.1"
        words = [sys.executable, *map(str, command)]
        return subprocess.run(
            words, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    run.config = config
    return run


def test_a_vocabulary_in_the_store_needs_no_internet(small, tmp_path):
    command = ["-m", "datasets_prep.cli", "vocabulary", "small", "--config", small.config]
    done = small(*command)
    assert done.returncode == 0, done.stderr
    expected = small("-c", CODE, "none").stdout
    assert expected.startswith("[")

    missing = small("-c", CODE, "none", cache=tmp_path / "empty")
    assert "VocabularyUnavailable" in missing.stderr
    assert "datasets-prep vocabulary small" in missing.stderr
    for folder in (tmp_path / "here").iterdir():
        folder.rename(
            tmp_path / f"moved-{folder.name}"
        )  # another machine has the durable tier only
    found = small("-c", CODE, small.config, cache=tmp_path / "empty")
    assert (found.stdout, found.returncode) == (expected, 0), found.stderr
    assert (
        small("-c", CODE, "none", cache=tmp_path / "empty").stdout == expected
    )  # tiktoken kept it


def test_a_vocabulary_with_another_digest_is_not_used(small, tmp_path):
    small("-m", "datasets_prep.cli", "vocabulary", "small", "--config", small.config)
    for tier in ("here", "far"):
        (file,) = (tmp_path / tier).rglob("small.tiktoken")
        file.write_bytes(b"!" * file.stat().st_size)
    done = small("-c", CODE, small.config, cache=tmp_path / "empty")
    assert "VocabularyUnavailable" in done.stderr
    assert "ConnectionError" in done.stderr


def test_an_encoding_that_is_none_is_refused(small):
    done = small("-m", "datasets_prep.cli", "vocabulary", "none", "--config", small.config)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip().endswith("tokenizer 'none': tiktoken has no such encoding")
