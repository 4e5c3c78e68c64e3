"""Words for people: sizes, ages, differences, and nothing that steers a terminal."""

import errno

import pytest

from tieredstore import Layout, Recipe, Tier, views
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import ArtifactNotFound, ConfigError, TierUnavailable
from tieredstore.manifest.artifact import Head
from tieredstore.tiers.tier import Located


def located(tier, generation, recipe, size, created, files=1):
    place = Tier(tier, LocalBackend("/nowhere"), Layout())
    head = Head(generation, files, size, 0, "0" * 32, recipe, created=created)
    return Located(place, "whole", "a", head)


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_250_000, "1.2 MB"), (18 * 10**9, "18.0 GB")],
)
def test_size(count, words):
    assert views.size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (7300, "2 h"), (200_000, "2 d")],
)
def test_duration(seconds, words):
    assert views.duration(seconds) == words


def test_what_differs():
    full, part = Recipe("p", "1", {"subset": 1.0}), Recipe("p", "1", {"subset": 0.1})
    here = located("local", "g1g1g1g1", full, 3_000_008, 10_000)
    assert views.differs(located("far", "g1g1g1g1", full, 3_000_008, 10_000), here) == ""
    older = located("far", "g2g2g2g2", part, 3_000_003, 2_800)
    assert views.differs(older, here) == (
        "not as in local: 2 h older, subset 0.1, not 1.0, 3000003 B, not 3000008 B"
    )
    newer = located("far", "g2g2g2g2", None, 30, 10_005, files=2)
    assert views.differs(newer, here) == (
        "not as in local: 5 s newer, recipe unknown, files 2, not 1, 30 B, not 3.0 MB"
    )


def test_an_error_says_what_to_do_next():
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    assert views.explained(full) == (
        "No space left on device: /data/x; free some space there and run the command again"
    )
    tier = TierUnavailable("tier 'v' cannot be written: No space left", errno.ENOSPC, "v")
    assert views.explained(tier).endswith("free some space there and run the command again")
    assert views.explained(ArtifactNotFound("a: gone")).endswith(
        "tieredstore status shows what there is"
    )
    assert views.explained(ConfigError("x: y is missing")) == "x: y is missing"
    assert "TIEREDSTORE_DEBUG=1" in views.explained(KeyError("x"))
    assert "\n" not in views.explained(RuntimeError("two\nlines"))


def test_clean():
    assert views.clean("plain – text") == "plain – text"
    assert views.clean("a\x1b[2J\nb\udc80") == "a\\x1b[2J\\nb\\udc80"
