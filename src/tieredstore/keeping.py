"""The verbs of a store that keep artifacts whole, safe and within their space.

Promoting is in ``promoting.py``, evicting in ``evicting.py`` and ``least_used.py``, pinning in
``pins.py``, verifying in ``auditing.py``, repairing in ``repairing.py``, collecting in ``gc.py``;
the verbs that make artifacts and bring them up are in ``store.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from tieredstore.manifest.names import check_name
from tieredstore.reporter import SILENT, Reporter
from tieredstore.space.evicting import evict, why_kept
from tieredstore.space.least_used import Evicted, Used, Wanted, evict_unused, evictable, measured
from tieredstore.space.pins import Pin, pin, standing, unpin
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import Tier
from tieredstore.tiers.verifying import Verified
from tieredstore.verbs import gc
from tieredstore.verbs.auditing import audit
from tieredstore.verbs.promoting import Promotion, TierOutcome
from tieredstore.verbs.refreshing import RefreshedCopy, refresh
from tieredstore.verbs.removing import remove
from tieredstore.verbs.repairing import repair


class Keeping:
    """A chain of tiers, and what keeps the artifacts on it; the base of `TieredStore`."""

    def __init__(self, tiers: Sequence[Tier], reporter: Reporter | None = None) -> None:
        self._chain = Chain.of(tiers, reporter or SILENT)

    @property
    def chain(self) -> Chain:
        """The chain, for what works on it and is no verb."""
        return self._chain

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The tiers in the order of the chain."""
        return self._chain.tiers

    @property
    def reporter(self) -> Reporter:
        """Who is told what happens."""
        return self._chain.reporter

    def tier(self, name: str) -> Tier:
        """The tier of that name.

        Raises
        ------
        ConfigError
            When there is none.
        """
        return self._chain.tier(name)

    def promote(
        self, name: str, to: Sequence[str] | str | None = None, *, replace: bool = False
    ) -> list[TierOutcome]:
        """Copy an artifact from the first tier down to durable tiers.

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
        list of TierOutcome
            One for each tier: ``copied``, ``present``.

        Raises
        ------
        PromoteFailed
            When a tier did not take it; `RecipeConflict` when each of those holds another recipe.
        """
        check_name(name)
        targets = [to] if isinstance(to, str) else to
        return Promotion(self._chain, name, targets, replace=replace).run()

    def verify(self, name: str, tiers: Sequence[str] | None = None) -> list[Verified]:
        """Compare every byte of an artifact with its manifest, in each tier that holds it."""
        return self.verify_all([name], tiers)[name]

    def verify_all(
        self, names: Sequence[str] | None = None, tiers: Sequence[str] | None = None
    ) -> dict[str, list[Verified]]:
        """Compare every byte of artifacts with their manifests; all tiers are read at once.

        Parameters
        ----------
        names : sequence of str, optional
            The artifacts; all that some tier has by default.
        tiers : sequence of str, optional
            Only their copies.

        Returns
        -------
        dict
            By artifact, one `Verified` for each copy, in the order of the chain.

        Raises
        ------
        ArtifactNotFound
            When one that is named is in none of the tiers.
        """
        return audit(self._chain, names, tiers)

    def repair(
        self, names: Sequence[str] | None = None, tiers: Sequence[str] | None = None
    ) -> dict[str, list[Verified]]:
        """Verify, and mend what is damaged with other tiers' copies of the same generation.

        Only the blocks that are wrong are taken from other tiers. A file that is mended takes the
        damaged one's place at once: a reader never sees it half done.

        Parameters
        ----------
        names, tiers : sequence of str, optional
            See `verify_all`; good blocks are taken from any tier.

        Returns
        -------
        dict
            As `verify_all` gives it; ``repair`` of a damaged copy says what became of it.

        Raises
        ------
        RepairFailed
            When a copy was not mended because no tier has what it lacks; the others were.
        """
        return repair(self._chain, self.verify_all(names, tiers))

    def evict(self, name: str, tier: str | None = None) -> int:
        """Drop a tier's copy, after the same generation was verified in another durable tier.

        Returns
        -------
        int
            Bytes that were freed.

        Raises
        ------
        EvictRefused
            When no verified copy is known elsewhere, or the copy is pinned or leased.
        """
        check_name(name)
        return evict(self._chain, name, self._or_first(tier))

    def why_kept(self, name: str, tier: str | None = None) -> str:
        """Why `evict` would refuse, the bytes of the other copies aside; empty where it would not.

        Nothing is changed.
        """
        return why_kept(self._chain, self._or_first(tier), check_name(name))

    def evict_unused(
        self, tier: str | None = None, free: int | None = None, unused_for: float = 0.0
    ) -> Evicted:
        """Drop copies from a mounted tier, the least recently used first, as `evict` does it.

        Parameters
        ----------
        tier : str, optional
            Where; the first tier by default.
        free : int, optional
            Only until so many bytes are free there, within its limits.
        unused_for : float
            Only what was not used for so many seconds.

        Returns
        -------
        Evicted
            What is gone, what was kept and why, and how many bytes are still missing.

        Raises
        ------
        Unsupported
            When the tier is no folder: what was used when is not known there.
        """
        return evict_unused(self._chain, self._or_first(tier), Wanted(free, unused_for))

    def evictable(
        self, tier: str | None = None, free: int | None = None, unused_for: float = 0.0
    ) -> Evicted:
        """What `evict_unused` would drop, if the other copies turn out right; changes nothing."""
        return evictable(self._chain, self._or_first(tier), Wanted(free, unused_for))

    def pin(self, name: str, seconds: float, tier: str | None = None) -> Pin:
        """Keep an artifact's copy in a mounted tier from being evicted, until the pin ends.

        The copy need not be there yet. Each call makes a pin of its own.

        Raises
        ------
        Unsupported
            When the tier is no folder; nothing is evicted there by itself.
        """
        return pin(self._or_first(tier), check_name(name), seconds)

    def unpin(self, name: str, tier: str | None = None) -> int:
        """Take away all pins of an artifact in a tier, and say how many there were."""
        return unpin(self._or_first(tier), check_name(name))

    def pins(self, tier: str | None = None) -> list[Pin]:
        """The pins in a tier that have not ended, the first to end first."""
        return standing(self._or_first(tier))

    def used(self, tier: str | None = None) -> Used:
        """How full a mounted tier is."""
        return measured(self._or_first(tier))

    def _or_first(self, tier: str | None) -> Tier:
        return self.tiers[0] if tier is None else self.tier(tier)

    def remove(self, name: str, tiers: Sequence[str] | None = None) -> list[str]:
        """Remove an artifact for good, from every tier or the named ones.

        Returns
        -------
        list of str
            The tiers that had it.

        Raises
        ------
        ArtifactNotFound
            When none has it.
        Unsupported
            When a tier that has it cannot be written; nothing has been removed.
        TierUnavailable
            When a tier could not be reached; the others have been done.
        """
        check_name(name)
        chosen = None if tiers is None else [self.tier(t) for t in tiers]
        return remove(self._chain, name, chosen)

    def litter(
        self, tiers: Sequence[str] | None = None, grace: float = gc.GRACE
    ) -> list[gc.TierLitter]:
        """What is left over in tiers: replaced generations, and what was never published.

        Parameters
        ----------
        tiers : sequence of str, optional
            Only these; all that can tell by default.
        grace : float
            Seconds; what was written to, or replaced, since then is left alone.

        Returns
        -------
        list of TierLitter
            One for each tier that was looked at; ``failed`` where it could not be.

        Raises
        ------
        Unsupported
            When a tier that is named cannot tell, or is read-only.
        """
        return gc.find(self._chain, tiers, grace)

    def collect(
        self,
        tiers: Sequence[str] | None = None,
        grace: float = gc.GRACE,
        *,
        damaged: bool = False,
    ) -> list[gc.TierLitter]:
        """Drop what `litter` finds; what has come into use meanwhile is left alone.

        What nobody knows stays, and so do copies that were kept aside because they are damaged,
        unless ``damaged`` says that they may go.
        """
        return gc.collect(self._chain, tiers, grace, damaged=damaged)

    def refresh(
        self, names: Sequence[str] = (), expiring: float | None = None
    ) -> list[RefreshedCopy]:
        """Use copies in tiers with ``purge_days``, so that their files are not deleted.

        Each file is read, and where it is one's own its time of access is set. Some sites forbid
        that; ask before it is done to much.

        Parameters
        ----------
        names : sequence of str
            Artifacts; all by default.
        expiring : float, optional
            Only copies of which a file may be deleted within so many seconds.

        Raises
        ------
        Unsupported
            When no tier sets ``purge_days``.
        ArtifactNotFound
            When one that is named is in none of those.
        """
        return refresh(self._chain, [check_name(name) for name in names], expiring)
