"""A prepared dataset in other formats: the same tokens, cut into the same documents."""

from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest

from datasets_prep import OptionError, exporting, meta
from datasets_prep.exporting import ExportOptions, export
from tieredstore import open_store

EOT = 50256
DOCUMENTS = {
    "train": [[n % 999] * (n % 40) + [EOT] for n in range(500)],
    "val": [[1, 2, EOT], [EOT], [3]],  # the last without its end
}


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIEREDSTORE_CONFIG", raising=False)
    monkeypatch.setattr(exporting, "_CHUNK", 37)
    with open_store().create("small", {"preparer": "test"}) as stage:
        for split, documents in DOCUMENTS.items():
            tokens = [token for document in documents for token in document]
            (stage.path / f"{split}.bin").write_bytes(np.array(tokens, "<u2").tobytes())
        (stage.path / "meta.pkl").write_bytes(meta.dumps({"vocab_size": EOT + 1}))
        stage.facts["eot"] = EOT
    return tmp_path


def index(path):
    data = path.read_bytes()
    count = struct.unpack("<Q", data[18:26])[0]
    return list(struct.unpack(f"<{count}i", data[34 : 34 + 4 * count]))


def test_megatron_has_the_same_bytes_and_a_sequence_for_each_document(prepared):
    done = export("small", ExportOptions("megatron"))
    assert done.name == "small-megatron"
    with open_store().restore("small") as got:
        for split, documents in DOCUMENTS.items():
            for file in (f"{split}.bin", "meta.pkl"):
                assert (done.path / file).read_bytes() == (got.path / file).read_bytes()
            assert index(done.path / f"{split}.idx") == [len(each) for each in documents]
    (here,) = [w for w in open_store().locate("small-megatron") if w.present]
    facts = here.recipe.facts
    assert (facts["train_documents"], facts["val_documents"]) == (500, 3)
    assert (facts["val_tokens"], facts["eot"]) == (5, EOT)


def test_arrays_have_the_same_tokens(prepared):
    done = export("small", ExportOptions("npy"))
    for split, documents in DOCUMENTS.items():
        found = np.load(done.path / f"{split}_000000.npy").tolist()
        assert found == [token for document in documents for token in document]


def test_the_same_again_is_a_hit_until_the_dataset_changes(prepared, capsys):
    done = export("small", ExportOptions("npy"))
    before = (done.path / "meta.pkl").stat().st_ino
    assert (export("small", ExportOptions("npy")).path / "meta.pkl").stat().st_ino == before
    forced = export("small", ExportOptions("npy", force=True)).path / "meta.pkl"
    assert forced.stat().st_ino != before
    with open_store().restore("small") as got:
        val = (got.path / "val.bin").read_bytes()
    with open_store().create("small", {"preparer": "another"}) as stage:
        for file in ("train.bin", "val.bin"):
            (stage.path / file).write_bytes(val)
        (stage.path / "meta.pkl").write_bytes(meta.dumps({}))
    again = export("small", ExportOptions("npy", eot=EOT))
    assert np.load(again.path / "train_000000.npy").tobytes() == val


def test_what_cannot_be_exported_is_told(prepared):
    with pytest.raises(OptionError, match="expected one of megatron, npy"):
        ExportOptions("nanogpt")
    with pytest.raises(OptionError, match="prepare it first: datasets-prep prepare none"):
        export("none", ExportOptions("npy"))
    with open_store().create("chars", {"preparer": "test"}) as stage:
        for file in ("train.bin", "val.bin"):
            (stage.path / file).write_bytes(bytes(4))
        (stage.path / "meta.pkl").write_bytes(meta.dumps({}))
    with pytest.raises(OptionError, match=r"documents cannot be told apart.*--eot"):
        export("chars", ExportOptions("megatron"))
    assert index(export("chars", ExportOptions("megatron", eot=7)).path / "val.idx") == [2]


def test_a_document_without_an_end_is_told(prepared, monkeypatch):
    monkeypatch.setattr(exporting, "_LONGEST", 100)
    with pytest.raises(OptionError, match="100 tokens without a token 60000"):
        export("small", ExportOptions("npy", eot=60_000))


def test_the_command(prepared):
    words = [sys.executable, "-m", "datasets_prep.cli", "export", "small", "--format", "megatron"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert "small-megatron is in" in done.stdout
