"""Durable mounted tiers that take each file of a filling as it is put in.

Like the first tier: below a mark, until all required files are there. A tier that fails is left to
a promote at the end. What the first tier gets, and when it is whole, is in ``filling.py``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from tieredstore.backends.local import LocalBackend, MountedStaging
from tieredstore.errors import TieredStoreError, reason
from tieredstore.manifest.artifact import Head, Recipe, new_generation
from tieredstore.manifest.records import FileRecord, Records
from tieredstore.mounted import beneath
from tieredstore.mounted.filled import mark_filling, publish_filled
from tieredstore.mounted.staged import move_in
from tieredstore.moving.fetching import Copy
from tieredstore.moving.transfer import Transfer
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import Tier
from tieredstore.workers import PUBLISH_DEADLINE, within


class DirectTiers:
    """Those that take files now, and those that keep what they have.

    Parameters
    ----------
    chain : Chain
        The tiers.
    name : str
        The artifact.
    required : sequence of str
        The files that make it whole.
    recipe : Recipe or None
        What it is made from.

    Attributes
    ----------
    refused : dict
        Tiers that keep what they have, made by another recipe, with the reason.
    """

    def __init__(
        self, chain: Chain, name: str, required: Sequence[str], recipe: Recipe | None
    ) -> None:
        self._chain = chain
        self._name = name
        self._required = tuple(required)
        self._recipe = recipe
        self._taking: list[Tier] = []
        self.refused: dict[str, str] = {}

    def forget(self) -> None:
        """Take files no more: what is missing is promoted at the end."""
        self._taking = []

    def begin(self) -> None:
        """Take files of a filling that begins now."""
        self._taking = [t for t in self._mounted() if self._asked(t)]

    def join(self, generation: str) -> None:
        """Take files of a filling that another has begun, where all of it was taken so far."""
        self._taking = [t for t in self._mounted() if self._asked(t, generation)]

    def put(self, record: FileRecord, generation: str, folder: str) -> dict[str, str]:
        """Copy a file that lies in ``folder`` of the first tier; where it is visible, by tier."""
        places = {}
        for tier in list(self._taking):
            try:
                places[tier.name] = self._copy(tier, generation, record, folder)
            except (OSError, TieredStoreError) as error:
                self._taking.remove(tier)
                self._chain.reporter.skipped(tier.name, reason(error))
        return places

    def finish(self, begun: str, head: Head, records: Records) -> list[str]:
        """Complete the copies that are whole; the names of their tiers."""
        return [t.name for t in self._taking if self._put_manifest(t, begun, head, records)]

    def late(self, done: Sequence[str]) -> list[str]:
        """The durable tiers that it has to be promoted to, but those that are done."""
        left = [t for t in self._durable() if t.name not in self.refused and t.name not in done]
        return [t.name for t in left if self._may_replace(t)]

    # -- which ----------------------------------------------------------------------------------

    def _durable(self) -> list[Tier]:
        return [t for t in self._chain.tiers[1:] if t.durable and t.writable]

    def _mounted(self) -> list[Tier]:
        return [t for t in self._durable() if isinstance(t.backend, LocalBackend)]

    def _asked(self, tier: Tier, joined: str | None = None) -> bool:
        try:
            if joined is not None and not self._in_step(tier, joined):
                return False
            return self._may_replace(tier)
        except (OSError, TieredStoreError) as error:
            self._chain.reporter.skipped(tier.name, reason(error))
            return False

    def _in_step(self, tier: Tier, generation: str) -> bool:
        assert isinstance(tier.backend, LocalBackend)
        mount, folder = tier.backend.mount, tier.layout.folder(self._name)
        mark = within(tier.deadline, lambda: mount.pending(folder), f"tier {tier.name!r}")
        return mark is not None and (mark.kind, mark.generation) == ("filling", generation)

    def _may_replace(self, tier: Tier) -> bool:
        """Whether what a tier has may be replaced: nothing made by another known recipe is."""
        there = tier.locate(self._name)
        if there.recipe is None or there.recipe.same_as(self._recipe):
            return True
        known = "recipe unknown" if self._recipe is None else there.recipe.differences(self._recipe)
        why = f"{self._name}: tier {tier.name!r} holds it made otherwise ({known})"
        if tier.name not in self.refused:
            self.refused[tier.name] = why
            self._chain.reporter.promoted(self._name, tier.name, "refused", why)
        return False

    # -- files ----------------------------------------------------------------------------------

    def _copy(self, tier: Tier, generation: str, record: FileRecord, lies_in: str) -> str:
        backend, folder = tier.backend, tier.layout.folder(self._name)
        assert isinstance(backend, LocalBackend)
        mount, what = backend.mount, f"tier {tier.name!r}"
        first = self._chain.first
        source = Copy(first.tier.name, first.backend, lies_in, None)
        begin = new_generation()
        staged = within(tier.deadline, lambda: mount.staged("stage", begin), what)

        def publish() -> None:
            mark_filling(mount, folder, generation, self._required)
            with beneath.opened(staged.open()) as files, beneath.opened(mount.root()) as root:
                beneath.syncfs(files)
                with beneath.opened(beneath.open_folder(root, folder)) as fd:
                    move_in(files, record.path, fd, record.path)
            mark_filling(mount, folder, generation, self._required)

        try:
            staging = MountedStaging(backend, "", staged)
            Transfer([source], staging, None, tier.name).move([record])
            within(PUBLISH_DEADLINE, publish, what)
        finally:
            within(tier.deadline, staged.delete, what)
        return os.path.join(mount.path, folder, record.path)

    def _put_manifest(self, tier: Tier, begun: str, head: Head, records: Records) -> bool:
        """Complete the copy in a tier that took each file; False where it has to be promoted."""
        backend, folder = tier.backend, tier.layout.folder(self._name)
        assert isinstance(backend, LocalBackend)
        mount, what = backend.mount, f"tier {tier.name!r}"

        def put() -> None:
            mark_filling(mount, folder, head.generation, self._required)
            publish_filled(mount, folder, head, records)

        with suppress(OSError, TieredStoreError):
            if self._in_step(tier, begun) and self._all_there(tier, records):
                within(PUBLISH_DEADLINE, put, what)
                found = tier.locate(self._name).head
                return found is not None and found.generation == head.generation
        return False

    def _all_there(self, tier: Tier, records: Records) -> bool:
        folder, stat = tier.layout.folder(self._name), tier.backend.stat

        def look() -> bool:
            return all(stat(f"{folder}/{f.path}").size == f.size for f in records.files.values())

        return within(PUBLISH_DEADLINE, look, f"tier {tier.name!r}")
