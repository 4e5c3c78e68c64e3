"""Chunks become datasets: in order, whole, once; and are dropped only when that is safe."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets_prep.chunks import parquet
from datasets_prep.errors import MergeError

from .conftest import Project, items

TABLES = """
import os, pathlib, sys
import pyarrow as pa, pyarrow.parquet as pq

start, end = int(sys.argv[1]), int(sys.argv[2])
out = pathlib.Path(os.environ["PHASE1_OUTPUT_DIR"])
kind = pa.string() if os.environ.get("ODD") == str(start) else pa.int64()
table = pa.table({
    "item": pa.array([str(n) if kind == pa.string() else n for n in range(start, end + 1)], kind),
    "text": [None if n % 7 == 0 else f"item {n}" for n in range(start, end + 1)],
})
pq.write_table(table, out / f"rows_{start}.parquet", row_group_size=4)
(out / "activations").mkdir()
for n in range(start, end + 1):
    (out / "activations" / f"{n}.npy").write_bytes(bytes([n % 256]) * n)
(out / "notes.txt").write_text(f"from {start}")
"""


@pytest.fixture
def tables(project: Project) -> Project:
    (project.folder / "tables.py").write_text(TABLES)
    project.command = ["--", sys.executable, "tables.py", "{start}", "{end}"]
    return project


def datasets(project: Project, pattern: str) -> list[Path]:
    return sorted((project.folder / "data" / "phase1_0").glob(pattern))


def test_each_slice_becomes_a_dataset_and_other_files_lie_side_by_side(tables: Project) -> None:
    code, said = tables.run()
    assert code == 0, said
    first, second = datasets(tables, "dataset_gpu*.parquet")
    table = pa.concat_tables([pq.read_table(first), pq.read_table(second)])
    assert table["item"].to_pylist() == list(range(100))
    assert table["text"].to_pylist() == [None if n % 7 == 0 else f"item {n}" for n in range(100)]
    [one, other] = datasets(tables, "activations_gpu*")
    assert (one / "49.npy").read_bytes() == bytes([49]) * 49
    assert (other / "50.npy").exists()
    [notes, _] = datasets(tables, "files_gpu*")
    assert (notes / "chunk_00010-00019" / "notes.txt").read_text() == "from 10"
    assert "gpu0: merged 5 chunks, 50 rows" in said
    store = tables.store()
    for name in [n for n in store.names() if "chunks/" not in n]:
        assert [found.tier for found in store.verify(name) if found.ok] == ["local", "volume"]


def test_all_slices_become_one_in_order_and_once(tables: Project) -> None:
    assert tables.run("--merge", "all")[0] == 0
    code, said = tables.call("merge", "--phase", "1", "--merge", "all")
    assert code == 0
    assert "all: already merged into phase1_0/" in said
    [path] = datasets(tables, "dataset_all_*.parquet")
    assert pq.read_table(path)["item"].to_pylist() == list(range(100))


def test_missing_chunks_are_refused_unless_that_is_wanted(project: Project) -> None:
    project.run("--retries", "0", FAIL="10")
    code, said = project.call("merge", "--phase", "1")
    assert code == 1
    assert "1 of 10 chunks are missing (chunk_00010-00019)" in said
    assert not datasets(project, "dataset*")
    code, said = project.call("merge", "--phase", "1", "--allow-missing")
    assert code == 0, said
    assert "gpu0: merged 4 chunks, 1 chunks missing" in said
    [path] = datasets(project, "dataset_gpu0_*.bin")
    assert path.read_bytes() == items()[:40] + items()[80:200]


def test_chunks_of_another_schema_are_named(tables: Project) -> None:
    code, said = tables.run("--workers", "1", ODD="20")
    assert code == 1
    assert "rows_20.parquet: has item: string, text: string, expected item: int64" in said
    assert not datasets(tables, "dataset*")


def test_chunks_are_removed_when_their_merge_is_everywhere(project: Project) -> None:
    code, said = project.run("--cleanup")
    assert code == 0, said
    assert "10 chunks removed" in said
    store = project.store()
    assert [name for name in store.names() if "chunks/" in name] == []
    assert project.merged() == items()
    code, said = project.run()
    assert code == 0, said
    assert said.count("[SKIPPED - Already completed]") == 10
    assert len(project.notes()) == 10
    code, said = project.call("status", "--phase", "1")
    assert "10 of 10 chunks done (100 %)" in said


def test_chunks_stay_where_their_merge_cannot_be_kept(project: Project) -> None:
    assert project.run("--merge", "none")[0] == 0
    shutil.rmtree(project.folder / "volume")
    (project.folder / "volume").write_text("no folder any more")
    code, said = project.call("merge", "--phase", "1", "--cleanup")
    assert code == 1, said
    assert len([n for n in project.store().names() if "chunks/" in n]) == 10


def test_chunks_are_kept_for_a_while(project: Project) -> None:
    code, said = project.run("--keep-chunks", "7d")
    assert code == 0, said
    assert "0 chunks removed" in said
    code, said = project.call("merge", "--phase", "1", "--keep-chunks", "0s")
    assert code == 0, said
    assert "10 chunks removed" in said
    code, said = project.call("merge", "--phase", "1", "--merge", "all")
    assert code == 0
    assert "already merged" in said


def test_a_chunk_that_was_damaged_is_mended_from_another_tier(project: Project) -> None:
    assert project.run("--merge", "none")[0] == 0
    path = project.folder / "data/phase1_0/chunks/gpu0/chunk_00000-00009/data.bin"
    path.write_bytes(b"x" * path.stat().st_size)
    code, said = project.call("merge", "--phase", "1")
    assert code == 0, said
    assert project.merged() == items()


def test_a_chunk_that_is_damaged_everywhere_is_never_merged(tables: Project) -> None:
    assert tables.run("--merge", "none", "--workers", "1")[0] == 0
    for folder in ("data", "volume"):
        path = tables.folder / folder / "phase1_0/chunks/gpu0/chunk_00010-00019/rows_10.parquet"
        path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    code, said = tables.call("merge", "--phase", "1")
    assert code == 1
    assert "chunk_00010-00019" in said
    assert "rows_10.parquet" in said
    assert not datasets(tables, "dataset*")


# -- Parquet by itself ---------------------------------------------------------------------------


def table(start: int, rows: int) -> pa.Table:
    numbers = range(start, start + rows)
    return pa.table(
        {
            "n": pa.array([None if n % 5 == 0 else n for n in numbers], pa.int32()),
            "words": [[str(n)] * (n % 3) for n in numbers],
            "kind": pa.array([f"k{n % 4}" for n in numbers]).dictionary_encode(),
            "more": [{"a": n, "b": None if n % 2 else b"\0\1"} for n in numbers],
        }
    )


def test_rows_of_every_kind_come_through(tmp_path: Path) -> None:
    paths = []
    for number, rows in enumerate([10, 0, 7, 1]):
        paths.append(tmp_path / f"{number}.parquet")
        pq.write_table(table(number * 10, rows), paths[-1], row_group_size=3, compression="zstd")
    assert parquet.concatenate(paths, tmp_path / "all.parquet") == 18
    tables = [pq.read_table(path) for path in paths]
    expected = pa.concat_tables(tables, promote_options="default")  # of no rows the types are null
    assert pq.read_table(tmp_path / "all.parquet").equals(expected)
    found = pq.ParquetFile(tmp_path / "all.parquet").metadata
    assert found.row_group(0).column(0).compression == "ZSTD"


def test_large_row_groups_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_PIECE", 1000)
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for number, path in enumerate(paths):
        pq.write_table(table(number * 1000, 1000), path)
    assert parquet.concatenate(paths, tmp_path / "all.parquet") == 2000
    expected = pa.concat_tables([pq.read_table(path) for path in paths])
    assert pq.read_table(tmp_path / "all.parquet").equals(expected)
    assert pq.ParquetFile(tmp_path / "all.parquet").metadata.num_row_groups > 10


def test_what_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(MergeError, match=r"bad\.parquet: no Parquet file"):
        parquet.concatenate([tmp_path / "bad.parquet"], tmp_path / "all.parquet")


def test_a_file_that_was_written_otherwise_than_read_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(table(0, 10), tmp_path / "a.parquet")
    write = pq.ParquetWriter.write_table

    def worse(self: pq.ParquetWriter, piece: pa.Table, **options: object) -> None:
        write(self, piece.slice(0, 1).take([0] * piece.num_rows), **options)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", worse)
    with pytest.raises(MergeError, match="was written otherwise"):
        parquet.concatenate([tmp_path / "a.parquet"], tmp_path / "all.parquet")
