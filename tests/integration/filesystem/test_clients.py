"""Real clients, each as its users call it, on files that are only on the far tier."""

from __future__ import annotations

import io
import os
import random
import tarfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tieredstore.filesystem import TieredFileSystem

ROWS = 200_000


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(5)
    return pa.table(
        {
            "id": np.arange(ROWS),
            "wide": [f"{n:064d}" for n in rng.integers(0, 1 << 60, ROWS)],
            "value": rng.random(ROWS),
        }
    )


@pytest.fixture(scope="module")
def parquet(table):
    """A Parquet file of ten row groups, as bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=ROWS // 10, compression="none")
    return sink.getvalue()


@pytest.fixture
def options(config):
    """What is given to clients as ``storage_options``."""
    return {"config": config}


@pytest.fixture
def counted(load_server, config, quick_path, tmp_path):
    """Options with a web server of the far tier, and how many bytes it has sent of a file."""
    module = load_server("nginx")
    if module.missing():
        pytest.skip(module.missing())
    server = module.make(tmp_path / "nginx", quick_path / "far")
    server.start()
    far = {"name": "far", "backend": "http", "url": server.url}

    def sent():
        return sum(size for _, _, size, path in server.said() if path.endswith(".parquet"))

    yield {"config": {"tier": [config["tier"][0], far]}, "restore": "blocks"}, sent
    server.stop()


def test_pandas(fs, put_far, options):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "ß"]})
    frame.to_csv("tiered://out/a.csv", index=False, storage_options=options)
    frame.to_parquet("tiered://out/a.parquet", storage_options=options)
    fs.store.promote("out")
    fs.store.evict("out")
    assert fs.info("out/a.csv")["tiers"] == ["far"]
    for read, name in ((pd.read_csv, "a.csv"), (pd.read_parquet, "a.parquet")):
        assert read(f"tiered://out/{name}", storage_options=options).equals(frame)


def test_arrow_datasets_fetch_the_column_chunks_that_a_filter_needs(
    put_far, parquet, table, counted
):
    put_far("set", {"part.parquet": parquet})
    options, sent = counted
    tiered = TieredFileSystem(**options, skip_instance_cache=True)
    dataset = ds.dataset("set", format="parquet", filesystem=tiered)
    wanted = ds.field("id") >= ROWS - 5
    found = dataset.to_table(columns=["value"], filter=wanted, use_threads=False)
    assert found["value"].to_pylist() == table["value"][-5:].to_pylist()
    assert sent() < len(parquet) / 3, f"{sent()} of {len(parquet)} bytes"
    before = sent()
    dataset.to_table(columns=["value"], filter=wanted)
    assert sent() == before, "what was read is kept"
    assert dataset.to_table().equals(table)
    assert sent() < len(parquet) + (1 << 20)


def test_arrow_writes_datasets(fs, table):
    ds.write_dataset(table, "made", format="parquet", filesystem=fs, partitioning=None)
    assert ds.dataset("made", filesystem=fs).to_table().sort_by("id").equals(table)
    assert all(v.ok for v in fs.store.verify("made"))


def test_duckdb(put_far, parquet, fs):
    duckdb = pytest.importorskip("duckdb")
    put_far("set", {"part.parquet": parquet})
    with duckdb.connect() as connection:
        connection.register_filesystem(fs)
        query = "SELECT count(*), max(id) FROM read_parquet('tiered://set/*.parquet') WHERE id > 9"
        assert connection.sql(query).fetchall() == [(ROWS - 10, ROWS - 1)]
        connection.sql("COPY (SELECT 1 AS one) TO 'tiered://out/a.parquet' (FORMAT parquet)")
    assert pq.read_table("out/a.parquet", filesystem=fs).to_pylist() == [{"one": 1}]


def test_polars(put_far, parquet, table, options):
    pl = pytest.importorskip("polars")
    put_far("set", {"part.parquet": parquet})
    with fsspec.open("tiered://set/part.parquet", "rb", **options) as file:
        found = pl.read_parquet(file, columns=["id"])
    assert found["id"].to_list() == table["id"].to_pylist()
    with fsspec.open("tiered://out/p.parquet", "wb", **options) as file:
        found.write_parquet(file)
    fs = TieredFileSystem(**options)
    scanned = pl.scan_pyarrow_dataset(ds.dataset("out/p.parquet", filesystem=fs))
    assert scanned.filter(pl.col("id") < 3).collect()["id"].to_list() == [0, 1, 2]


def test_hugging_face_datasets(put_far, parquet, options, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    put_far("set", {"part.parquet": parquet})
    how = {
        "data_files": "tiered://set/part.parquet",
        "storage_options": options,
        "cache_dir": str(tmp_path),
        "split": "train",
    }
    streamed = datasets.load_dataset("parquet", streaming=True, **how)
    assert [row["id"] for row in streamed.take(3)] == [0, 1, 2]
    loaded = datasets.load_dataset("parquet", **how)
    assert loaded.num_rows == ROWS
    assert loaded[-1]["id"] == ROWS - 1


def test_zarr(fs, options):
    zarr = pytest.importorskip("zarr")
    values = np.arange(10_000).reshape(100, 100)
    made = zarr.create_array(
        "tiered://grid/a.zarr", shape=(100, 100), chunks=(10, 10), dtype="i8",
        storage_options=options,
    )  # fmt: skip
    made[:] = values
    fs.store.promote("grid")
    fs.store.evict("grid")
    again = zarr.open_array("tiered://grid/a.zarr", mode="r+", storage_options=options)
    assert (again[:] == values).all()
    again[5, 5] = -1
    assert zarr.open_array("tiered://grid/a.zarr", mode="r", storage_options=options)[5, 5] == -1
    assert all(v.ok for v in fs.store.verify("grid", ["near"]))


def test_numpy_maps_what_was_restored(fs, put_far):
    put_far("set", {"a.bin": np.arange(100_000, dtype=np.uint16).tobytes()})
    mapped = np.memmap(fs.local_path("set/a.bin"), dtype=np.uint16, mode="r")
    assert (mapped == np.arange(100_000, dtype=np.uint16)).all()


def test_tar_files_are_read_as_streams(fs, put_far):
    files = {f"{n:05d}.{end}": os.urandom(500) for n in range(50) for end in ("jpg", "cls")}
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    put_far("shards", {"000.tar": sink.getvalue()})
    with fs.open("shards/000.tar") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        assert {m.name: archive.extractfile(m).read() for m in archive} == files


def test_torch_loads_with_worker_processes(make_fs, put_far):
    torch = pytest.importorskip("torch")
    put_far("set", {f"{n}": b"%d" % n * 100 for n in range(16)})
    fs = make_fs(restore="blocks")
    assert fs.exists("set/3")

    class Files(torch.utils.data.Dataset):
        def __len__(self):
            return 16

        def __getitem__(self, number):
            return len(fs.cat_file(f"set/{number}"))

    loader = torch.utils.data.DataLoader(Files(), batch_size=4, num_workers=2)
    assert sum(int(batch.sum()) for batch in loader) == sum(len(b"%d" % n) * 100 for n in range(16))


def test_copies_tell_how_far_they_are(fs, put_far, tmp_path):
    data = random.Random(1).randbytes(300_000)
    put_far("set", {"a": data})
    told = fsspec.callbacks.Callback()
    fs.get("set/a", str(tmp_path / "a"), callback=told)
    assert (tmp_path / "a").read_bytes() == data
    fs.put(str(tmp_path / "a"), "other/b", callback=(sent := fsspec.callbacks.Callback()))
    assert fs.cat_file("other/b") == data
    assert told.size == sent.size == 1
    fs.mv("other/b", "other/c")
    assert fs.find("other") == ["other/c"]
