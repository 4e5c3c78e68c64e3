"""Restore data that has no manifest: measured while it moves, gone on with, and given one.

Data from before this library, and files of somebody else's: see `SourceFiles`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from tieredstore.backend import FileStat, Staging
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import (
    ArtifactChanged,
    CorruptData,
    TieredStoreError,
    TierUnavailable,
    writing_to,
)
from tieredstore.manifest.artifact import Head, Recipe
from tieredstore.manifest.names import check_case_clashes
from tieredstore.manifest.records import FileRecord, Records, head_of
from tieredstore.mounted.filled import put_manifest
from tieredstore.moving.adopted import Adopted
from tieredstore.moving.following import Digesting, Follower
from tieredstore.moving.runs import OpenFile
from tieredstore.moving.transfer import Transfer
from tieredstore.pinned import BlockLog, Remembering
from tieredstore.space.room import Need, room
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import Located
from tieredstore.verbs.adopting import (
    adopted_generation,
    seen_generation,
    seen_records,
    unmanaged_records,
)
from tieredstore.verbs.growing import Grown, grown
from tieredstore.workers import within


@dataclass(frozen=True, slots=True)
class Adoption:
    """What is done with data that has no manifest while it is brought up.

    Attributes
    ----------
    recipe : Recipe or mapping, optional
        What the artifact is to be known as made from; unknown by default.
    follow : callable, optional
        Called with each file's path and with the file as a stream, in a thread, while the file
        arrives; has to read it to its end. What it raises ends the restore.
    check : callable, optional
        Called with the folder of all files, whole and not published yet; what it raises is raised,
        and nothing is published. The files stay, to be gone on with.
    replace : bool
        The artifact in the first tier is no hit: it is replaced when the new one is whole.
    """

    recipe: Recipe | Mapping[str, Any] | None = None
    follow: Callable[[str, BinaryIO], None] | None = None
    check: Callable[[Path], None] | None = None
    replace: bool = False


AS_IT_IS = Adoption()


def bring_unmanaged(
    chain: Chain,
    name: str,
    chosen: Located,
    found: str | None,
    adoption: Adoption = AS_IT_IS,
) -> None:
    """Bring data without a manifest up to the first tier, and give both ends the manifest.

    Parameters
    ----------
    chain, name
        What is restored.
    chosen : Located
        Where the data lies.
    found : str or None
        The generation in the first tier, which may be replaced.
    adoption : Adoption
        What else is wanted.

    Raises
    ------
    CorruptData
        When the data changed while it was read, or has another digest than is known of it.
    """
    first, reporter = chain.first, chain.reporter
    reporter.adopted(name, chosen.tier.name)
    before = Grown(chosen, {}, [chosen.copy()]) if adoption.replace else grown(chain, name, chosen)
    data = _Data.of(name, before.chosen)
    if not first.backend.keeps_case:
        check_case_clashes((f.path for f in data.records), first.backend.place)
    head = Head(data.generation, 0, 0, 0, "0" * 32)
    with room(chain, first.tier, name, Need.of(head, data.records)) as space:
        with writing_to(first.tier.name):
            staging = first.backend.begin(first.tier.layout.folder(name), head)
        assert isinstance(staging, Remembering)
        reporter.started("restore", name, sum(f.size for f in data.records))
        with _dropped_if_wrong(data, staging), _log_of(staging, first.tier.name) as log:
            files = data.files(log, adoption, before.here)
            deadline = first.tier.deadline
            transfer = Transfer(before.copies, staging, reporter, first.tier.name, deadline)
            records = Records.of(transfer.move_open(files).files)
            data.check()
        if adoption.check is not None:
            adoption.check(staging.folder)
        recipe = Recipe.of(adoption.recipe)
        head = head_of(records, recipe, generation=head.generation)
        space.written()
        with writing_to(first.tier.name):
            staging.publish(head, records, found)
    _put_manifest(chosen, name, head, records)


@dataclass(frozen=True, slots=True)
class _Data:
    """The files that are brought, as they were when they were looked at."""

    name: str
    chosen: Located
    records: list[FileRecord]
    generation: str

    @classmethod
    def of(cls, name: str, chosen: Located) -> _Data:
        if chosen.seen:
            records = seen_records(chosen.seen, chosen.files)
            place = chosen.tier.backend.place
            generation = seen_generation(place, chosen.seen, chosen.files)
        else:
            records = _look(chosen)
            generation = adopted_generation(records)
        return cls(name, chosen, records, generation)

    def files(
        self, log: BlockLog, adoption: Adoption, here: Mapping[str, FileRecord]
    ) -> list[OpenFile]:
        """What is moved: measured, unless its blocks are known."""
        seen: dict[str, FileStat] = dict(zip(self.chosen.files, self.chosen.seen, strict=False))
        ordered = sorted(f.path for f in self.records)
        numbers = {path: number for number, path in enumerate(ordered)}
        return [
            OpenFile(here[f.path])
            if f.path in here
            else Adopted(f, numbers[f.path], log, self._followers(f, seen.get(f.path), adoption))
            for f in self.records
        ]

    def _followers(
        self, file: FileRecord, seen: FileStat | None, adoption: Adoption
    ) -> list[Follower]:
        found: list[Follower] = []
        if seen is not None and seen.digest:
            where = f"{self.chosen.tier.backend.place}/{seen.path}"
            found.append(Digesting(where, seen.digest, file.size))
        if adoption.follow is not None:
            found.append(partial(adoption.follow, file.path))
        return found

    def check(self) -> None:
        """Notice data that was changed; other places than mounted ones do so with each answer.

        Raises
        ------
        CorruptData
            When it was.
        """
        if not self.chosen.seen and _look(self.chosen) != self.records:
            place = f"{self.chosen.tier.backend.place}/{self.chosen.folder}"
            raise CorruptData(f"{place}: changed while it was read")

    def changed(self) -> bool:
        """Whether it is known to be other data now."""
        try:
            if not self.chosen.seen:
                return _look(self.chosen) != self.records
            now = self.chosen.tier.unmanaged(self.name, self.chosen.files)
            return now is not None and _Data.of(self.name, now).generation != self.generation
        except ArtifactChanged:
            return True
        except (OSError, TieredStoreError):
            return False


@contextmanager
def _log_of(staging: Remembering, tier: str) -> Iterator[BlockLog]:
    with writing_to(tier):
        log = staging.arrived()
    try:
        yield log
    finally:
        log.close()


@contextmanager
def _dropped_if_wrong(data: _Data, staging: Staging) -> Iterator[None]:
    """Drop what was staged of data that is wrong or other data now: nothing of it can be used."""
    try:
        yield
    except CorruptData:
        staging.discard()
        raise
    except TierUnavailable as error:
        if not error.writing and data.changed():
            staging.discard()
        raise


def _look(chosen: Located) -> list[FileRecord]:
    look = partial(unmanaged_records, chosen.tier.backend, chosen.folder, chosen.files)
    return within(chosen.tier.deadline, look, f"tier {chosen.tier.name!r}")


def _put_manifest(chosen: Located, name: str, head: Head, records: Records) -> None:
    """Give the place that data was adopted from its manifest too, where it may be written."""
    backend = chosen.tier.backend
    own_place = chosen.folder == chosen.tier.layout.folder(name)
    if own_place and chosen.tier.writable and isinstance(backend, LocalBackend):
        put = partial(put_manifest, backend.mount, chosen.folder, head, records)
        with suppress(OSError):
            within(chosen.tier.deadline, put, f"tier {chosen.tier.name!r}")
