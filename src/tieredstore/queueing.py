"""The verbs of a store that let promotes wait, and do them later."""

from __future__ import annotations

from collections.abc import Sequence

from tieredstore.keeping import Keeping
from tieredstore.manifest.names import check_name
from tieredstore.tiers import queued
from tieredstore.tiers.queued import Queued
from tieredstore.verbs.flushing import Flushed, enqueue, flush


class Queueing(Keeping):
    """A chain of tiers with a queue in the first one; a base of `TieredStore`."""

    def queue_promote(
        self, name: str, to: Sequence[str] | str | None = None, *, replace: bool = False
    ) -> list[Queued]:
        """Let a promote wait until `flush`: written down in the first tier, which keeps its copy.

        What is queued outlives this process. The first tier's copy is not evicted while it waits.

        Parameters
        ----------
        name : str
            The artifact.
        to : str or sequence of str, optional
            Tiers by name; all durable ones by default.
        replace : bool
            Replace the artifact there even when another recipe made it.

        Returns
        -------
        list of Queued
            One for each tier; one that waits already is not queued again.

        Raises
        ------
        ArtifactNotFound
            When the first tier does not have it.
        Unsupported
            When a tier that is named cannot be written.
        """
        check_name(name)
        return enqueue(self._chain, name, [to] if isinstance(to, str) else to, replace=replace)

    def queued(self, name: str | None = None) -> list[Queued]:
        """The promotes that wait, or those of one artifact; the oldest first."""
        return queued.entries(self.tiers[0], name)

    def flush(self, names: Sequence[str] | None = None) -> list[Flushed]:
        """Promote what waits. Several may flush at once: each takes what no other is at.

        What was replaced since it was queued is promoted as it is now. What fails goes on
        waiting, with the reason, and is tried again by a flush a minute later, then after two, up
        to an hour.

        Parameters
        ----------
        names : sequence of str, optional
            Only these artifacts, at once even when they have failed just now.

        Returns
        -------
        list of Flushed
            One for each artifact and tier; nothing is raised for what failed.
        """
        return flush(self._chain, names)

    def unqueue(self, name: str, to: Sequence[str] | str | None = None) -> int:
        """Promote an artifact no more, to these tiers or to any, and say how much had waited."""
        wanted = {to} if isinstance(to, str) else None if to is None else set(to)
        waiting = self.queued(check_name(name))
        chosen = [each for each in waiting if wanted is None or each.tier in wanted]
        queued.remove(self.tiers[0], chosen)
        return len(chosen)
