"""A state machine: a store on three tiers that fail now and then, against a dictionary.

The tiers are a folder, a volume that may be gone for a while, and a keyed place that may refuse
everything. Bytes flip and files are cut short behind the store's back, litter lies about. The
dictionary knows which generation each tier has, or may have, and every generation's bytes. A
restore gives exactly those bytes, or the error that it has to; what a durable tier has is never
lost; evict refuses exactly where it has to. ``TIEREDSTORE_TEST_STEPS`` says how many steps, about
(CI: 600).
"""

# ruff: noqa: PT017 - whether an error is right depends on what the dictionary knows
from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tieredstore import Recipe
from tieredstore.errors import (
    ArtifactNotFound,
    EvictRefused,
    PromoteFailed,
    RecipeConflict,
    RepairFailed,
    TieredStoreError,
)
from tieredstore.putting import put

pytestmark = pytest.mark.timeout(3600)
STEPS = int(os.environ.get("TIEREDSTORE_TEST_STEPS", "600"))
AT_ONCE = 50  # steps of one run at most; about half of them are taken


def _known():
    path = Path(__file__).with_name("known.py")
    spec = importlib.util.spec_from_file_location("tieredstore_store_machine_known", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


known = _known()
contents, FOLDERS, SINGLES, TIERS = known.contents, known.FOLDERS, known.SINGLES, known.TIERS
MERGED, OWN, NAMES = known.MERGED, known.OWN, st.sampled_from(known.NAMES)


class StoreMachine(known.Known, RuleBasedStateMachine):
    """What is done to the store, and what has to come of it."""

    steps = 0

    def __init__(self):
        RuleBasedStateMachine.__init__(self)
        known.Known.__init__(self)

    def done(self, *names):
        type(self).steps += 1
        for name in names:
            self.look(name)

    # -- make -------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(FOLDERS + SINGLES))
    def create(self, name):
        tag = self.tag()
        content, recipe = contents(name, tag), Recipe("machine", options={"tag": tag})
        begin = self.store.create if name in FOLDERS else self.store.create_file
        with begin(name, recipe=recipe) as stage:
            _write(stage.path, content)
        self.learn(name, content, recipe)
        self.done(name)

    @rule(name=st.sampled_from(FOLDERS))
    def put(self, name):
        content = contents(name, self.tag())
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            _write(Path(folder), content)
            put(self.store, name, [folder])
        self.learn(name, content, self.tier("first").locate(name).recipe)
        self.done(name)

    @rule(name=st.sampled_from(FOLDERS))
    def fill(self, name):
        tag = self.tag()
        content, recipe = contents(name, tag), Recipe("machine", options={"tag": tag})
        filling = self.store.fill(name, list(content), recipe=recipe)
        complete = all(self.up(tier) for tier in TIERS)
        try:
            for file, data in content.items():
                written = filling.temporary(file)
                written.write_bytes(data)
                filling.put(file, written)
        except PromoteFailed:
            assert not complete
        generation = self.learn(name, content, recipe)
        for tier in TIERS[1:]:
            if tier not in filling.refused:
                self.may[tier, name].add(generation)
                located = self.tier(tier).locate(name)
                assert not complete or located.head.generation == generation, located
        self.done(name)

    @rule()
    def compose(self):
        parts = [self.intact("first", name) for name in SINGLES]
        if None in parts:
            return
        found = zip(parts, SINGLES, strict=True)
        content = b"".join(self.bytes[part][name.rpartition("/")[2]] for part, name in found)
        recipe = Recipe("machine", options={"parts": parts})
        self.store.compose(MERGED, list(SINGLES), recipe)
        self.learn(MERGED, {MERGED: content}, recipe)
        self.done(MERGED)

    # -- move -------------------------------------------------------------------------------------

    @rule(name=NAMES, some=st.booleans(), made=st.booleans())
    def restore(self, name, some, made):
        files = [min(contents(name, "0"))] if some and name in FOLDERS else None
        known = sorted(self.servable(name))
        recipe = self.recipes[known[-1]] if made and known else None
        fine = [g for g in known if recipe is None or self.recipes[g].same_as(recipe)]
        try:
            got = self.store.restore(name, files=files, recipe=recipe)
        except (ArtifactNotFound, TieredStoreError) as error:
            assert not fine, f"{name}: {error}, and {fine} could be had"
            self.done(name)
            return
        with got:
            generation = got.generation
            assert generation in set().union(*(self.may[t, name] for t in TIERS if self.up(t)))
            assert self.intact("first", name) in {None, generation} or recipe
            for file in files or self.bytes[generation]:
                with got.open(file) as opened:
                    assert opened.read() == self.bytes[generation][file], (name, file)
        self.may["first", name] = {generation}
        self.may["vol", name].add(generation)
        self.done(name)
        assert files or ("first", name) not in self.partial

    @rule(name=NAMES, file=st.integers(0, 3))
    def stream(self, name, file):
        paths = sorted(contents(name, "0")) if name != MERGED else [MERGED]
        path = paths[file % len(paths)]
        known = self.servable(name)
        try:
            with self.store.open_stream(name, path) as opened:
                data = opened.read()
        except (TieredStoreError, OSError) as error:
            assert not known, f"{name}: {error}, and {known} could be had"
        else:
            possible = set().union(*(self.may[tier, name] for tier in TIERS)) - {None}
            assert data in [self.bytes[g][path] for g in possible], (name, path)
        self.done(name)

    @rule(name=NAMES, to=st.sampled_from([None, "vol", "far"]), replace=st.booleans())
    def promote(self, name, to, replace):
        mine = self.may["first", name]
        targets = [to] if to else list(TIERS[1:])
        partial = ("first", name) in self.partial
        fine = {tier: self.takes(tier, name, replace=replace) for tier in targets}
        try:
            done = self.store.promote(name, to, replace=replace)
        except ArtifactNotFound:
            assert mine == {None}
            return
        except (PromoteFailed, RecipeConflict) as error:
            assert partial or not all(fine.values()), (name, fine, error)
            done = getattr(error, "outcomes", ())
            if isinstance(error, RecipeConflict):  # of each that failed; the others have taken it
                for tier in targets:
                    if fine[tier]:
                        self.may[tier, name] = set(mine)
                    elif (tier, name) in self.damaged:  # nobody knows what it was made from
                        self.may[tier, name] |= mine
        for outcome in done:
            if outcome.action in {"copied", "present"}:
                self.may[outcome.tier, name] = set(mine)
            else:
                assert partial or not fine[outcome.tier], outcome
        self.done(name)

    def takes(self, tier, name, *, replace):
        """Whether a tier has to take the first one's generation; ``False`` where it may not."""
        (mine,) = self.may["first", name]
        there = self.may[tier, name]
        if not self.up(tier) or len(there) > 1 or (tier, name) in self.damaged:
            return False
        (there,) = there
        if there is None or mine is None or replace:
            return True
        return self.recipes[there].same_as(self.recipes[mine])

    # -- keep -------------------------------------------------------------------------------------

    @rule(name=NAMES, tier=st.sampled_from(TIERS))
    def evict(self, name, tier):
        there = self.may[tier, name]
        others = {self.intact(t, name) for t in TIERS[1:] if t != tier} - {None}
        maybe = set().union(*(self.may[t, name] for t in TIERS[1:] if t != tier and self.up(t)))
        try:
            self.store.evict(name, tier)
        except ArtifactNotFound:
            assert not self.up(tier) or None in there or (tier, name) in self.damaged
        except EvictRefused as error:
            assert not (len(there) == 1 and there <= others), f"{name}, {tier}: {error}"
        else:
            assert there & maybe - {None}, f"{name} was dropped from {tier}, and no other has it"
            self.may[tier, name] = {None}
        self.done(name)

    @rule(name=NAMES)
    def verify(self, name):
        try:
            found = {v.tier: v for v in self.store.verify(name)}
        except ArtifactNotFound:
            found = {}
        for tier in TIERS:
            if self.intact(tier, name) is not None:
                assert found[tier].ok, found[tier]
            elif tier in found and found[tier].damaged:
                assert (tier, name) in self.damaged, found[tier]
        self.done(name)

    @rule(name=NAMES)
    def repair(self, name):
        sound = self.servable(name)
        try:
            found = self.store.repair([name])[name]
        except ArtifactNotFound:
            found = []
        except RepairFailed as error:
            found = error.verified[name]
        for one in found:
            hurt = self.damaged.get((one.tier, name))
            if self.up(one.tier) and hurt in sound:
                assert one.ok, one
                del self.damaged[one.tier, name]
        self.done(name)

    @rule()
    def collect(self):
        self.store.collect(grace=0.0)
        self.done(*known.NAMES)

    @rule()
    def list(self):
        names, status = self.store.names(), self.store.status()
        assert set(names) == set(status)
        for name in known.NAMES:
            if self.servable(name):
                assert name in names
                for tier, where in zip(TIERS, status[name], strict=True):
                    sure = self.intact(tier, name)
                    assert sure is None or where.head.generation == sure
        self.done()

    # -- what goes wrong --------------------------------------------------------------------------

    @rule()
    def far_refuses(self):
        self.down = not self.down
        self.done()

    @rule()
    def volume_goes_or_comes(self):
        one, other = (self.away, self.vol) if self.away.exists() else (self.vol, self.away)
        one.rename(other)
        self.done()

    @precondition(lambda self: not self.away.exists())
    @rule(name=NAMES, cut=st.booleans(), where=st.integers(0, 1 << 30))
    def damage_in_volume(self, name, cut, where):
        """A bit of a file, of the records or of the head is flipped, or a file is cut short."""
        if self.intact("vol", name) is None or len(self.servable(name)) == 0:
            return
        folder, single = (self.vol / name, "") if name in FOLDERS else _single(self.vol / name)
        files = [f"{OWN}{single}.json", f"{OWN}{single}.records", *self.bytes_at(name)]
        path = folder / files[where % len(files)]
        data = bytearray(path.read_bytes())
        if not data:
            return
        at = where % len(data)
        data[at] ^= 1 << (where % 8)
        path.write_bytes(data[:at] if cut else data)
        (self.damaged["vol", name],) = self.may["vol", name]
        self.verified_as_damaged(name)
        self.done(name)

    def bytes_at(self, name):
        return sorted(contents(name, "0")) if name != MERGED else [MERGED]

    def verified_as_damaged(self, name):
        """Whatever was changed in a copy, verify finds."""
        (found,) = self.store.verify(name, tiers=["vol"])
        assert not found.ok, found

    @rule(area=st.sampled_from(["stage", "part", "old", "fill", "swap"]), tier=st.booleans())
    def litter(self, area, tier):
        root = self.root / "first" if tier or self.away.exists() else self.vol
        folder = root / OWN / area / f"20260101t000000-{self.number:016d}" / "files"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "left.bin").write_bytes(b"left over")
        self.done()

    def teardown(self):
        self.down = False
        if self.away.exists():
            self.away.rename(self.vol)
        for name in known.NAMES:
            self.look(name)
            self.restore_all(name)
        memory = fsspec.filesystem("memory")
        if memory.exists(self.url):
            memory.rm(self.url, recursive=True)
        shutil.rmtree(self.root)

    def restore_all(self, name):
        """In the end, with every tier back, whatever one of them has can be had."""
        if self.servable(name):
            with self.store.restore(name) as got:
                for file, data in self.bytes[got.generation].items():
                    with got.open(file) as opened:
                        assert opened.read() == data, (name, file)


def _write(folder, content):
    for file, data in content.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)


def _single(path):
    return path.parent, f".{path.name}"


def test_the_store_does_what_a_dictionary_does():
    StoreMachine.steps = 0
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=max(1, STEPS // (AT_ONCE // 2)),
            stateful_step_count=AT_ONCE,
            deadline=None,
            derandomize=STEPS <= 600,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert StoreMachine.steps >= STEPS
