"""Copy a generation from the first tier down to another one: what promote and populate share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tieredstore.artifact import Head
from tieredstore.backend import Expected, Publishable
from tieredstore.chain import Chain
from tieredstore.errors import ArtifactExists, CorruptData
from tieredstore.names import check_case_clashes, parents
from tieredstore.records import FileRecord, Records
from tieredstore.tier import Located, Tier
from tieredstore.transfer import Copy, Transfer
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
        within(tier.deadline, lambda: self._check_names(tier, there), what)
        folder = tier.layout.folder(self.name)
        staging = within(tier.deadline, lambda: backend.begin(folder, self.head), what)
        reporter.started(self.verb, self.name, sum(f.size for f in files))
        transfer = Transfer(self.copies, staging, reporter, tier.name, tier.deadline)
        moved = transfer.move(files)
        within(seconds, lambda: staging.publish(self.head, self.records, expected), what)
        reporter.finished(self.verb, self.name, f"{tier.backend.place}/{folder}")
        first = self.copies[0].tier
        if first in moved.damaged:
            problem = moved.damaged[first][0]
            reporter.corrupt(first, problem)
            raise CorruptData(f"the copy in {first!r} is damaged ({problem}); verify it")
        return moved.size

    def _check_names(self, tier: Tier, there: Located) -> None:
        """Refuse names that the place cannot keep apart, and artifacts inside one another."""
        if not tier.backend.keeps_case:
            check_case_clashes(self.records.files, tier.backend.place)
        if there.head is not None:
            return
        for above in parents(self.name):
            if tier.backend.read_head(tier.layout.folder(above)) is not None:
                raise ArtifactExists(f"{self.name}: lies inside {above!r} in tier {tier.name!r}")
        for found in tier.backend.folders(tier.layout.inner(self.name)):
            name = tier.layout.name_of(found)
            if name is not None and name.startswith(f"{self.name}/"):
                raise ArtifactExists(f"{self.name}: holds {name!r} in tier {tier.name!r}")
