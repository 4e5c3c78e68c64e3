"""What becomes of documents: splits, order, subsets, bad ones. Bytes need no vocabulary."""

from __future__ import annotations

import gzip
import json
import math
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets_prep import PrepareOptions, SourceError, prepare
from datasets_prep.console import Console
from tieredstore import open_store

from .conftest import Pod, write_files, write_jsonl, write_parquet

BYTES = ("--tokenizer", "byte")


def split(texts: list[str], share: float = 0.0005) -> tuple[list[str], list[str]]:
    """Train and validation as `train_test_split` draws them."""
    order = np.random.default_rng(2357).permutation(len(texts))
    count = math.ceil(share * len(texts))
    return [texts[n] for n in order[count:]], [texts[n] for n in order[:count]]


def joined(texts: list[str]) -> bytes:
    return "".join(texts).encode()


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "jsonl.gz"])
def test_documents_are_drawn_and_permuted(pod: Pod, texts: list[str], kind: str) -> None:
    source = write_files(pod.root / "in", texts, kind)
    pod.prepare("openwebtext", source, *BYTES, "--num-proc", 2)
    train, val = split(texts)
    files = pod.files("openwebtext")
    assert files["train.bin"] == joined(train)
    assert files["val.bin"] == joined(val)
    assert pickle.loads(files["meta.pkl"])["tokenizer"] == "byte"


def test_shards_are_removed_when_the_corpus_is_there_or_kept_when_asked(
    pod: Pod, texts: list[str]
) -> None:
    source = write_files(pod.root / "in", texts[:200], "jsonl")
    config = pod.root / "tiers.toml"
    config.write_text(
        '[[tier]]\nname = "here"\nbackend = "local"\npath = "here"\n\n'
        '[[tier]]\nname = "kept"\nbackend = "local"\npath = "kept"\ndurable = true\n'
    )
    words = ["prepare", "openwebtext", "--source", source, *BYTES, "--config", config]
    pod.run(*words)
    assert open_store(_at(config)).names() == ["openwebtext"]
    pod.run(*words, "--force", "--keep-shards")
    names = open_store(_at(config)).names()
    assert len(names) > 1
    for name in names:
        there = open_store(_at(config)).locate(name)
        assert [where.state for where in there] == ["whole", "whole"], name


def _at(config: Path) -> dict[str, object]:
    import tomllib

    table = tomllib.loads(config.read_text())
    for tier in table["tier"]:
        tier["path"] = str(config.parent / tier["path"])
    return table


def test_unshuffled_the_last_documents_are_validation(pod: Pod, texts: list[str]) -> None:
    source = write_files(pod.root / "in", texts, "parquet", count=5)
    pod.prepare("openwebtext", source, *BYTES, "--no-shuffle", "--num-proc", 2)
    count = math.ceil(0.0005 * len(texts))
    files = pod.files("openwebtext")
    assert files["train.bin"] == joined(texts[:-count])
    assert files["val.bin"] == joined(texts[-count:])


@pytest.mark.parametrize("folders", [True, False])
def test_files_of_each_split_keep_their_order(pod: Pod, texts: list[str], folders: bool) -> None:
    source = pod.root / "in"
    names = ("train/a.jsonl.gz", "train/b.jsonl.gz", "dev/c.jsonl.gz", "test/d.jsonl.gz")
    for n, name in enumerate(names):
        write_jsonl(source / (name if folders else name.replace("/", "_")), texts[n * 50 :][:50])
    pod.prepare("proofpile", source, *BYTES)
    files = pod.files("proofpile")
    assert files["train.bin"] == joined(texts[:100])
    assert files["val.bin"] == joined(texts[100:150])


@pytest.mark.parametrize(("share", "tool"), [(0.25, ""), (0.0001, ""), (0.1, "--no-shuffle")])
def test_a_subset_is_the_beginning_of_each_split_and_never_empty(
    pod: Pod, texts: list[str], share: float, tool: str
) -> None:
    source = write_files(pod.root / "in", texts, "jsonl", count=4)
    pod.prepare("openwebtext", source, *BYTES, "--subset", share, *tool.split(), "--num-proc", 2)
    count = math.ceil(0.0005 * len(texts))
    train, val = (texts[:-count], texts[-count:]) if tool else split(texts)
    files = pod.files("openwebtext")
    assert files["train.bin"] == joined(train[: max(1, int(len(train) * share))])
    assert files["val.bin"] == joined(val[: max(1, int(len(val) * share))])


def test_what_is_prepared_says_what_it_has(pod: Pod, texts: list[str]) -> None:
    source = write_files(pod.root / "in", texts[:300], "jsonl")
    done = pod.prepare("openwebtext", source, *BYTES)
    train, val = split(texts[:300])
    assert f"train has {len(joined(train)):,} tokens" in done.stdout
    head = json.loads((pod.data / "openwebtext/.tieredstore.json").read_bytes())
    facts = head["recipe"]["facts"]
    assert (facts["train_documents"], facts["val_documents"]) == (len(train), len(val))
    assert (facts["train_tokens"], facts["val_tokens"]) == (len(joined(train)), len(joined(val)))
    assert facts["bad_documents"] == 0


def test_a_preparer_of_ones_own_is_a_class_of_a_few_lines(pod: Pod, texts: list[str]) -> None:
    write_jsonl(pod.root / "in/notes.jsonl", texts[:40])
    (pod.root / "mine.py").write_text(
        "from datasets_prep import Corpus, Drawn\n\n"
        "class Mine(Corpus):\n"
        '    name, title, location = "mine", "My notes", "in"\n'
        '    tokenizers = ("byte",)\n'
        "    split = Drawn(0.25, seed=7)\n"
    )
    pod.run("prepare", "./mine.py:Mine", "--data-dir", pod.data)
    order = np.random.default_rng(7).permutation(40)
    files = pod.files("mine")
    assert files["val.bin"] == joined([texts[n] for n in order[:10]])
    assert files["train.bin"] == joined([texts[n] for n in order[10:]])


# -- what is there already ------------------------------------------------------------------------


def test_what_is_prepared_is_found_and_what_changes_is_prepared_again(
    pod: Pod, texts: list[str]
) -> None:
    source = write_files(pod.root / "in", texts[:100], "jsonl", count=2)
    pod.prepare("openwebtext", source, *BYTES)
    before = pod.files("openwebtext")
    assert "Using existing files" in pod.prepare("openwebtext", source, *BYTES).stdout
    assert "Using existing" not in pod.prepare("openwebtext", source, *BYTES, "--force").stdout
    assert pod.files("openwebtext") == before
    write_jsonl(source / "part-00002.jsonl", ["one more"])
    assert "Preparing again" in pod.prepare("openwebtext", source, *BYTES).stdout
    assert len(pod.files("openwebtext")["train.bin"]) != len(before["train.bin"])


def test_a_hit_is_quick_and_loads_nothing_heavy(pod: Pod, texts: list[str]) -> None:
    source = write_files(pod.root / "in", texts[:100], "parquet")
    pod.prepare("openwebtext", source, *BYTES)
    pod.env["PYTHONPROFILEIMPORTTIME"] = "1"
    done = pod.prepare("openwebtext", source, *BYTES)
    assert "Using existing files" in done.stdout
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.split("\n")}
    heavy = {"tiktoken", "datasets", "pyarrow", "numpy", "gigatoken", "tokenizers", "fsspec"}
    assert not loaded & heavy


# -- bad input ------------------------------------------------------------------------------------


def _cut_gzip(path: Path) -> str:
    data = gzip.compress(b"".join(b'{"text": "line %d"}\n' % n for n in range(9000)), mtime=0)
    path.with_suffix(".jsonl.gz").write_bytes(data[: len(data) // 2])
    return r"bad.jsonl.gz: line \d+: its compressed data is damaged or ends too early"


def _line(data: bytes, why: str) -> Callable[[Path], str]:
    def write(path: Path) -> str:
        rest = b"".join(b'{"text": "line %d"}\n' % n for n in range(8))
        path.with_suffix(".jsonl").write_bytes(rest + data + b"\n" + rest)
        return rf"bad.jsonl: line 9: {why}"

    return write


def _null_row(path: Path) -> str:
    write_parquet(path.with_suffix(".parquet"), ["a", "b", None])  # type: ignore[list-item]
    return "bad.parquet: row 3: column 'text' is null, expected text"


def _invalid_row(path: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = pa.array([b"fine", b"\xff\xfe", b"fine"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": values}), path.with_suffix(".parquet"))
    return "bad.parquet: row 2: no valid UTF-8"


BAD = {
    "a broken line": _line(b'{"text": "', "no valid JSON"),
    "no column": _line(b'{"body": "x"}', "has no column 'text'; there are 'body'"),
    "no text": _line(b'{"text": 3}', "column 'text' is a number, expected text"),
    "no object": _line(b"[1]", "no JSON object, but a list"),
    "invalid UTF-8": _line(b'{"text": "\xff"}', "no valid UTF-8"),
    "a null": _null_row,
    "an invalid row": _invalid_row,
}


@pytest.mark.parametrize("what", list(BAD))
def test_a_bad_document_is_named_or_passed_over(pod: Pod, what: str) -> None:
    (pod.root / "in").mkdir()
    expected = BAD[what](pod.root / "in/bad")
    options = PrepareOptions(source=str(pod.root / "in"), tokenizer="byte", data_dir=pod.data)
    with pytest.raises(SourceError, match=expected) as raised:
        prepare("openwebtext", options, _Silent())
    assert "--skip-bad-documents" in str(raised.value)
    skipping = PrepareOptions(
        source=str(pod.root / "in"), tokenizer="byte", data_dir=pod.data, skip_bad=1
    )
    console = _Silent()
    prepare("openwebtext", skipping, console)
    head = json.loads((pod.data / "openwebtext/.tieredstore.json").read_bytes())
    assert head["recipe"]["facts"]["bad_documents"] == 1
    assert any("passed over" in line for line in console.warnings)


class _Silent(Console):
    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def line(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        self.warnings.append(text)


WHOLLY_BAD: dict[str, Callable[[Path], str]] = {
    "a cut gzip": _cut_gzip,
    "an empty gzip": lambda p: str(p.with_suffix(".jsonl.gz").touch() or "bad.jsonl.gz: is empty"),
    "no Parquet": lambda p: str(
        p.with_suffix(".parquet").write_bytes(b"PAR1") and "bad.parquet: no whole Parquet file"
    ),
    "another column": lambda p: str(
        p.with_suffix(".json").write_text('[{"body": "x"}]') and "bad.json: line 1: has no column"
    ),
    "a broken array": lambda p: str(
        p.with_suffix(".json").write_text('[{"text": "x"},\n\n{]') and "bad.json: line 3: no valid"
    ),
    "no documents": lambda p: str(
        p.with_suffix(".jsonl").write_text("\n\n") and "its files hold no documents"
    ),
    "no rows": lambda p: str(
        write_parquet(p.with_suffix(".parquet"), []) and "its files hold no documents"
    ),
    "no files": lambda p: str(p.with_suffix(".csv").write_text("x") and "no files with documents"),
    "one document": lambda p: str(
        p.with_suffix(".jsonl").write_text('{"text": "x"}\n') and "none are left for training"
    ),
}


@pytest.mark.parametrize("what", list(WHOLLY_BAD))
def test_input_that_cannot_be_read_is_an_error_in_one_line(pod: Pod, what: str) -> None:
    (pod.root / "in").mkdir()
    expected = WHOLLY_BAD[what](pod.root / "in/bad")
    options = PrepareOptions(source=str(pod.root / "in"), tokenizer="byte", data_dir=pod.data)
    with pytest.raises(SourceError, match=expected) as raised:
        prepare("openwebtext", options, _Silent())
    assert "\n" not in str(raised.value)


def shards_in(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_ino for path in folder.rglob("openwebtext-shards/*/tokens.bin")}


def test_what_was_done_is_kept_when_a_later_file_is_bad(pod: Pod, texts: list[str]) -> None:
    source = write_files(pod.root / "in", texts, "jsonl", count=4)
    whole = (source / "part-00003.jsonl").read_bytes()
    (source / "part-00003.jsonl").write_bytes(whole + b"{\n")
    failed = pod.prepare("openwebtext", source, *BYTES, code=1)
    assert "part-00003.jsonl: line" in failed.stderr
    kept = shards_in(pod.data)
    assert kept
    (source / "part-00003.jsonl").write_bytes(whole)
    pod.prepare("openwebtext", source, *BYTES, "--keep-shards")
    assert kept.items() <= shards_in(pod.data).items()
    assert pod.files("openwebtext")["train.bin"] == joined(split(texts)[0])


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield disk  # type: ignore[misc]
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_keeps_what_was_done(pod: Pod, texts: list[str], small_disk: Path) -> None:
    source = write_files(pod.root / "in", texts, "jsonl", count=4)
    pod.data = small_disk
    failed = pod.prepare("openwebtext", source, *BYTES, code=1)
    assert "No space left" in failed.stderr or "no room" in failed.stderr
    kept = shards_in(small_disk)
    assert kept
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    pod.prepare("openwebtext", source, *BYTES, "--keep-shards")
    assert kept.items() <= shards_in(small_disk).items()
    assert pod.files("openwebtext")["train.bin"] == joined(split(texts)[0])
