"""A build: files are written to a stage, measured, and published as a whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tieredstore.backend import ANY_HEAD
from tieredstore.errors import (
    InvalidName,
    TieredStoreError,
    TierUnavailable,
    reading_from,
    writing_to,
)
from tieredstore.manifest.artifact import Recipe, new_generation
from tieredstore.manifest.names import check_case_clashes, check_files
from tieredstore.manifest.records import FileRecord, Records, head_of
from tieredstore.mounted.staged import Staged
from tieredstore.moving.fetching import Copy
from tieredstore.moving.transfer import Transfer
from tieredstore.space.room import Need, make_way, room
from tieredstore.tiers.chain import Chain
from tieredstore.verbs.measured import Measured, StageWriter

Tell = Callable[[int, int, str], None]


class Build:
    """A stage in the first tier, used in a ``with`` statement.

    Attributes
    ----------
    path : Path
        Write the artifact's files below this folder.
    facts : dict
        Plain JSON values found out while building; they are kept with the recipe.
    recipe : Recipe or None
        What it is made from; may be set until the block ends, when an input is known only then.
    generation : str
        What the artifact will be published as.
    """

    def __init__(
        self,
        chain: Chain,
        name: str,
        recipe: Recipe | None,
        kind: str,
        tell: Sequence[Tell] = (),
    ) -> None:
        self._chain = chain
        self._name = name
        self.recipe = recipe
        self._kind = kind
        self._tell = tell
        self._staged: Staged | None = None
        self._measured = Measured()
        self._room = ExitStack()
        self.generation = new_generation()
        self.facts: dict[str, Any] = {}

    @property
    def path(self) -> Path:
        """The folder to write to."""
        staged = self._open()
        return Path(staged.root, staged.path)

    @property
    def file(self) -> Path:
        """For a single-file artifact: the file to write."""
        return self.path / self._name.rpartition("/")[2]

    def writer(self) -> StageWriter:
        """A writer of new files that are digested while they are written; one for each thread.

        Such files are not read again when they are published, unless they have been touched since.
        For many files, and for large ones; writing below `path` does as well.
        """
        return StageWriter(self._open(), self._measured, self._chain.first.tier.name)

    @property
    def written(self) -> Mapping[str, int]:
        """Files that writers have written so far, by path, and how many bytes each has."""
        return self._measured.sizes()

    def progress(self, done: int, total: int = 0, text: str = "") -> None:
        """Say how far the build is to those who wait for it; without effect outside `ensure`.

        Parameters
        ----------
        done, total : int
            How much is done of how much, in whatever the builder counts; 0 where it is not known.
        text : str
            A word on what is under way. No secrets: it is shown to everybody who waits.
        """
        for tell in self._tell:
            tell(done, total, text)

    def reserve(self, size: int, files: int = 1) -> None:
        """Keep room in the first tier for so many bytes that are to be written to the stage.

        Without it a build finds out that the disk is full when it is; where the tier has limits,
        what is used least is evicted when the build ends.

        Parameters
        ----------
        size : int
            Bytes of all files; another call takes the place of the one before.
        files : int
            How many there will be: each takes whole blocks of the disk.

        Raises
        ------
        NoSpace
            When there is no room, and none can be made.
        """
        self._open()
        self._room.close()
        need = Need.of_build(self.generation, size, files)
        self._room.enter_context(room(self._chain, self._chain.first.tier, self._name, need))

    def _open(self) -> Staged:
        if self._staged is None:
            raise TierUnavailable(f"{self._name}: the stage is open only inside its with block")
        return self._staged

    def __enter__(self) -> Self:
        first = self._chain.first
        if not first.tier.writable:
            raise TierUnavailable(f"tier {first.tier.name!r} is read-only: nothing can be created")
        if first.tier.space.limited:  # whatever will be written, it has to be in order before
            nothing = Need.of_build(self.generation, 0, 0)
            self._room.enter_context(room(self._chain, first.tier, self._name, nothing))
        try:
            with writing_to(first.tier.name):
                self._staged = first.backend.mount.staged("stage", self.generation)
        except BaseException:
            self._room.close()
            self._drop(Staged(first.backend.place, "stage", self.generation))
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._staged is not None
        staged = self._staged
        try:
            if error is None:
                self._publish(staged)
        finally:
            self._staged = None
            self._room.close()
            self._drop(staged)

    def _drop(self, staged: Staged) -> None:
        """Delete the stage; what cannot be deleted now is litter, not a failure."""
        first = self._chain.first
        drop = partial(first.backend.mount.drop, staged, first.tier.layout.folder(self._name))
        try:
            with suppress(OSError, TieredStoreError):
                drop()
        except (KeyboardInterrupt, SystemExit):
            with suppress(OSError, TieredStoreError):
                drop()
            raise

    def _publish(self, staged: Staged) -> None:
        first = self._chain.first
        with reading_from(first.tier.name):
            files = [self._measured.record(path, found) for path, found in staged.files()]
        self._check(files)
        self._chain.reporter.started("publish", self._name, sum(f.size for f in files))
        records = Records.of(self._digested(staged, files))
        head = head_of(records, self._final_recipe(), generation=self.generation, kind=self._kind)
        folder = first.tier.layout.folder(self._name)
        self._room.close()  # what was reserved is written, or is not needed
        make_way(self._chain, first.tier, self._name)
        with writing_to(first.tier.name):
            self._measured.end_flush()
            first.backend.publish(staged, folder, head, records, ANY_HEAD)
        self._chain.reporter.finished(
            "publish", self._name, os.path.join(first.backend.place, folder)
        )

    def _digested(self, staged: Staged, files: Sequence[FileRecord]) -> list[FileRecord]:
        """The files with their blocks; what the writers have measured is not read again."""
        first, reporter = self._chain.first, self._chain.reporter
        whole = [f for f in files if f.table or not f.size]
        reporter.advanced(sum(f.size for f in whole))
        copy = Copy(first.tier.name, first.backend, staged.path, None)
        unread = [f for f in files if f.size and not f.table]
        return whole + Transfer([copy], None, reporter).move(unread).files

    def _check(self, files: list[FileRecord]) -> None:
        paths = [f.path for f in files]
        check_files(f.path for f in files if not f.table)  # all, when they have been digested
        if not paths:
            raise InvalidName(f"{self._name}: the build wrote no file below its stage")
        if self._kind == "file" and paths != [self.file.name]:
            raise InvalidName(
                f"{self._name}: expected the one file {self.file.name!r}, found {paths[:3]}"
            )
        if not self._chain.first.backend.keeps_case:
            check_case_clashes(paths, self._chain.first.backend.place)

    def _final_recipe(self) -> Recipe:
        facts: Mapping[str, Any] = self.facts
        if self.recipe is None:
            return Recipe(facts=facts)
        return self.recipe.with_facts(facts)
