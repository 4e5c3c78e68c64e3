"""fsspec's own suite for filesystems: one tier, two, and files that are on the far tier only."""

from __future__ import annotations

import posixpath

import pytest
from fsspec.tests import abstract

from tieredstore.filesystem import TieredFileSystem


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
    @pytest.fixture
    def fs(self, config):
        return TieredFileSystem(config, skip_instance_cache=True, promote="on-close")


class FarOnly(Fixtures):
    """What is written is promoted, and evicted from the first tier at once."""

    @pytest.fixture
    def fs(self, config):
        made = TieredFileSystem(config, skip_instance_cache=True, promote="on-close")
        changing = made.changing
        pass_on = changing._pass_on

        def and_evict(name):
            pass_on(name)
            if changing._first.held(name):
                made.store.evict(name)

        changing._pass_on = and_evict
        return made


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
