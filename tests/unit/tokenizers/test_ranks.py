"""GPT-2's vocabulary, read quickly: what tiktoken itself makes of the same files, or not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets_prep import tokenizers
from datasets_prep.tokenizers import ranks

CACHE = Path(__file__).parents[4] / "shared/data/tiktoken-cache"
loading = pytest.importorskip("tiktoken.load")
public = pytest.importorskip("tiktoken_ext.openai_public")
USUAL = {b"the usual way": 0}


@pytest.mark.realdata
def test_the_ranks_are_those_of_tiktoken(monkeypatch):
    if not CACHE.is_dir():
        pytest.skip(f"{CACHE} is missing")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(CACHE))
    usual = public.gpt2()["mergeable_ranks"]
    seen = []

    def never(*_, **__):
        raise AssertionError("read the usual way")

    def read(url, digest):
        seen.append((url.rpartition("/")[2], digest))
        return loading.read_file_cached(url, digest)

    with monkeypatch.context() as patch:
        patch.setattr(public, "data_gym_to_mergeable_bpe_ranks", ranks.quick(never, read))
        found = public.gpt2()["mergeable_ranks"]
    assert found == usual
    assert list(found) == list(usual)
    assert [name for name, digest in seen if digest] == ["encoder.json", "vocab.bpe"]
    assert tokenizers.load("gpt2").vocabulary().ranks == ranks.lines(usual)
    assert public.data_gym_to_mergeable_bpe_ranks is loading.data_gym_to_mergeable_bpe_ranks


@pytest.mark.parametrize(
    ("hashes", "more"), [((None, None), {}), (("1", "2"), {}), (("1", "2"), {"clobber": True})]
)
def test_other_files_are_read_the_usual_way(hashes, more):
    def usual(*args, **kwargs):
        assert (args, kwargs) == (("merges", "tokens", *hashes), more)
        return USUAL

    text = "#version: 0.2\nĠ t\nĠt h\n"
    found = ranks.quick(usual, lambda url, digest: text.encode())
    assert found("merges", "tokens", *hashes, **more) == USUAL


def test_lines_are_in_the_order_of_ranks_and_keep_their_gaps():
    assert ranks.lines({b"b": 7, b"a": 2}) == b"YQ== 2\nYg== 7\n"
