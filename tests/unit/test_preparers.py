"""Preparers by name: built in without metadata, others from what is installed, one at a time."""

import sys
from pathlib import Path

import pytest

from datasets_prep import OptionError, PrepareOptions, UnknownDataset, prepare, preparers
from tieredstore import open_store

PLUGIN = """
from datasets_prep import Preparer, Source

class Tiny(Preparer):
    name = "{name}"
    title = "Tiny"
    tokenizers = ("byte",)

    def source(self):
        return Source("a constant", lambda: b"0123456789" * 10)

    def prepare(self, data, folder, choice):
        (folder / "train.bin").write_bytes(data[:90])
        (folder / "val.bin").write_bytes(data[90:])
        (folder / "meta.pkl").write_bytes(b"N.")
        return {{"train_tokens": 90, "val_tokens": 10}}

class NoPreparer:
    pass
"""


def install(site: Path, distribution: str, module: str, points: str, name: str = "tiny") -> None:
    folder = site / f"{distribution}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[datasets_prep.preparers]\n{points}\n")
    (site / f"{module}.py").write_text(PLUGIN.format(name=name))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "repo").mkdir()
    monkeypatch.chdir(tmp_path / "repo")
    monkeypatch.setenv("TIEREDSTORE_RUNPOD_VOLUME", str(tmp_path / "none"))
    monkeypatch.delenv("TIEREDSTORE_CONFIG", raising=False)
    return tmp_path / "site"


def test_a_plugin_is_prepared_like_any_other(site: Path) -> None:
    install(site, "tiny-data", "tiny_data_one", "tiny = tiny_data_one:Tiny")
    assert preparers.names() == sorted({*preparers.names(), *preparers.BUILT_IN, "tiny"})
    assert "tiny_data_one" not in sys.modules
    done = prepare("tiny")
    assert (done.action, done.train_tokens, done.val_tokens) == ("prepared", 90, 10)
    assert prepare("tiny").action == "hit"
    assert open_store().locate("tiny")[0].recipe.options == {"subset": 1.0, "tokenizer": "byte"}
    with pytest.raises(OptionError, match="expected one of byte"):
        prepare("tiny", PrepareOptions(tokenizer="gpt2"))


def test_no_other_plugin_is_loaded(site: Path) -> None:
    install(site, "tiny-data", "tiny_data_two", "tiny = tiny_data_two:Tiny\nbad = no_such:Bad")
    assert preparers.load("tiny").title == "Tiny"
    assert preparers.load("pydoc_topics").name == "pydoc_topics"
    with pytest.raises(OptionError, match="cannot be loaded: No module named 'no_such'"):
        preparers.load("bad")


def test_a_clash_of_names_is_an_error(site: Path) -> None:
    install(site, "tiny-data", "tiny_data_three", "tiny = tiny_data_three:Tiny")
    install(site, "other-data", "tiny_data_four", "tiny = tiny_data_four:Tiny")
    with pytest.raises(OptionError, match="offered by tiny_data_four:Tiny and by tiny_data_three"):
        preparers.load("tiny")


def test_a_built_in_name_cannot_be_taken(site: Path) -> None:
    install(site, "evil-data", "tiny_data_five", "shakespeare = tiny_data_five:Tiny")
    assert preparers.load("shakespeare").title == "Shakespeare"
    assert "tiny_data_five" not in sys.modules


def test_something_else_than_a_preparer_is_refused(site: Path) -> None:
    install(site, "tiny-data", "tiny_data_six", "tiny = tiny_data_six:NoPreparer")
    with pytest.raises(OptionError, match=r"no subclass of datasets_prep\.Preparer"):
        preparers.load("tiny")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownDataset, match=r"expected one of openwebtext, .*shakespeare"):
        preparers.load("nothing")
