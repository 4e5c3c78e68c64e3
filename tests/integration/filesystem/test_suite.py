"""fsspec's own suite for filesystems: one tier, two, and files that are on the far tier only."""

from __future__ import annotations

import posixpath

import pytest
from fsspec.tests import abstract

from tieredstore.filesystem import TieredFileSystem


class Promoted(TieredFileSystem):
    """Promotes what was written before each operation."""

    protocol = "tiered"

    def settle(self):
        if self.store.queued():
            self.flush()

    def find(self, *args, **kwargs):
        self.settle()
        return super().find(*args, **kwargs)

    def expand_path(self, *args, **kwargs):
        self.settle()
        return super().expand_path(*args, **kwargs)


class Evicted(Promoted):
    """And evicts it from the first tier then."""

    def settle(self):
        super().settle()
        first = self.store.chain.first
        for folder in list(first.backend.folders()):
            self.store.evict(first.tier.layout.name_of(folder))


class Fixtures(abstract.AbstractFixtures):
    @pytest.fixture
    def fs_join(self):
        return posixpath.join

    @pytest.fixture
    def fs_path(self):
        return "suite"

    @pytest.fixture
    def supports_empty_directories(self):
        return False


class OneTier(Fixtures):
    @pytest.fixture
    def fs(self, config):
        return TieredFileSystem({"tier": config["tier"][:1]}, skip_instance_cache=True)


class TwoTiers(Fixtures):
    """What was written is promoted before each operation."""

    filesystem = Promoted

    @pytest.fixture
    def fs(self, config):
        return self.filesystem(config, skip_instance_cache=True, promote="queued")


class FarOnly(TwoTiers):
    """What was written is promoted, and gone from the first tier, before each operation."""

    filesystem = Evicted


class TestCopyOneTier(abstract.AbstractCopyTests, OneTier):
    pass


class TestGetOneTier(abstract.AbstractGetTests, OneTier):
    pass


class TestPutOneTier(abstract.AbstractPutTests, OneTier):
    pass


class TestOpenOneTier(abstract.AbstractOpenTests, OneTier):
    pass


class TestPipeOneTier(abstract.AbstractPipeTests, OneTier):
    pass


class TestCopyTwoTiers(abstract.AbstractCopyTests, TwoTiers):
    pass


class TestGetTwoTiers(abstract.AbstractGetTests, TwoTiers):
    pass


class TestPutTwoTiers(abstract.AbstractPutTests, TwoTiers):
    pass


class TestOpenTwoTiers(abstract.AbstractOpenTests, TwoTiers):
    pass


class TestPipeTwoTiers(abstract.AbstractPipeTests, TwoTiers):
    pass


class TestCopyFarOnly(abstract.AbstractCopyTests, FarOnly):
    pass


class TestGetFarOnly(abstract.AbstractGetTests, FarOnly):
    pass


class TestPutFarOnly(abstract.AbstractPutTests, FarOnly):
    pass


class TestOpenFarOnly(abstract.AbstractOpenTests, FarOnly):
    pass


class TestPipeFarOnly(abstract.AbstractPipeTests, FarOnly):
    pass
