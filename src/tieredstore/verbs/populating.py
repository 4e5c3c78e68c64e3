"""Fill tiers on the way up: what one restore brings from far away, the next node finds near.

Of the tiers with ``populate`` that lie before the one which serves, the farthest is filled first,
straight from there: what one that was killed has put into its stage serves the next one, and the
first tier is restored from it as everybody else's is. The tiers before take a copy from the first
tier after the restore. Only what is missing is put in, nothing else is replaced, and whatever goes
wrong leaves the restore as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Final

from tieredstore.backends.local import LocalBackend
from tieredstore.errors import (
    CorruptData,
    HeadConflict,
    ManifestError,
    TieredStoreError,
    TierUnavailable,
    overtaken,
    reason,
)
from tieredstore.manifest.artifact import Head
from tieredstore.moving.fetching import Copy
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import ABSENT, PARTIAL, PENDING, WHOLE, Located, Tier
from tieredstore.verbs.copying import Descent
from tieredstore.workers import patience, within

_ROUNDS: Final = 2  # waits for others that fill; who waited so often in vain goes on alone
_LOOKS: Final = 20
_BRIEF: Final = 0.3  # seconds
_TRIES: Final = 5

Look = Callable[[], list[Located]]
Serves = Callable[[Located], bool]
Origin = Callable[[], Sequence[Copy]]


class Populating:
    """The tiers that one restore, of all files or of some, fills.

    Attributes
    ----------
    origin : str
        The tier from which this one has filled another before the restore; empty: none.
    """

    def __init__(self, chain: Chain, name: str, files: Sequence[str] | None) -> None:
        self._chain = chain
        self._name = name
        self._files = files
        self._failed: dict[str, str] = {}
        self._held = ExitStack()
        self.origin = ""

    def wait_turn(self, look: Look, serves: Serves) -> list[Located]:
        """Of many that restore at once, let one bring it from afar, and the others wait for it.

        Who is first holds the lease of the tier that is to be filled, and fills it. The others
        wait until it is free, and find the tier filled; they hold nothing then, and copy from
        there at the same time. Where it cannot be filled the lease is held until `close`.

        Parameters
        ----------
        look : callable
            Asks the tiers below the first.
        serves : callable
            Whether what a tier has is all that is asked for.

        Returns
        -------
        list of Located
            What the tiers have now.
        """
        located, rounds = look(), 0
        for _ in range(_LOOKS):
            tier = self._gap(located, serves)
            if tier is None or rounds == _ROUNDS:
                break
            mine = self._chain.only_one(self._held, tier, self._name, "populate")
            if not mine:
                since = time.monotonic()
                with self._chain.working_on(tier, self._name, "populate"):
                    # Another that waited, and let go at once, is nobody who filled in vain.
                    rounds += time.monotonic() - since > _BRIEF
            located = look()
            if mine:
                located = self._bring(located, look, serves)
                break
        if self._gap(located, serves) is None:
            self.close()
        return located

    def _bring(self, located: list[Located], look: Look, serves: Serves) -> list[Located]:
        """Have what serves copied into the tier to fill, and look again."""
        tier = self._gap(located, serves)
        if tier is None:
            return located
        source = next((w for w in located if serves(w)), None)
        if source is None or source.head is None:
            return located  # without a manifest it is measured on its way to the first tier
        same = [w for w in located if serves(w) and _same(w, source.head)]
        with suppress(CorruptData, ManifestError):  # the restore meets it too, and keeps it aside
            self._fill_one(tier, source.head, self._files, partial(_from_below, same))
            self.origin = "" if tier.name in self._failed else source.tier.name
            return look()
        return located

    def _gap(self, located: Sequence[Located], serves: Serves) -> Tier | None:
        """The last of the tiers to fill that lie before the one which serves.

        It is the one that most nodes share. One lease is enough, and where nobody holds two there
        is no order in which they could wait for each other.
        """
        source = next((n for n, where in enumerate(located) if serves(where)), 0)
        gap = None
        for where in located[:source]:
            tier = where.tier
            able = tier.populate and tier.writable and self._takes(tier)
            if able and not _in_the_way(where, located[source].head):
                gap = tier
        return gap

    def _takes(self, tier: Tier) -> bool:
        return isinstance(tier.backend, LocalBackend) or self._files is None

    def fill(
        self, source: Tier, head: Head, files: Sequence[str] | None, down: Container[str]
    ) -> dict[str, str]:
        """Put files that the first tier holds now into the tiers before ``source``.

        Parameters
        ----------
        source : Tier
            Where they came from.
        head : Head
            Their generation.
        files : sequence of str, optional
            Those that were asked for; all by default.
        down : container of str
            Tiers that are not asked any more.

        Returns
        -------
        dict
            Tiers that were not filled, with the reason.
        """
        for tier in self._chain.tiers[1 : self._chain.tiers.index(source)]:
            if tier.populate and tier.name not in down and tier.name not in self._failed:
                with suppress(CorruptData, ManifestError):
                    self._fill_one(tier, head, files, partial(self._from_first, head))
        return dict(self._failed)

    def _fill_one(
        self, tier: Tier, head: Head, files: Sequence[str] | None, origin: Origin
    ) -> None:
        try:
            self._try_to_put_in(tier, head, files, origin)
        except Exception as error:
            self._failed[tier.name] = f"not filled: {reason(error)}"
            self._chain.reporter.skipped(tier.name, self._failed[tier.name])
            if isinstance(error, (CorruptData, ManifestError)):
                raise

    def close(self) -> None:
        """Let go of the lease."""
        self._held.close()

    def _try_to_put_in(
        self, tier: Tier, head: Head, files: Sequence[str] | None, origin: Origin
    ) -> None:
        for left in reversed(range(_TRIES)):
            try:
                self._put_in(tier, head, files, origin)
            except (HeadConflict, TierUnavailable) as error:
                if not left or not overtaken(error):
                    raise
            else:
                return

    def _put_in(self, tier: Tier, head: Head, files: Sequence[str] | None, origin: Origin) -> None:
        if not tier.writable:
            raise TierUnavailable("it cannot be written")
        there = tier.locate(self._name)
        if _same(there, head) and there.state == WHOLE:
            return
        why = _in_the_way(there, head)
        if why:
            raise TierUnavailable(why)
        _check_nothing_lies_there(there)
        copies = origin()
        if not copies:
            return
        records = copies[0].records
        assert records is not None
        wanted = set(records.files if files is None else files)
        if len(wanted) < head.files and not isinstance(tier.backend, LocalBackend):
            raise TierUnavailable("only some files were asked for; this tier takes whole artifacts")
        held = there.holding(wanted) if _same(there, head) else set()
        missing = [record for f, record in records.files.items() if f in wanted - held]
        if not missing:
            return
        descent = Descent(self._chain, self._name, "populate", head, records, copies)
        seconds = patience(tier.deadline, sum(f.size for f in missing))
        descent.move(there, missing, there.tag, seconds)

    def _from_first(self, head: Head) -> list[Copy]:
        """The first tier's copy, unless it was replaced since: that was not asked for."""
        first = self._chain.tiers[0].locate(self._name)
        return [first.copy(first.records())] if _same(first, head) else []


def _from_below(same: Sequence[Located]) -> list[Copy]:
    """Copies of one generation, with the records of the first of them."""
    records = same[0].records()
    return [where.copy(records) for where in same]


def _in_the_way(there: Located, head: Head | None) -> str:
    """Why a tier cannot take a generation; only files of the same one, or of an older, give way."""
    if there.state == ABSENT:
        return ""
    if there.state == PENDING:
        return "" if _left_over(there, head) else "files are being put in, or taken away"
    if there.head is None or head is None:
        return there.detail or f"what is there is {there.state}"
    if _same(there, head):
        return ""
    recipe, own = there.head.recipe, head.recipe
    if recipe is None or own is None or not own.same_as(recipe):
        differences = own.differences(recipe) if own and recipe else "recipe unknown"
        return f"it is there made otherwise ({differences})"
    if there.state == PARTIAL and there.head.created < head.created:
        return ""
    return "another generation is there; promote to this tier to replace it"


def _left_over(there: Located, head: Head | None) -> bool:
    """Whether it is what a damaged copy of that generation has left, in files nobody knew of."""
    backend, tier = there.tier.backend, there.tier
    if head is None or not isinstance(backend, LocalBackend):
        return False
    look, mark = partial(backend.mount.pending, there.folder), None
    with suppress(OSError, TieredStoreError):  # then it is not filled, and the restore goes on
        mark = within(tier.deadline, look, f"tier {tier.name!r}")
    return mark is not None and (mark.kind, mark.generation) == ("filling", head.generation)


def _same(there: Located, head: Head) -> bool:
    return there.head is not None and there.head.generation == head.generation


def _check_nothing_lies_there(there: Located) -> None:
    """Files without a manifest are somebody's, whether they may be adopted or not."""
    backend = there.tier.backend
    if there.state == ABSENT and isinstance(backend, LocalBackend):
        look = partial(backend.mount.unmanaged, there.folder)
        if within(there.tier.deadline, look, f"tier {there.tier.name!r}"):
            raise TierUnavailable("files without a manifest lie there")
