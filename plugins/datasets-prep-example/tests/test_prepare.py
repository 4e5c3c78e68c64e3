"""The example is found by its entry point, and prepares what its source holds."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest

from datasets_prep import PrepareOptions, prepare, preparers
from datasets_prep_example import TinyStories

STORIES = [f"Once upon a time there were {n} cats. <|endoftext|> is no end." for n in range(50)]


@pytest.fixture
def stories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIEREDSTORE_CONFIG", raising=False)
    folder = tmp_path / "stories"
    folder.mkdir()
    for file, part in (("train-0", STORIES[:45]), ("validation-0", STORIES[45:])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in part)
        (folder / f"{file}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return folder


def test_it_is_found_by_its_entry_point():
    assert isinstance(preparers.load("tinystories"), TinyStories)


def test_documents_become_tokens_in_their_order_and_are_kept(stories):
    options = PrepareOptions(source=str(stories), tokenizer="byte", data_dir="out")
    done = prepare("tinystories", options)
    assert done.action == "prepared"
    assert (done.path / "train.bin").read_bytes() == "".join(STORIES[:45]).encode()
    assert (done.path / "val.bin").read_bytes() == "".join(STORIES[45:]).encode()
    assert prepare("tinystories", options).action == "hit"


def test_the_command_lists_it():
    words = [sys.executable, "-m", "datasets_prep.cli", "list"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert "tinystories" in done.stdout
