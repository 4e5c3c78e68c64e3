"""Files that another generation left in an artifact's folder never count as those of this one."""

from pathlib import Path

import pytest

from tieredstore import TieredStore, local_tier
from tieredstore.backends.local import LocalBackend
from tieredstore.tiers.tier import Tier

FILES = ("data.bin", "index.bin")


def bytes_of(tag: str, file: str) -> bytes:
    return f"{tag} of {file}".encode() * 1000  # the same length, whatever the tag


def recipe(tag: str) -> dict[str, object]:
    return {"preparer": "test", "options": {"tag": tag}}


@pytest.fixture
def store(tmp_path: Path) -> TieredStore:
    volume = Tier("volume", LocalBackend(str(tmp_path / "volume")), durable=True)
    store = TieredStore([local_tier(tmp_path / "first"), volume])
    make(store, "one")
    store.promote("set")
    return store


def make(store: TieredStore, tag: str) -> None:
    with store.create("set", recipe=recipe(tag)) as stage:
        for file in FILES:
            (stage.path / file).write_bytes(bytes_of(tag, file))


def read(store: TieredStore, tag: str) -> dict[str, bytes]:
    found = {}
    with store.restore("set", recipe=recipe(tag)) as got:
        for file in FILES:
            with got.open(file) as opened:
                found[file] = opened.read()
    return found


def test_some_files_restored_in_place_of_a_generation_with_files_of_the_same_size(
    store: TieredStore, tmp_path: Path
) -> None:
    make(store, "two")
    (tmp_path / "first" / "set" / "mine.py").write_text("print('mine')\n")
    store.restore("set", files=["index.bin"], recipe=recipe("one")).close()
    assert store.locate("set")[0].state == "partial"
    assert read(store, "one") == {file: bytes_of("one", file) for file in FILES}
    assert (tmp_path / "first" / "set" / "mine.py").read_text() == "print('mine')\n"


def test_some_files_restored_where_a_filling_was_given_up(
    store: TieredStore, tmp_path: Path
) -> None:
    filling = store.fill("set", list(FILES), recipe=recipe("two"))
    written = filling.temporary("data.bin")
    written.write_bytes(bytes_of("two", "data.bin"))
    filling.put("data.bin", written)
    store.restore("set", files=["index.bin"], recipe=recipe("one")).close()
    assert read(store, "one") == {file: bytes_of("one", file) for file in FILES}
