"""Tokens in each format, as somebody else reads them."""

from __future__ import annotations

import ast
import enum
import functools
import importlib.util
import logging
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets_prep import OptionError, formats
from datasets_prep.formats import megatron
from datasets_prep.formats.npy import NpyWriter
from datasets_prep.meta import TYPES
from datasets_prep.tokenizers import Encoded
from tieredstore import open_store

budget = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
dtypes = st.sampled_from(sorted(TYPES))
corpora = st.lists(st.lists(st.integers(0, 255), max_size=9), max_size=20)


def batches(documents, dtype, size=3):
    for begin in range(0, len(documents), size):
        part = documents[begin : begin + size]
        tokens = np.array([n for each in part for n in each], dtype=TYPES[dtype])
        yield Encoded(tokens, np.array([len(each) for each in part], dtype=np.int64))


def write(made, documents, dtype):
    with made as writer:
        for batch in batches(documents, dtype):
            writer.write(batch)
    return writer.facts()


def read_megatron(prefix):
    """A reader from the description of the format, of Python alone."""
    data, bin_ = Path(f"{prefix}.idx").read_bytes(), Path(f"{prefix}.bin").read_bytes()
    assert data[:9] == b"MMIDIDX\x00\x00"
    version, code, count, documents = struct.unpack("<QBQQ", data[9:34])
    assert (version, documents) == (1, count + 1)
    letter = {1: "B", 4: "i", 8: "H"}[code]
    lengths = struct.unpack(f"<{count}i", data[34 : 34 + 4 * count])
    rest = struct.unpack(f"<{2 * count + 1}q", data[34 + 4 * count :])
    assert rest[count:] == tuple(range(count + 1))
    width = struct.calcsize(letter)
    return [
        list(struct.unpack(f"<{n}{letter}", bin_[at : at + n * width]))
        for at, n in zip(rest[:count], lengths, strict=True)
    ]


@budget
@given(documents=corpora, dtype=dtypes)
def test_every_format_is_read_back(documents, dtype, tmp_path):
    flat = [n for each in documents for n in each]
    for name in formats.FORMATS:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        facts = write(formats.writer(name, folder, "val", dtype), documents, dtype)
        digest = xxhash.xxh3_128_hexdigest(np.array(flat, dtype=TYPES[dtype]).tobytes())
        assert facts == {
            "val_tokens": len(flat),
            "val_documents": len(documents),
            "val_xxh3": digest,
        }
        for file in formats.required(name, ("val",)):
            assert file == "meta.pkl" or (folder / file).is_file()
    assert np.fromfile(tmp_path / "nanogpt/val.bin", dtype=TYPES[dtype]).tolist() == flat
    assert read_megatron(tmp_path / "megatron/val") == documents
    found = np.load(tmp_path / "npy/val_000000.npy")
    assert found.dtype.name == dtype
    assert found.tolist() == flat
    assert sorted(path.name for path in (tmp_path / "megatron").iterdir()) == ["val.bin", "val.idx"]


@budget
@given(documents=corpora, shard=st.integers(1, 30))
def test_arrays_in_shards_are_full_but_for_the_last(documents, shard, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write(NpyWriter(folder, "train", "uint16", shard), documents, "uint16")
    parts = [np.load(path) for path in sorted(folder.glob("train_*.npy"))]
    flat = [n for each in documents for n in each]
    assert [n for part in parts for n in part.tolist()] == flat
    assert all(len(part) == shard for part in parts[:-1])
    assert len(parts) == max(1, -(-len(flat) // shard))
    for path in folder.iterdir():
        np.lib.format.open_memmap(path, mode="r") if len(np.load(path)) else None


def test_a_bin_composed_of_shards_gets_the_same_index(tmp_path):
    documents = [[n % 7] * (n % 5) for n in range(100)]
    write(formats.writer("megatron", tmp_path, "train", "uint16"), documents, "uint16")
    store = open_store({"tier": [{"name": "a", "backend": "local", "path": str(tmp_path / "s")}]})
    lengths = []
    for number, batch in enumerate(batches(documents, "uint16", 17)):
        with store.create(f"shard-{number}") as stage:
            (stage.path / "tokens.bin").write_bytes(batch.tokens.tobytes())
        lengths.append(batch.lengths)
    sources = [(f"shard-{number}", "tokens.bin") for number in range(len(lengths))]
    store.compose("whole.bin", sources)
    with store.restore("whole.bin") as got, got.open("whole.bin") as file:
        assert file.read() == (tmp_path / "train.bin").read_bytes()
    formats.write_index(tmp_path / "again.idx", "uint16", lengths, len(documents))
    assert (tmp_path / "again.idx").read_bytes() == (tmp_path / "train.idx").read_bytes()


def test_large_tokens_are_what_megatron_reads_as_int32(tmp_path):
    documents = [[199_999, 5], [], [70_000]]
    write(formats.writer("megatron", tmp_path, "train", "uint32"), documents, "uint32")
    assert read_megatron(tmp_path / "train") == documents


def test_megatrons_own_reader_agrees(tmp_path):
    """Its two classes as they stand in the package, which as a whole needs torch and a GPU."""
    spec = importlib.util.find_spec("megatron")
    if spec is None:
        pytest.skip("megatron-core is not installed")
    (root,) = spec.submodule_search_locations
    source = Path(root, "core/datasets/indexed_dataset.py").read_text()
    known = {"Enum": enum.Enum, "lru_cache": functools.lru_cache, "numpy": np, "struct": struct}
    known |= {"time": time, "logger": None, "logging": logging, "log_single_rank": lambda *_: None}
    known |= {"_INDEX_HEADER": b"MMIDIDX\x00\x00"}
    wanted = {"DType", "_IndexReader"}
    tree = ast.parse("from __future__ import annotations")
    tree.body += [n for n in ast.parse(source).body if getattr(n, "name", "") in wanted]
    exec(compile(tree, "indexed_dataset", "exec"), known)
    documents = [[n % 1000] * (n % 300) for n in range(500)]
    for dtype in ("uint16", "uint32"):
        write(formats.writer("megatron", tmp_path, "train", dtype), documents, dtype)
        index = known["_IndexReader"](str(tmp_path / "train.idx"), False)
        data = (tmp_path / "train.bin").read_bytes()
        assert len(index) == len(documents)
        assert index.document_indices.tolist() == list(range(len(documents) + 1))
        for number, expected in enumerate(documents):
            pointer, length, mode = index[number]
            assert mode is None
            found = np.frombuffer(data, dtype=index.dtype, count=length, offset=pointer)
            assert found.tolist() == expected


def test_what_does_not_fit_is_refused(tmp_path):
    batch = Encoded(np.array([1, 2], dtype="<u2"), np.array([1, 1]))
    with pytest.raises(OptionError, match="expected one of nanogpt, megatron, npy"):
        formats.writer("tfrecord", tmp_path, "train", "uint16")
    with pytest.raises(OptionError, match="expected one of uint8"):
        formats.writer("npy", tmp_path, "train", "int64")
    for name in formats.FORMATS:
        with formats.writer(name, tmp_path, "train", "uint32") as writer:
            with pytest.raises(OptionError, match="tokens are uint16, expected uint32"):
                writer.write(batch)
        with formats.writer(name, tmp_path, "train", "uint16") as writer:
            with pytest.raises(OptionError, match="2 tokens, but their documents have 1"):
                writer.write(Encoded(batch.tokens, batch.lengths[:1]))
    for documents in (1, 3):
        with pytest.raises(OptionError, match="lengths"):
            formats.write_index(tmp_path / "x.idx", "uint16", [batch.lengths], documents)
    with pytest.raises(OptionError, match="a document of 2147483648 tokens"):
        formats.write_index(tmp_path / "x.idx", "uint16", [np.array([1 << 31])], 1)


def test_an_error_leaves_no_index(tmp_path):
    def fail():
        with formats.writer("megatron", tmp_path, "train", "uint16") as writer:
            writer.write(next(batches([[1, 2]], "uint16")))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["train.bin"]


def test_more_lengths_than_are_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(megatron, "_CHUNK", 7)
    documents = [[1] * (n % 3) for n in range(50)]
    write(formats.writer("megatron", tmp_path, "train", "uint8"), documents, "uint8")
    assert read_megatron(tmp_path / "train") == documents
