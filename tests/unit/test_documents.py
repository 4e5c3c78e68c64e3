"""Documents of every format: all of them, once, in order, however files are cut."""

import gzip
import io
import json
import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_prep import SourceError, documents
from tieredstore import open_source

_CHANCE = random.Random(3)
TEXTS = [
    "é\n" * _CHANCE.randrange(40) + "x" * _CHANCE.randrange(300) + f" \U0001f600 {n}"
    for n in range(400)
] + ["", "last"]


def _lines(texts: list[str]) -> bytes:
    rows = (json.dumps({"n": 1, "text": t}, ensure_ascii=n % 2 == 0) for n, t in enumerate(texts))
    return "".join(row + ("\n\n" if n % 7 == 0 else "\r\n") for n, row in enumerate(rows)).encode()


def _zstd(data: bytes) -> bytes:
    parts = [data[: len(data) // 2], data[len(data) // 2 :]]
    return b"".join(pa.compress(part, codec="zstd", asbytes=True) for part in parts)


def _parquet(kind: pa.DataType, rows: int) -> bytes:
    file = io.BytesIO()
    values = pa.array(TEXTS).cast(kind)
    table = pa.table({"n": range(len(TEXTS)), "text": values})
    pq.write_table(table, file, row_group_size=rows)
    return file.getvalue()


FILES = {
    "a.jsonl": _lines(TEXTS),
    "no newline.jsonl": _lines(TEXTS).rstrip(),
    "mark.jsonl": b"\xef\xbb\xbf" + _lines(TEXTS),
    "lines.json": _lines(TEXTS),
    "a.jsonl.gz": gzip.compress(_lines(TEXTS)) + gzip.compress(b"\n"),
    "a.jsonl.zst": _zstd(_lines(TEXTS)),
    "a.json": json.dumps([{"text": text} for text in TEXTS]).encode(),
    "indented.json": json.dumps([{"text": text} for text in TEXTS], indent=1).encode(),
    "a.parquet": _parquet(pa.string(), 30),
    "large.parquet": _parquet(pa.large_string(), 1000),
    "dictionary.parquet": _parquet(pa.dictionary(pa.int32(), pa.string()), 100),
}


def read(folder: Path, size: int) -> tuple[list[str], list[str], int]:
    """The texts, what is bad, and the number of pieces."""
    source = open_source(str(folder))
    pieces = documents.cut(source, documents.chosen(source.files()), "text", size)
    batches = [batch for piece in pieces for batch in documents.read(source, piece)]
    bad = [str(each) for batch in batches for each in batch.bad]
    texts = [text for batch in batches for text in batch.texts]
    return [t if isinstance(t, str) else str(t, "utf-8") for t in texts], bad, len(pieces)


@pytest.mark.parametrize("size", [64, 5000, 1 << 20])
@pytest.mark.parametrize("name", list(FILES))
def test_every_document_is_read_once_and_in_order(tmp_path: Path, name: str, size: int) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    texts, bad, pieces = read(tmp_path, size)
    assert texts == TEXTS
    assert not bad
    cut = name.endswith((".jsonl", "lines.json")) or name in {"a.parquet", "dictionary.parquet"}
    assert pieces > 1 if cut and size < 10_000 else pieces == 1


def test_small_files_share_a_piece_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for number, text in enumerate(TEXTS[:50]):
        (tmp_path / f"{number:03d}.txt").write_text(text)
    (tmp_path / ".hidden.txt").write_text("hidden")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    texts, _, pieces = read(tmp_path, 4000)
    assert texts == TEXTS[:50]
    assert 1 < pieces < 10


def test_parquet_counts_before_descriptions_in_json(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(FILES["a.parquet"])
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert read(tmp_path, 1 << 20)[0] == TEXTS


def test_bad_lines_are_named_and_the_others_read(tmp_path: Path) -> None:
    good = '{"text": "fine"}\n' * 500
    (tmp_path / "a.jsonl").write_text(good + "{\n" + good + '{"t": 1}\n' + good)
    texts, bad, pieces = read(tmp_path, 1000)
    assert len(texts) == 1500
    assert pieces > 5
    first, second = bad
    assert first.startswith("a.jsonl: line 501: no valid JSON: Expecting property name")
    assert second == "a.jsonl: line 1002: has no column 'text'; there are 't'"


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.json", "a.parquet"])
def test_a_file_cut_anywhere_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    data = FILES[name]
    for part in (1, len(data) // 3, len(data) - 1):
        (tmp_path / name).write_bytes(data[:part])
        with pytest.raises(SourceError, match=name):
            read(tmp_path, 1 << 20)


def test_a_column_that_is_no_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet: column 'text' is int64, expected text"):
        read(tmp_path, 1 << 20)
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="has no column 'text'; there are body"):
        read(tmp_path, 1 << 20)


def test_an_element_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    large = "y" * (5 << 20)
    (tmp_path / "a.json").write_text(json.dumps([{"text": "x"}, {"text": large}, {"text": "z"}]))
    assert read(tmp_path, 1 << 20)[0] == ["x", large, "z"]


def test_pieces_do_not_depend_on_a_few_further_files() -> None:
    assert documents.size_of_piece(100) == documents.SMALLEST
    assert documents.size_of_piece(300_000_000) == documents.size_of_piece(330_000_000)


def test_reading_does_not_hold_a_file_in_memory(tmp_path: Path) -> None:
    """Forty times what is read at once, in a process of its own."""
    import subprocess

    with gzip.open(tmp_path / "a.jsonl.gz", "wt", compresslevel=1) as file:
        for number in range(2000):
            file.write(json.dumps({"text": f"{number} " * 8000}) + "\n")
    code = (
        "import pathlib, re, sys\n"
        "from datasets_prep import documents\n"
        "from tieredstore import open_source\n"
        "import pyarrow.parquet\n"
        "def most():  # not ru_maxrss: a process begins with what the one that started it had\n"
        "    status = pathlib.Path('/proc/self/status').read_text()\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+)', status)[1])\n"
        "before = most()\n"
        "source = open_source(sys.argv[1])\n"
        "[piece] = documents.cut(source, source.files(), 'text')\n"
        "size = sum(batch.length for batch in documents.read(source, piece))\n"
        "assert size > 70_000_000, size\n"
        "assert most() - before < 40_000, (before, most())\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
