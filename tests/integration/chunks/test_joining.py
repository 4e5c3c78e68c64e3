"""Parquet files joined by copying their row groups: what readers find is what was in the files."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_prep.chunks.footer import Footer, NotMovable
from datasets_prep.chunks.joining import Joinable, join
from datasets_prep.errors import MergeError
from tieredstore import CorruptData, TieredStore, local_tier

KINDS = {
    "plain": {"compression": "none", "use_dictionary": False, "write_statistics": False},
    "zstd": {"compression": "zstd"},
    "pages": {"data_page_version": "2.0", "data_page_size": 64, "write_page_index": True},
    "small-groups": {"row_group_size": 3},
    "sorted": {"sorting_columns": [pq.SortingColumn(0)], "compression": "gzip"},
    "checksums": {"write_page_checksum": True},
    "blooms": {"bloom_filter_options": {"word": {"ndv": 100}}},
    "flavour": {"flavor": "spark", "store_schema": False},
}


def table(start: int, rows: int) -> pa.Table:
    numbers = range(start, start + rows)
    return pa.table(
        {
            "n": pa.array([None if n % 5 == 0 else n for n in numbers], pa.int32()),
            "word": pa.array([f"w{n % 11}" for n in numbers], pa.string()),
            "words": pa.array([[str(n)] * (n % 3) for n in numbers], pa.list_(pa.string())),
            "more": pa.array(
                [{"a": n, "b": None if n % 2 else b"\0\1"} for n in numbers],
                pa.struct({"a": pa.int64(), "b": pa.binary()}),
            ),
            "price": pa.array(list(numbers), pa.decimal128(20)),
            "exact": pa.array(list(numbers), pa.int64()),
        }
    )


def plain(path: Path) -> Joinable:
    return Joinable(path, partial(path.open, "rb"))


def files(folder: Path, sizes: list[int], **options: object) -> list[Path]:
    paths, start = [], 0
    for number, rows in enumerate(sizes):
        paths.append(folder / f"{number}.parquet")
        pq.write_table(table(start, rows), paths[-1], **options)
        start += rows
    return paths


@pytest.mark.parametrize("kind", KINDS)
def test_readers_find_the_rows_of_all_files(tmp_path: Path, kind: str) -> None:
    paths = files(tmp_path, [10, 0, 7, 1, *[2] * 20], **KINDS[kind])
    target = tmp_path / "all.parquet"
    assert join([plain(path) for path in paths], target) == 58
    expected = pa.concat_tables([pq.read_table(path) for path in paths])
    assert pq.read_table(target).equals(expected)
    assert pq.read_table(target, page_checksum_verification=True).equals(expected)
    found = pq.read_table(target, filters=[("exact", ">=", 17)])  # by statistics
    assert found["exact"].to_pylist() == list(range(17, 58))
    assert pq.read_table(target, columns=["word"]).equals(expected.select(["word"]))
    groups = sum(pq.read_metadata(path).num_row_groups for path in paths)
    assert pq.read_metadata(target).num_row_groups == groups


@pytest.mark.parametrize("reader", ["duckdb", "polars"])
def test_other_readers_find_the_same(tmp_path: Path, reader: str) -> None:
    module = pytest.importorskip(reader)
    paths = files(tmp_path, [100, 50, 7], compression="zstd", write_page_index=True)
    target = tmp_path / "all.parquet"
    join([plain(path) for path in paths], target)
    if reader == "duckdb":
        rows = module.sql(f"select n, word from '{target}' where exact >= 90").fetchall()
    else:
        scanned = module.scan_parquet(target).filter(module.col("exact") >= 90)
        rows = scanned.select("n", "word").collect().rows()
    assert rows == [(None if n % 5 == 0 else n, f"w{n % 11}") for n in range(90, 157)]


def test_a_joined_file_can_be_joined_again(tmp_path: Path) -> None:
    paths = files(tmp_path, [4, 5])
    once, twice = tmp_path / "once.parquet", tmp_path / "twice.parquet"
    join([plain(path) for path in paths], once)
    assert join([plain(once), plain(paths[0])], twice) == 13
    assert pq.read_table(twice)["exact"].to_pylist() == [*range(9), *range(4)]


def test_what_has_to_be_decoded_is_left_to_others(tmp_path: Path) -> None:
    one, other = files(tmp_path, [3, 3])
    pq.write_table(table(0, 3).rename_columns(["n", "w", "words", "more", "price", "exact"]), other)
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"PAR1 no")
    for wrong in (other, bad):
        with pytest.raises(NotMovable):
            join([plain(one), plain(wrong)], tmp_path / "all.parquet")


def test_the_same_types_written_otherwise_have_to_be_decoded(tmp_path: Path) -> None:
    one, other = tmp_path / "a.parquet", tmp_path / "b.parquet"
    times = pa.table({"at": pa.array([1, 2], pa.timestamp("ms"))})
    pq.write_table(times, one)
    pq.write_table(times, other, use_deprecated_int96_timestamps=True)
    with pytest.raises(NotMovable):
        join([plain(one), plain(other)], tmp_path / "all.parquet")


def test_a_footer_that_was_tampered_with_is_never_believed(tmp_path: Path) -> None:
    """Of bits that are flipped at random each is refused, or gives back every byte."""
    [path] = files(tmp_path, [20])
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - length : -8]
    assert Footer.parse(footer).emit() == footer
    dice = random.Random(1)
    for _ in range(500):
        worse = bytearray(footer)
        worse[dice.randrange(length)] ^= 1 << dice.randrange(8)
        try:
            assert Footer.parse(bytes(worse)).emit() == worse
        except NotMovable:
            continue
    for cut in range(length):
        with pytest.raises(NotMovable):
            Footer.parse(footer[:cut])


def test_damaged_bytes_are_never_copied(tmp_path: Path) -> None:
    store = TieredStore([local_tier(tmp_path / "data")])
    with store.create("set") as stage:
        pq.write_table(table(0, 2000), stage.path / "a.parquet")
    path = tmp_path / "data/set/set/a.parquet"
    path = path if path.exists() else next((tmp_path / "data").rglob("a.parquet"))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    source = Joinable(path, partial(store.open_stream, "set", "a.parquet"))
    with pytest.raises(CorruptData, match=r"a\.parquet"):
        join([source], tmp_path / "all.parquet")


def test_a_file_that_was_written_otherwise_than_read_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = files(tmp_path, [200])
    target = tmp_path / "all.parquet"
    opened = Path.open

    def worse(self: Path, mode: str = "r", *args: object) -> object:
        file = opened(self, mode, *args)
        if self == target and mode == "rb":
            with opened(target, "r+b") as damaged:
                damaged.seek(50)
                damaged.write(b"damage")
        return file

    monkeypatch.setattr(Path, "open", worse)
    with pytest.raises(MergeError, match="was written otherwise"):
        join([plain(path) for path in paths], target)
