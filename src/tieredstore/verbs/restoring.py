"""Bring an artifact up to the first tier, from whichever lower tiers can serve it.

Copies of one generation serve together; one that turns out damaged or gone is kept aside, said
so, and the next one is taken. Data without a manifest is measured while it moves, and both ends
get the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from tieredstore.backend import Publishable
from tieredstore.errors import (
    ArtifactNotFound,
    CorruptData,
    HeadConflict,
    ManifestError,
    NoSpace,
    NoSuchFile,
    TieredStoreError,
    TierUnavailable,
    overtaken,
    reason,
    writing_to,
)
from tieredstore.manifest.artifact import Head, Recipe
from tieredstore.manifest.names import check_case_clashes
from tieredstore.manifest.records import FileRecord, Records, require
from tieredstore.moving.transfer import Transfer
from tieredstore.space.room import Need, room
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.got import Got
from tieredstore.tiers.tier import DAMAGED, PARTIAL, UNMANAGED, UNREACHABLE, Located, Tier
from tieredstore.verbs.adopting import adopt_in_place
from tieredstore.verbs.populating import Populating
from tieredstore.verbs.unmanaged import AS_IT_IS, Adoption, bring_unmanaged
from tieredstore.workers import together, within

_TRIES: Final = 5


def restore(
    chain: Chain,
    name: str,
    files: Sequence[str] | None,
    recipe: Recipe | None,
    adoption: Adoption = AS_IT_IS,
) -> Got:
    """See `TieredStore.restore`."""
    got = None if adoption.replace else chain.first.hit(name, files, recipe)
    if got is None:
        with closing(Populating(chain, name, files)) as populating, ExitStack() as lease:
            chain = lease.enter_context(chain.working_on(chain.tiers[0], name, "restore"))
            got = None if adoption.replace else chain.first.hit(name, files, recipe)
            if got is None:
                restoration = Restoration(chain, name, files, recipe, adoption)
                got = restoration.run(populating)
                lease.close()  # who waits for it finds in the first tier now what it needs
                restoration.populate(got, populating)
                return got
    chain.reporter.hit(name, got.source)
    return got


class Restoration:
    """One restore; state of its own, so that two never share any."""

    def __init__(
        self,
        chain: Chain,
        name: str,
        files: Sequence[str] | None,
        recipe: Recipe | None,
        adoption: Adoption = AS_IT_IS,
    ) -> None:
        self._adoption = adoption
        self._chain = chain
        self._first = chain.first
        self._name = name
        self._files = files
        self._recipe = recipe
        self._why: dict[str, str] = {}
        self._aside: set[tuple[str, str]] = set()
        self._down: dict[str, Located] = {}
        self._lost: set[str] = set()
        self._source: Tier | None = None
        self._found = self._here()  # only this may be replaced, nothing published meanwhile

    def run(self, populating: Populating) -> Got:
        """Restore from the first generation that can be had, in turn with others who fill tiers.

        Raises
        ------
        ArtifactNotFound
            When no tier can serve it.
        """
        got = self._adopt_first()
        if got is not None:
            return got
        located = populating.wait_turn(self._below, self._serves_all)
        for _ in range(_TRIES):
            for where in located:
                self._tell_skipped(where)
            got = self._from([w for w in located if self._would_serve(w)])
            if got is not None:
                return got
            before, located = located, self._below()
            if [w.tag for w in located] == [w.tag for w in before]:
                break  # else one was replaced while it was read
        raise self._not_found(located)

    def populate(self, got: Got, populating: Populating) -> None:
        """Fill the tiers that lie before the one which served."""
        head = None if self._source is None else self._first.tier.locate(self._name).head
        if self._source is not None and head is not None and head.generation == got.generation:
            down = self._lost.union(self._down)
            self._why.update(populating.fill(self._source, head, self._files, down))
            got.source = populating.origin or got.source
            got.skipped = dict(self._why)

    def _below(self) -> list[Located]:
        """What the lower tiers have; one that could not be reached is not asked again."""
        tiers = self._chain.tiers[1:]
        ask = [t for t in tiers if t.name not in self._down]
        found = together([partial(t.locate, self._name, self._files) for t in ask])
        self._down.update({w.tier.name: w for w in found if w.state == UNREACHABLE})
        asked = {w.tier.name: w for w in found} | self._down
        return [asked[t.name] for t in tiers]

    def _from(self, left: list[Located]) -> Got | None:
        """Restore from the first of these that can serve."""
        while left:
            chosen = left[0]
            same = [w for w in left if _same_generation(w, chosen)]
            source = next((w for w in same if self._serves_all(w)), chosen)
            try:
                got = self._restore(source, same)
                self._source = self._served(same)
                got.source = self._source.name
                return got
            except NoSuchFile:
                raise
            except HeadConflict:
                return self._again()
            except (CorruptData, TierUnavailable, FileNotFoundError) as error:
                if isinstance(error, TierUnavailable) and error.writing:
                    raise  # this is where it has to go: another copy would not help
                self._why.setdefault(chosen.tier.name, reason(error))
            left = [w for w in left if w not in same]
        return None

    def _served(self, same: Sequence[Located]) -> Tier:
        """Where it came from: the nearest that has it all, else the farthest that gave some."""
        lost = [w for w in same if w.tier.name in self._lost or _identity(w) in self._aside]
        gave = [w for w in same if w not in lost]
        return next(filter(self._serves_all, gave), (gave or same)[-1]).tier

    def _here(self) -> str | None:
        with suppress(OSError, ManifestError):
            held = self._first.backend.hold(self._first.tier.layout.folder(self._name))
            if held is not None:
                with closing(held):
                    return held.head.generation
        return None

    def _again(self) -> Got:
        """Serve what somebody else has published in the first tier meanwhile."""
        got = self._first.hit(self._name, self._files, self._recipe)
        if got is None:
            raise HeadConflict(f"{self._name}: kept changing while it was being restored")
        got.skipped = dict(self._why)
        return got

    def _tell_skipped(self, where: Located) -> None:
        if where.state in {DAMAGED, UNREACHABLE}:
            self._why[where.tier.name] = where.detail
            self._chain.reporter.skipped(where.tier.name, where.detail)

    def _serves_all(self, where: Located) -> bool:
        """Whether one tier has all that is asked for, and not only some of the files."""
        if not self._would_serve(where) or (where.state == PARTIAL and self._files is None):
            return False
        wanted = set(self._files or ())
        return self._holding(where, wanted) == wanted

    def _holding(self, where: Located, files: Iterable[str]) -> set[str]:
        try:
            return where.holding(files)
        except (OSError, TieredStoreError) as error:
            self._failed(where, reason(error))
            return set()

    def _failed(self, where: Located, why: str) -> None:
        self._why[where.tier.name] = why
        self._down[where.tier.name] = Located(where.tier, UNREACHABLE, where.folder, detail=why)
        self._chain.reporter.skipped(where.tier.name, why)

    def _would_serve(self, where: Located) -> bool:
        if where.serves(self._recipe):
            return True
        if where.present and self._recipe is not None and where.recipe is not None:
            self._why[where.tier.name] = (
                f"another recipe ({self._recipe.differences(where.recipe)})"
            )
        return False

    def _not_found(self, below: Sequence[Located]) -> ArtifactNotFound:
        first = self._first.tier.locate(self._name, self._files)
        if first.present:
            detail = "not whole"
            if self._recipe is not None and first.recipe is not None:
                differences = self._recipe.differences(first.recipe)
                detail = f"another recipe ({differences})" if differences else detail
            self._why.setdefault(first.tier.name, detail)
        return self._chain.not_found(self._name, [first, *below], self._why)

    # -- data without a manifest ----------------------------------------------------------------

    def _adopt_first(self) -> Got | None:
        tier = self._first.tier
        found = tier.unmanaged(self._name, self._files)
        if found is None:
            return None
        folder, files = found.folder, found.files
        self._chain.reporter.adopted(self._name, tier.name)
        if folder == tier.layout.folder(self._name) and tier.writable:
            with suppress(OSError):
                adopt_in_place(self._first.backend, folder, files)
                return self._first.hit(self._name, self._files, self._recipe)
        path = Path(self._first.backend.place, folder)
        return Got(self._name, path, tier.name, None, "", dict(self._why))

    # -- from below -----------------------------------------------------------------------------

    def _restore(self, chosen: Located, same: Sequence[Located]) -> Got:
        if not self._first.tier.writable:
            raise TierUnavailable(
                f"tier {self._first.tier.name!r} is read-only: nothing can be restored"
            )
        reporter = self._chain.reporter
        reporter.located(
            self._name, chosen.tier.name, f"{chosen.tier.backend.place}/{chosen.folder}"
        )
        if chosen.state == UNMANAGED:
            bring_unmanaged(self._chain, self._name, chosen, self._found, self._adoption)
            return self._finish(chosen)
        assert chosen.head is not None
        self._first.check_free(self._name)
        records = self._read_records(same)
        wanted = list(records.files.values())
        if self._files is not None:
            wanted = require(records, self._files, self._name)
        if not self._first.backend.keeps_case:
            check_case_clashes((f.path for f in wanted), self._first.backend.place)
        needed = self._missing_here(chosen, records, wanted)
        for left in reversed(range(_TRIES)):
            try:
                self._bring(chosen.head, records, needed, same)
            except TierUnavailable as error:
                if not left or not (overtaken(error) or isinstance(error, NoSpace)):
                    raise
                if isinstance(error, NoSpace) and needed == self._missing_here(
                    chosen, records, wanted
                ):
                    raise  # else another has just brought what room was sought for
            needed = self._missing_here(chosen, records, wanted)
            if not needed:
                break
        return self._finish(chosen)

    def _bring(
        self,
        head: Head,
        records: Records,
        needed: Sequence[FileRecord],
        same: Sequence[Located],
    ) -> None:
        """Move files into the stage of their generation, and publish it."""
        first, reporter = self._first, self._chain.reporter
        head = replace(head, shards=None)  # files lie here as they are
        with room(self._chain, first.tier, self._name, Need.of(head, needed)) as space:
            with writing_to(first.tier.name):
                staging = first.backend.begin(first.tier.layout.folder(self._name), head)
            reporter.started("restore", self._name, sum(f.size for f in needed))
            for sharing, files in self._shared_out(same, needed):
                copies = [w.copy(records) for w in sharing]
                deadline = first.tier.deadline
                transfer = Transfer(copies, staging, reporter, first.tier.name, deadline)
                try:
                    transfer.move(files)
                finally:
                    self._why.update(transfer.moved.failed)
                    self._lost.update(transfer.moved.failed)
                    self._set_aside(same, transfer.moved.damaged)
            space.written()
            with writing_to(first.tier.name):
                staging.publish(head, records, self._found)

    def _shared_out(
        self, same: Sequence[Located], needed: Sequence[FileRecord]
    ) -> list[tuple[list[Located], list[FileRecord]]]:
        """Files by the copies that have them: a partial one is asked for its own files only."""
        usable = [w for w in same if _identity(w) not in self._aside]
        here = [self._holding(w, [f.path for f in needed]) for w in usable]
        shares: dict[tuple[int, ...], list[FileRecord]] = {}
        for file in needed:
            having = tuple(n for n, found in enumerate(here) if file.path in found)
            if not having:
                raise TierUnavailable(f"only some of its files are there, not {file.path}")
            shares.setdefault(having, []).append(file)
        return [([usable[n] for n in having], files) for having, files in shares.items()]

    def _read_records(self, same: Sequence[Located]) -> Records:
        """The records of a generation, from the first of its copies that has them right."""
        problem: Exception | None = None
        for where in same:
            try:
                return where.records()
            except (CorruptData, ManifestError) as error:
                problem = error
                self._set_aside([where], {where.tier.name: [str(error)]})
            except (OSError, TieredStoreError) as error:
                problem = error
                self._failed(where, reason(error))
        raise CorruptData(reason(problem) if problem else "no records") from problem

    def _missing_here(
        self, chosen: Located, records: Records, wanted: Sequence[FileRecord]
    ) -> list[FileRecord]:
        assert chosen.head is not None
        held = self._first.held(self._name)
        if held is None:
            return list(wanted)
        try:
            if held.head.generation != chosen.head.generation:
                return list(wanted)
            there = self._first.present(held, records)
            return [f for f in wanted if f.path not in there]
        finally:
            held.close()

    def _finish(self, chosen: Located) -> Got:
        held = self._first.held(self._name)
        if held is None:
            raise FileNotFoundError(f"{self._name}: was taken away right after it was restored")
        got = self._first.got(self._name, held, chosen.tier.name)
        got.skipped = dict(self._why)
        self._chain.reporter.finished("restore", self._name, str(got.path))
        return got

    def _set_aside(self, same: Sequence[Located], damaged: dict[str, list[str]]) -> None:
        for where in same:
            problems = damaged.get(where.tier.name)
            if not problems:
                continue
            text = problems[0]
            self._aside.add(_identity(where))
            self._why[where.tier.name] = text
            if where.head is not None and where.tier.writable:
                assert isinstance(where.tier.backend, Publishable)
                with suppress(OSError, TieredStoreError):
                    aside = partial(where.tier.backend.set_aside, where.folder, where.head)
                    kept = within(where.tier.deadline, aside, f"tier {where.tier.name!r}")
                    text = f"{text}; the copy is kept aside as {kept}"
            self._chain.reporter.corrupt(where.tier.name, text)


def _identity(where: Located) -> tuple[str, str]:
    return where.tier.name, "" if where.head is None else where.head.generation


def _same_generation(one: Located, other: Located) -> bool:
    if one.head is None or other.head is None:
        return one is other
    return (one.head.generation, one.head.records_digest) == (
        other.head.generation,
        other.head.records_digest,
    )
