"""A conversion to Parquet is published whole, or leaves what was there."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from datasets_prep import OptionError, SourceError
from datasets_prep.errors import MergeError
from datasets_prep.tabular import ParquetOptions, grouping, json_rows, to_parquet

ROWS = [{"id": n, "text": "wörd" * (n % 5), "x": {"l": [1, None, n]}} for n in range(1000)]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIEREDSTORE_RUNPOD_VOLUME", str(tmp_path / "none"))
    monkeypatch.delenv("TIEREDSTORE_CONFIG", raising=False)
    return tmp_path


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read(path="out.parquet"):
    return pq.read_table(path).to_pylist()


def test_row_groups_have_the_rows_that_were_asked_for(place, monkeypatch):
    monkeypatch.setattr(json_rows, "_BLOCK", 3000)
    (place / "a.jsonl").write_bytes(lines(ROWS))
    to_parquet("a.jsonl", "out.parquet", ParquetOptions(group_rows=300))
    meta = pq.ParquetFile("out.parquet").metadata
    assert [meta.row_group(n).num_rows for n in range(4)] == [300, 300, 300, 100]
    monkeypatch.setattr(grouping, "_GROUP", 10_000)
    to_parquet("a.jsonl", "out.parquet")
    meta = pq.ParquetFile("out.parquet").metadata
    assert meta.num_row_groups > 5
    assert read() == ROWS


def test_the_same_again_is_a_hit_and_another_input_is_not(place, capsys):
    (place / "a.jsonl").write_bytes(lines(ROWS))
    assert to_parquet("a.jsonl", "out.parquet").made
    before = os.stat("out.parquet").st_ino
    again = to_parquet("a.jsonl", "out.parquet")
    assert (again.made, again.rows, again.groups) == (False, len(ROWS), 1)
    assert os.stat("out.parquet").st_ino == before
    assert to_parquet("a.jsonl", "out.parquet", ParquetOptions(force=True)).made
    assert to_parquet("a.jsonl", "out.parquet", ParquetOptions(level=4)).made
    (place / "a.jsonl").write_bytes(lines(ROWS[:10]))
    assert to_parquet("a.jsonl", "out.parquet").rows == 10
    assert read() == ROWS[:10]


def test_a_file_that_something_else_made_is_not_replaced_unasked(place):
    (place / "a.jsonl").write_bytes(lines(ROWS))
    (place / "out.parquet").write_bytes(b"mine")
    with pytest.raises(OptionError, match=r"out.parquet: is there already.*--force"):
        to_parquet("a.jsonl", "out.parquet")
    assert (place / "out.parquet").read_bytes() == b"mine"
    to_parquet("a.jsonl", "out.parquet", ParquetOptions(force=True))
    assert read() == ROWS


def test_what_fails_leaves_the_file_that_was_there(place, monkeypatch):
    (place / "a.jsonl").write_bytes(lines(ROWS))
    to_parquet("a.jsonl", "out.parquet")
    (place / "a.jsonl").write_bytes(lines(ROWS) + b"no JSON\n")
    with pytest.raises(SourceError, match="line 1001"):
        to_parquet("a.jsonl", "out.parquet")
    assert read() == ROWS
    (place / "a.jsonl").write_bytes(lines(ROWS[:9]))
    kept = grouping.digest
    monkeypatch.setattr(grouping, "digest", lambda piece: kept(piece.slice(1)))  # a bit of memory
    with pytest.raises(MergeError, match="row group 0 was written otherwise than it was read"):
        to_parquet("a.jsonl", "out.parquet")
    assert read() == ROWS


def test_the_command_says_what_it_did_and_what_went_wrong(place):
    (place / "n.json").write_text(json.dumps({"v": ROWS}, indent=1))

    def run(*command):
        words = [sys.executable, "-m", "datasets_prep.cli", "parquet", *command]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    done = run("n.json", "out.parquet", "--field", "v", "--columns", "id", "--type", "id=float64")
    assert done.returncode == 0
    assert done.stdout.endswith("out.parquet: 1,000 rows in 1 row groups\n")
    assert read() == [{"id": float(row["id"])} for row in ROWS]
    for words, code, why in (
        (("n.json", "x.parquet"), 1, "n.json: line 1: "),
        (("n.json", "x.parquet", "--type", "id"), 2, "--type id: expected COLUMN=TYPE"),
        (("none.json", "x.parquet"), 1, "none.json"),
    ):
        done = run(*words)
        assert (done.returncode, done.stdout) == (code, "")
        assert why in done.stderr


# Not ``ru_maxrss``: a process begins with what the one that started it had.
MEMORY = r"""
import pathlib, re
import pyarrow
from datasets_prep.tabular import to_parquet
to_parquet("large.jsonl.gz", "out.parquet")
most = re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1]
print(most, pyarrow.default_memory_pool().max_memory())
"""


def test_memory_does_not_grow_with_the_input(place):
    """200 MB, of which no more than a few blocks and one row group are ever in memory."""
    row = json.dumps({"id": 1, "text": "some words that are repeated " * 300}) + "\n"
    with gzip.open("large.jsonl.gz", "wt", compresslevel=1) as file:
        for _ in range((200 << 20) // len(row) // 100):
            file.write(row * 100)
    words = [sys.executable, "-c", MEMORY]
    done = subprocess.run(words, capture_output=True, text=True, timeout=110, check=True)
    resident, arrow = map(int, done.stdout.split("\n")[-2].split())
    assert resident < 600 << 10
    assert arrow < 200 << 20
