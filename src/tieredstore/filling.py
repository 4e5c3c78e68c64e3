"""Files put in one by one, each visible under its own path as soon as it is whole.

For writers that write a file, read it back and write the next. To readers of the store the
artifact is absent (a pending mark says so) until the required files are all there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tieredstore import beneath
from tieredstore.artifact import Recipe, check_file, new_generation, random_hex
from tieredstore.backends.local import LocalBackend
from tieredstore.chain import Chain
from tieredstore.errors import TieredStoreError, TierUnavailable, reason, writing_to
from tieredstore.records import FileRecord, Records, head_of
from tieredstore.staged import move_in
from tieredstore.tier import Tier
from tieredstore.transfer import Copy, Transfer


class Filling:
    """An artifact while its files are put in one by one.

    Parameters
    ----------
    chain : Chain
        The tiers; files go to the first and to every durable mounted one.
    name : str
        The artifact.
    required : sequence of str
        The files that make it whole.
    recipe : Recipe or None
        What it is made from.
    """

    def __init__(
        self, chain: Chain, name: str, required: Sequence[str], recipe: Recipe | None
    ) -> None:
        self._chain = chain
        self._name = name
        self._required = tuple(required)
        self._recipe = recipe
        self._generation = new_generation()
        self._records: dict[str, FileRecord] = {}
        self._targets = [chain.first.tier, *self._mounted_durable()]
        self.refused: dict[str, str] = {}

    def _mounted_durable(self) -> list[Tier]:
        below = self._chain.tiers[1:]
        return [
            t for t in below if t.durable and t.writable and isinstance(t.backend, LocalBackend)
        ]

    @property
    def complete(self) -> bool:
        """Whether all required files have been put in."""
        return all(f in self._records for f in self._required)

    def temporary(self, file: str) -> Path:
        """A path to write a file to before it is put in: on the first tier's file system."""
        check_file(file)
        mount = self._chain.first.backend.mount
        with writing_to(self._chain.first.tier.name):
            os.close(mount.area("stage"))
        return Path(mount.area_path("stage", f"fill-{random_hex(8)}"))

    def put(self, file: str, written: Path) -> dict[str, str]:
        """Put one written file in, atomically, into the first tier and the durable mounted ones.

        Parameters
        ----------
        file : str
            Its name in the artifact.
        written : Path
            Where its bytes are, from `temporary`; the file is taken over.

        Returns
        -------
        dict
            Where it is visible now, by tier.

        Raises
        ------
        TierUnavailable
            When the first tier cannot be written.
        """
        check_file(file)
        first = self._chain.first
        if not first.tier.writable:
            raise TierUnavailable(f"tier {first.tier.name!r} is read-only: nothing can be written")
        measured = self._measure(file, written)
        places: dict[str, str] = {}
        for tier in self._targets:
            backend = tier.backend
            assert isinstance(backend, LocalBackend)
            try:
                self._check_replaceable(tier)
                with writing_to(tier.name):
                    places[tier.name] = self._put_into(backend, tier, measured, written)
            except (OSError, TieredStoreError) as error:
                if tier is first.tier:
                    raise
                self._refuse(tier, reason(error))
        self._records[file] = measured
        self._targets = [t for t in self._targets if t.name not in self.refused]
        if self.complete:
            self._finish()
        return places

    def _refuse(self, tier: Tier, why: str) -> None:
        self.refused[tier.name] = why
        self._chain.reporter.promoted(self._name, tier.name, "refused", why)

    def _check_replaceable(self, tier: Tier) -> None:
        if tier is self._chain.first.tier or self._records:
            return
        there = tier.locate(self._name)
        if there.recipe is None or self._recipe is None or self._recipe.same_as(there.recipe):
            return
        differences = self._recipe.differences(there.recipe)
        raise TieredStoreError(f"tier {tier.name!r} holds it made otherwise ({differences})")

    def _measure(self, file: str, written: Path) -> FileRecord:
        stat = written.stat()
        mount = self._chain.first.backend.mount
        inside = os.path.relpath(written, mount.path)
        folder, name = beneath.split(inside.replace(os.sep, "/"))
        copy = Copy("", self._chain.first.backend, folder, None)
        record = FileRecord(name, stat.st_size, stat.st_mode & 0o777, stat.st_mtime_ns)
        found = Transfer([copy]).move([record]).files[0]
        return FileRecord(file, found.size, found.mode, found.mtime_ns, found.table)

    def _put_into(
        self, backend: LocalBackend, tier: Tier, record: FileRecord, written: Path
    ) -> str:
        mount = backend.mount
        folder = tier.layout.folder(self._name)
        mount.mark_filling(folder, self._generation, self._required)
        with beneath.opened(mount.root()) as root:
            with beneath.opened(beneath.make_folder(root, folder)) as fd:
                if tier is self._chain.first.tier:
                    self._take(mount.area("stage"), written.name, fd, record.path)
                else:
                    self._copy_into(backend, fd, record)
        return os.path.join(mount.path, folder, record.path)

    def _take(self, area: int, name: str, fd: int, path: str) -> None:
        with beneath.opened(area):
            with beneath.opened(beneath.open_file(area, name)) as file:
                os.fsync(file)
            move_in(area, name, fd, path)

    def _copy_into(self, backend: LocalBackend, fd: int, record: FileRecord) -> None:
        first = self._chain.first
        staged = backend.mount.staged("stage", self._generation)
        source = Copy(first.tier.name, first.backend, first.tier.layout.folder(self._name), None)
        from tieredstore.backends.local import MountedStaging

        staging = MountedStaging(backend, "", staged)
        try:
            Transfer([source], staging).move([record])
            with beneath.opened(staged.open()) as files:
                beneath.syncfs(files)
                move_in(files, record.path, fd, record.path)
        finally:
            staged.delete()

    def _finish(self) -> None:
        records = Records.of(self._records.values())
        head = head_of(records, self._recipe, generation=self._generation)
        for tier in self._targets:
            assert isinstance(tier.backend, LocalBackend)
            try:
                folder = tier.layout.folder(self._name)
                with writing_to(tier.name):
                    tier.backend.mount.put_manifest(folder, head, records)
            except (OSError, TieredStoreError) as error:
                if tier is self._chain.first.tier:
                    raise
                self._refuse(tier, reason(error))
