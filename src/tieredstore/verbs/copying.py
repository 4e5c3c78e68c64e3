"""Copy a generation from the first tier down to another one, and what is looked at before.

Shared by promote, populate and compose.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from tieredstore.backend import Expected, Publishable
from tieredstore.errors import ArtifactExists, CorruptData, NoSpace, RecipeConflict, TierUnavailable
from tieredstore.manifest.artifact import Head
from tieredstore.manifest.names import check_case_clashes, parents
from tieredstore.manifest.records import FileRecord, Records
from tieredstore.manifest.shards import worth_packing
from tieredstore.moving.fetching import Copy
from tieredstore.moving.packing import Packing
from tieredstore.moving.transfer import Transfer
from tieredstore.space.room import Need, Room, room
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import AUTO, UNREACHABLE, Located, Tier
from tieredstore.workers import within


@dataclass(frozen=True, slots=True)
class Descent:
    """One generation of an artifact on its way down to another tier.

    Attributes
    ----------
    chain : Chain
        The tiers.
    name : str
        The artifact.
    verb : str
        What the reporter is told: ``promote`` or ``populate``.
    head : Head
        The generation.
    records : Records
        Of the generation.
    copies : sequence of Copy
        Where to read; the first tier's comes first.
    """

    chain: Chain
    name: str
    verb: str
    head: Head
    records: Records
    copies: Sequence[Copy]

    def move(
        self, there: Located, files: Sequence[FileRecord], expected: Expected, seconds: float
    ) -> int:
        """Stage files in a tier and publish them there.

        Parameters
        ----------
        there : Located
            What the tier has of the artifact now.
        files : sequence of FileRecord
            What is to be moved of the generation.
        expected : str, None or ANY_HEAD
            Tag of the head that may be replaced.
        seconds : float
            How long the publication may take: it flushes all that was written.

        Returns
        -------
        int
            Bytes that were moved.

        Raises
        ------
        HeadConflict
            When somebody else has published there meanwhile.
        CorruptData
            When the first tier's copy is damaged.
        TierUnavailable
            When the tier could not take it.
        """
        tier, reporter = there.tier, self.chain.reporter
        backend = tier.backend
        assert isinstance(backend, Publishable)
        what = f"tier {tier.name!r}"
        within(tier.deadline, lambda: check_names(there, self.name, self.records), what)
        folder = tier.layout.folder(self.name)
        packing = self._packing(tier)
        head = self.head if packing is None else packing.head(self.head)
        with self._room(there, Need.of(head, files)) as space:
            staging = within(tier.deadline, lambda: backend.begin(folder, head), what)
            reporter.started(self.verb, self.name, sum(f.size for f in files))
            transfer = Transfer(self.copies, staging, reporter, tier.name, tier.deadline)
            if packing is None:
                moved = transfer.move(files)
            else:
                moved = transfer.move_open(packing.files())
                within(seconds, partial(packing.put_index, staging), what)
            space.written()
            within(seconds, lambda: staging.publish(head, self.records, expected), what)
        reporter.finished(self.verb, self.name, f"{tier.backend.place}/{folder}")
        first = self.copies[0].tier
        if first in moved.damaged:
            problem = moved.damaged[first][0]
            reporter.corrupt(first, problem)
            raise CorruptData(f"the copy in {first!r} is damaged ({problem}); verify it")
        return moved.size

    @contextmanager
    def _room(self, there: Located, need: Need) -> Iterator[Room]:
        tier = there.tier
        with ExitStack() as kept:
            try:
                space = kept.enter_context(room(self.chain, tier, self.name, need))
            except NoSpace as error:
                now = tier.locate(self.name)
                if (now.state, now.tag) == (there.state, there.tag):
                    raise
                raise TierUnavailable(str(error), errno.ENOENT, tier.name) from error  # look again
            yield space

    def _packing(self, tier: Tier) -> Packing | None:
        """Shards instead of the files, where the tier wants that and there are many."""
        if tier.pack != AUTO or not worth_packing(self.records):
            return None
        return Packing.of(self.records)


def check_names(there: Located, name: str, records: Records) -> None:
    """Refuse names that the place cannot keep apart, and artifacts inside one another."""
    tier = there.tier
    if not tier.backend.keeps_case:
        check_case_clashes(records.files, tier.backend.place)
    if there.head is not None:
        return
    for above in parents(name):
        if tier.backend.read_head(tier.layout.folder(above)) is not None:
            raise ArtifactExists(f"{name}: lies inside {above!r} in tier {tier.name!r}")
    for found in tier.backend.folders(tier.layout.inner(name)):
        inside = tier.layout.name_of(found)
        if inside is not None and inside.startswith(f"{name}/"):
            raise ArtifactExists(f"{name}: holds {inside!r} in tier {tier.name!r}")


def check_replaceable(there: Located, name: str, head: Head) -> None:
    """Refuse to replace what may be the only copy of something else.

    Raises
    ------
    TierUnavailable
        When the tier did not say what it has.
    RecipeConflict
        When it holds the artifact made by another recipe, or by an unknown one.
    """
    if there.state == UNREACHABLE:
        raise TierUnavailable(there.detail)
    if not there.present:
        return  # nothing that could be used is there
    if there.head is not None and there.head.generation == head.generation:
        return
    known = None if there.head is None else there.head.recipe
    if known is None or head.recipe is None or not head.recipe.same_as(known):
        differences = head.recipe.differences(known) if head.recipe and known else "recipe unknown"
        raise RecipeConflict(
            f"{name}: tier {there.tier.name!r} holds it made otherwise ({differences}); "
            f"replace it with replace=True or --force"
        )
