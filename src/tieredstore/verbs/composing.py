"""Put one file together from files of artifacts: its block table is theirs, one after the other.

Where the place can do it, the bytes stay there; else they are read from the parts' copies in that
tier and written back, each block verified on its way.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from tieredstore.backend import (
    ANY_HEAD,
    Composable,
    Expected,
    Publishable,
    Segment,
    Staging,
)
from tieredstore.errors import (
    ArtifactNotFound,
    CorruptData,
    HeadConflict,
    InvalidName,
    NoSuchFile,
    RecipeConflict,
    TieredStoreError,
    TierUnavailable,
    Unsupported,
    reason,
    writing_to,
)
from tieredstore.manifest.artifact import Head, Recipe, new_generation
from tieredstore.manifest.names import check_file, check_name
from tieredstore.manifest.records import FileRecord, Records, head_of, require
from tieredstore.moving.fetching import Copy
from tieredstore.moving.transfer import Transfer
from tieredstore.space.room import Need, room
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import DAMAGED, PARTIAL, UNREACHABLE, WHOLE, Located
from tieredstore.verbs.copying import check_names, check_replaceable
from tieredstore.verbs.joined import Joined, JoinedPart, Sources
from tieredstore.verbs.restoring import restore
from tieredstore.workers import PUBLISH_DEADLINE, patience, together, within

PartLike = str | tuple[str, str]

_TRIES: Final = 20
_AT_ONCE: Final = 16  # artifacts that are looked at
_MODE: Final = 0o644


@dataclass(frozen=True, slots=True)
class _Holder:
    """One artifact in the tier: its records, and which of its files are there."""

    where: Located
    records: Records
    here: frozenset[str]


class Composition:
    """One compose, in one tier.

    Parameters
    ----------
    chain : Chain
        The tiers.
    name : str
        The artifact to be made.
    tier : str or None
        Where; ``None``: in the first tier, to which parts are restored before.
    replace : bool
        Replace the artifact in a lower tier even when another recipe made it.
    """

    def __init__(self, chain: Chain, name: str, tier: str | None, *, replace: bool) -> None:
        self._chain = chain
        self._name = name
        self._restores = tier is None
        self._tier = chain.tiers[0] if tier is None else chain.tier(tier)
        self._what = f"tier {self._tier.name!r}"
        self._folder = self._tier.layout.folder(name)
        self._any_recipe = replace or self._tier is chain.tiers[0]

    def run(self, parts: Sequence[PartLike], recipe: Recipe | None) -> Located:
        """Put the file together and publish it; see `TieredStore.compose`."""
        wanted = _wanted(self._name, parts)
        if not self._tier.writable:
            raise TierUnavailable(f"{self._what} cannot be written: nothing can be composed there")
        with self._chain.first.needing() as needed:
            if self._restores:
                self._restore(wanted, needed)
            return self._compose(wanted, recipe)

    def _compose(self, wanted: Sequence[tuple[str, str | None]], recipe: Recipe | None) -> Located:
        found = self._find(wanted)
        records = Records.of([_merged(self._name, found)])
        generation = new_generation()
        head = head_of(records, recipe or Recipe(), generation=generation, kind="file")
        with self._chain.working_on(self._tier, self._name, "promote"), ExitStack() as space:
            there = self._look(head)
            check = partial(check_names, there, self._name, records)
            within(self._tier.deadline, check, self._what)
            need = Need.of(head, list(records.files.values()))
            kept = space.enter_context(room(self._chain, self._tier, self._name, need))
            staging = self._stage(head, records, found)
            kept.written()
            self._publish(staging, head, records)
        return self._tier.locate(self._name)

    # -- what it is made of ---------------------------------------------------------------------

    def _restore(self, wanted: Sequence[tuple[str, str | None]], needed: set[str]) -> None:
        """Bring the parts up; room for one of them is not made of another."""
        files: dict[str, list[str | None]] = {}
        for artifact, file in wanted:
            files.setdefault(artifact, []).append(file)
        for artifact, asked in files.items():
            named = list(dict.fromkeys(file for file in asked if file is not None))
            with restore(self._chain, artifact, None if None in asked else named, None) as got:
                needed.add(got.generation)

    def _find(self, wanted: Sequence[tuple[str, str | None]]) -> list[JoinedPart]:
        """Every part as it lies in the tier.

        Raises
        ------
        ArtifactNotFound, NoSuchFile
            When one is not there, or another generation of it.
        """
        artifacts = list(dict.fromkeys(artifact for artifact, _ in wanted))
        found = together([partial(self._holder, artifact) for artifact in artifacts], _AT_ONCE)
        holders = dict(zip(artifacts, found, strict=True))
        copies = {artifact: h.where.copy(h.records) for artifact, h in holders.items()}
        return [
            JoinedPart(artifact, copies[artifact], self._record(artifact, holders[artifact], file))
            for artifact, file in wanted
        ]

    def _holder(self, artifact: str) -> _Holder:
        tiers = self._chain.tiers
        above = tiers[: tiers.index(self._tier) + 1]
        *before, there = together([partial(tier.locate, artifact) for tier in above])
        if there.state == UNREACHABLE:
            raise TierUnavailable(f"{self._name}: {self._what}: {there.detail}")
        if there.head is None or there.state not in {WHOLE, PARTIAL}:
            raise self._missing(artifact, f"is not there ({there.detail or there.state})")
        nearest = next((w for w in before if w.head is not None), None)
        if nearest is not None and nearest.head is not None:
            known, here = nearest.head.generation, there.head.generation
            if known != here:
                why = f"is there as generation {here}, in tier {nearest.tier.name!r} as {known}"
                raise self._missing(artifact, why)
        records = there.records()
        return _Holder(there, records, frozenset(there.holding(records.files)))

    def _record(self, artifact: str, holder: _Holder, file: str | None) -> FileRecord:
        if file is None:
            if len(holder.records.files) != 1:
                raise NoSuchFile(
                    f"{self._name}: part {artifact!r} has {len(holder.records.files)} files; "
                    f"say which as ({artifact!r}, file)"
                )
            (file,) = holder.records.files
        [record] = require(holder.records, [file], artifact)
        if file not in holder.here:
            raise self._missing(artifact, f"is there without its file {file!r}")
        return record

    def _missing(self, artifact: str, why: str) -> ArtifactNotFound:
        first = self._tier is self._chain.tiers[0]
        verb = "restore" if first else "promote"
        return ArtifactNotFound(
            f"{self._name}: {self._what}: part {artifact!r} {why}; {verb} it there first"
        )

    # -- where it goes --------------------------------------------------------------------------

    def _look(self, head: Head) -> Located:
        """What is there now, which may be replaced."""
        there = self._tier.locate(self._name)
        if there.state == UNREACHABLE or not self._any_recipe:
            check_replaceable(there, self._name, head)
        return there

    def _stage(self, head: Head, records: Records, parts: Sequence[JoinedPart]) -> Staging:
        backend, seconds = self._tier.backend, self._tier.deadline
        assert isinstance(backend, Publishable)
        (file,) = records.files.values()
        self._chain.reporter.started("compose", self._name, file.size)
        with writing_to(self._tier.name):
            staging = within(seconds, lambda: backend.begin(self._folder, head), self._what)
            try:
                if not isinstance(staging, Composable) or not self._inside(staging, file, parts):
                    self._through(staging, head, file, parts)
            except BaseException:
                self._drop(staging)
                raise
        return staging

    def _inside(self, staging: Composable, file: FileRecord, parts: Sequence[JoinedPart]) -> bool:
        """Let the place itself put the file together, where it can."""
        sources = Sources()
        seconds = patience(self._tier.deadline, file.size)
        look = [partial(self._segment, sources, part) for part in parts]
        segments = within(seconds, lambda: together(look, _AT_ONCE), self._what)
        try:
            within(seconds, lambda: staging.compose(file, segments), self._what)
        except Unsupported:
            return False
        except CorruptData as error:
            self._chain.reporter.corrupt(self._tier.name, str(error))
            raise
        self._chain.reporter.advanced(file.size)
        self._chain.reporter.copied(file.path, self._tier.name, self._tier.name)
        return True

    def _segment(self, sources: Sources, part: JoinedPart) -> Segment:
        try:
            return sources.segment(part)
        except (FileNotFoundError, CorruptData) as error:
            raise self._damaged(part, reason(error)) from None

    def _through(
        self, staging: Staging, head: Head, file: FileRecord, parts: Sequence[JoinedPart]
    ) -> None:
        """Read the parts and write them, each block verified."""
        tier, reporter = self._tier, self._chain.reporter
        copy = Copy(tier.name, Joined(parts), self._folder, head, tier.deadline)
        try:
            Transfer([copy], staging, reporter, tier.name, tier.deadline).move([file])
        except CorruptData:
            for part in parts:  # the merged file's offsets say little: which part is it?
                moved = Transfer([part.copy], None, None, "", tier.deadline).compare([part.record])
                if tier.name in moved.damaged:
                    raise self._damaged(part, moved.damaged[tier.name][0]) from None
            raise

    def _damaged(self, part: JoinedPart, problem: str) -> CorruptData:
        self._chain.reporter.corrupt(self._tier.name, problem)
        return CorruptData(
            f"{self._name}: {self._what}: part {part.name} is damaged ({problem}); verify it"
        )

    def _publish(self, staging: Staging, head: Head, records: Records) -> None:
        """Make it visible; what others have published meanwhile is looked at again."""
        try:
            for _ in range(_TRIES):
                why = self._conflict(staging, head, records)
                if not why:
                    break
            else:
                raise HeadConflict(f"{self._name}: {self._what}: others kept replacing it ({why})")
        except (HeadConflict, RecipeConflict):
            self._drop(staging)  # after any other error it may be seen: its keys have to stay
            raise
        where = f"{self._tier.backend.place}/{self._folder}"
        self._chain.reporter.finished("compose", self._name, where)

    def _conflict(self, staging: Staging, head: Head, records: Records) -> str:
        """Publish; why that was too late, or an empty text."""
        publish = partial(staging.publish, head, records, self._expected(self._look(head)))
        try:
            with writing_to(self._tier.name):
                within(PUBLISH_DEADLINE, publish, self._what)
        except HeadConflict as error:
            return reason(error)
        return ""

    def _drop(self, staging: Staging) -> None:
        with suppress(OSError, TieredStoreError):
            within(self._tier.deadline, staging.discard, self._what)

    def _expected(self, there: Located) -> Expected:
        if there.state == DAMAGED:
            return ANY_HEAD
        return there.tag if there.folder == self._folder else None


def _wanted(name: str, parts: Sequence[PartLike]) -> list[tuple[str, str | None]]:
    """The parts, checked, as artifact and file; ``None``: its only one."""
    found: list[tuple[str, str | None]] = []
    for part in [parts] if isinstance(parts, str) else parts:
        if isinstance(part, str):
            found.append((check_name(part), None))
        else:
            artifact, file = part
            found.append((check_name(artifact), check_file(file)))
    if not found:
        raise InvalidName(f"{name}: no parts, expected at least one")
    return found


def _merged(name: str, parts: Sequence[JoinedPart]) -> FileRecord:
    table = b"".join(part.record.table for part in parts)
    size = sum(part.record.size for part in parts)
    return FileRecord(name.rpartition("/")[2], size, _MODE, time.time_ns(), table)
