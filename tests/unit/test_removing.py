"""Removing for good, and claims: from every tier or none, held by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tieredstore import (
    ArtifactNotFound,
    Tier,
    TieredStore,
    TierUnavailable,
    Unsupported,
    local_tier,
)
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.backends.local import LocalBackend


def made(tmp_path: Path, *, read_only: bool = False) -> TieredStore:
    volume = LocalBackend(str(tmp_path / "volume"))
    memory = FsspecBackend(f"memory://{tmp_path}")
    return TieredStore(
        [
            local_tier(tmp_path / "data"),
            Tier("volume", volume, durable=True, read_only=read_only),
            Tier("memory", memory, durable=True),
        ]
    )


@pytest.fixture
def store(tmp_path: Path) -> TieredStore:
    store = made(tmp_path)
    with store.create("a/words") as stage:
        (stage.path / "x").write_text("x")
    (tmp_path / "data" / "a" / "words" / "mine.txt").write_text("mine")
    store.promote("a/words")
    return store


def states(store: TieredStore) -> list[str]:
    return [where.state for where in store.locate("a/words")]


def test_removed_from_every_tier_and_what_is_not_its_own_stays(
    store: TieredStore, tmp_path: Path
) -> None:
    assert store.remove("a/words") == ["local", "volume", "memory"]
    assert [s for s in states(store) if s in {"whole", "partial"}] == []
    assert (tmp_path / "data" / "a" / "words" / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "data" / "a" / "words" / "x").exists()
    with pytest.raises(ArtifactNotFound):
        store.restore("a/words", ["x"])


def test_removed_from_the_named_tiers_only(store: TieredStore) -> None:
    assert store.remove("a/words", ["volume"]) == ["volume"]
    assert states(store) == ["whole", "absent", "whole"]
    with pytest.raises(ArtifactNotFound, match="no tier"):
        store.remove("a/words", ["volume"])


def test_nothing_is_removed_where_a_tier_that_has_it_is_read_only(
    store: TieredStore, tmp_path: Path
) -> None:
    closed = made(tmp_path, read_only=True)
    with pytest.raises(Unsupported, match="volume"):
        closed.remove("a/words")
    assert states(closed) == ["whole", "whole", "whole"]
    assert closed.remove("a/words", ["local", "memory"]) == ["local", "memory"]


def test_a_tier_that_cannot_be_reached_is_said(store: TieredStore, tmp_path: Path) -> None:
    gone = TieredStore(
        [local_tier(tmp_path / "data"), Tier("far", FsspecBackend("ftp://127.0.0.1:9/x"))]
    )
    with pytest.raises(TierUnavailable, match="removed from local, not from all"):
        gone.remove("a/words")
    assert gone.locate("a/words")[0].head is None


def test_one_of_two_has_the_claim(store: TieredStore, tmp_path: Path) -> None:
    with store.claim("chunk/1") as mine, made(tmp_path).claim("chunk/1") as other:
        assert (mine, other) == (True, False)
        with made(tmp_path).claim("chunk/2") as another:
            assert another
    with made(tmp_path).claim("chunk/1") as again:
        assert again
