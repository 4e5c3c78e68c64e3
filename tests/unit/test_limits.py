"""Limits of tiers as configurations say them: sizes, and what is refused."""

from __future__ import annotations

import pytest

import tieredstore
from tieredstore.limits import parse_size


@pytest.mark.parametrize(
    ("written", "size"),
    [(7, 7), ("7", 7), ("200GB", 2 * 10**11), ("1.5TiB", 3 << 39), ("64 KiB", 1 << 16), ("0", 0)],
)
def test_sizes_as_people_write_them(written, size):
    assert parse_size(written) == size


@pytest.mark.parametrize(
    "written", ["", "GB", "-1", -1, "1.5", "1e9", "5 Gb", "1 2", True, 1.5, None]
)
def test_what_is_no_size(written):
    with pytest.raises(ValueError, match="no"):
        parse_size(written)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("max_size", "much", "max_size: 'much' is no size, expected a size such as 200GB"),
        ("max_size", 0, "max_size is 0"),
        ("min_free", -5, "min_free: -5 is no size"),
        ("min_free", 1.5, "min_free is 1.5, expected a size"),
        ("max_size", True, "max_size is True, expected a size"),
    ],
)
def test_mistakes_in_a_configuration_are_named(tmp_path, key, value, why):
    row = {"name": "a", "backend": "local", "path": str(tmp_path / "a"), key: value}
    with pytest.raises(tieredstore.ConfigError, match=f"tier.* 'a': {why}"):
        tieredstore.open_store({"tier": [row]})


def test_limits_are_for_mounted_places(tmp_path):
    rows = [
        {"name": "a", "backend": "local", "path": str(tmp_path / "a"), "min_free": "1GB"},
        {"name": "b", "backend": "fsspec", "url": "memory://b", "max_size": "1GB"},
    ]
    assert tieredstore.open_store({"tier": rows[:1]}).tiers[0].space.min_free == 10**9
    with pytest.raises(
        tieredstore.ConfigError, match="'b': max_size is for folders on this machine"
    ):
        tieredstore.open_store({"tier": rows})
