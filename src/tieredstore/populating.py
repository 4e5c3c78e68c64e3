"""Fill tiers on the way up: what a restore brought from far away, the next node finds near.

A tier with ``populate`` that lies before the one which serves takes a copy, from the first tier,
after the restore. Only what is missing there is put in, nothing else is replaced, and whatever
goes wrong leaves the restore as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Final

from tieredstore.artifact import Head
from tieredstore.backends.local import LocalBackend
from tieredstore.chain import Chain
from tieredstore.copying import Descent
from tieredstore.errors import HeadConflict, TierUnavailable, overtaken, reason
from tieredstore.tier import ABSENT, PARTIAL, PENDING, WHOLE, Located, Tier
from tieredstore.workers import patience, within

_ROUNDS: Final = 2  # waits for others that fill; who waited so often in vain goes on alone
_TRIES: Final = 5

Look = Callable[[], list[Located]]
Serves = Callable[[Located], bool]


class Populating:
    """The tiers that one restore, of all files or of some, fills."""

    def __init__(self, chain: Chain, name: str, files: Sequence[str] | None) -> None:
        self._chain = chain
        self._name = name
        self._some = files is not None
        self._held = ExitStack()

    def wait_turn(self, look: Look, serves: Serves) -> list[Located]:
        """Of many that restore at once, let one bring it from afar, and the others wait for it.

        Who is first holds the lease of the tier that is to be filled, until `close`. The others
        wait until it is free, and find the tier filled; they hold nothing then, and copy from
        there at the same time.

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
        located = look()
        for _ in range(_ROUNDS):
            tier = self._gap(located, serves)
            if tier is None:
                break
            mine = self._chain.only_one(self._held, tier, self._name, "populate")
            if not mine:
                with self._chain.working_on(tier, self._name, "populate"):
                    pass
            located = look()
            if mine:
                break
        if self._gap(located, serves) is None:
            self.close()
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
        return isinstance(tier.backend, LocalBackend) or not self._some

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
        before = self._chain.tiers[1 : self._chain.tiers.index(source)]
        skipped: dict[str, str] = {}
        for tier in before:
            if not tier.populate or tier.name in down:
                continue
            try:
                self._try_to_put_in(tier, head, files)
            except Exception as error:  # noqa: BLE001 - the restore is done, and stays so
                skipped[tier.name] = f"not filled: {reason(error)}"
                self._chain.reporter.skipped(tier.name, skipped[tier.name])
        return skipped

    def close(self) -> None:
        """Let go of the lease."""
        self._held.close()

    def _try_to_put_in(self, tier: Tier, head: Head, files: Sequence[str] | None) -> None:
        for left in reversed(range(_TRIES)):
            try:
                self._put_in(tier, head, files)
            except (HeadConflict, TierUnavailable) as error:
                if not left or not overtaken(error):
                    raise
            else:
                return

    def _put_in(self, tier: Tier, head: Head, files: Sequence[str] | None) -> None:
        if not tier.writable:
            raise TierUnavailable("it cannot be written")
        there = tier.locate(self._name)
        if _same(there, head) and there.state == WHOLE:
            return
        why = _in_the_way(there, head)
        if why:
            raise TierUnavailable(why)
        _check_nothing_lies_there(there)
        first = self._chain.tiers[0].locate(self._name)
        if not _same(first, head):
            return  # replaced since: what is here now was not asked for
        records = first.records()
        wanted = set(records.files if files is None else files)
        if len(wanted) < head.files and not isinstance(tier.backend, LocalBackend):
            raise TierUnavailable("only some files were asked for; this tier takes whole artifacts")
        held = there.holding(wanted) if _same(there, head) else set()
        missing = [record for f, record in records.files.items() if f in wanted - held]
        if not missing:
            return
        descent = Descent(self._chain, self._name, "populate", head, records, [first.copy(records)])
        seconds = patience(tier.deadline, sum(f.size for f in missing))
        descent.move(there, missing, there.tag, seconds)


def _in_the_way(there: Located, head: Head | None) -> str:
    """Why a tier cannot take a generation; only files of the same one, or of an older, give way."""
    if there.state == ABSENT:
        return ""
    if there.head is None or head is None:
        pending = "files are being put in, or taken away" if there.state == PENDING else ""
        return there.detail or pending or f"what is there is {there.state}"
    if _same(there, head):
        return ""
    recipe, own = there.head.recipe, head.recipe
    if recipe is None or own is None or not own.same_as(recipe):
        differences = own.differences(recipe) if own and recipe else "recipe unknown"
        return f"it is there made otherwise ({differences})"
    if there.state == PARTIAL and there.head.created < head.created:
        return ""
    return "another generation is there; promote to this tier to replace it"


def _same(there: Located, head: Head) -> bool:
    return there.head is not None and there.head.generation == head.generation


def _check_nothing_lies_there(there: Located) -> None:
    """Files without a manifest are somebody's, whether they may be adopted or not."""
    backend = there.tier.backend
    if there.state == ABSENT and isinstance(backend, LocalBackend):
        look = partial(backend.mount.unmanaged, there.folder)
        if within(there.tier.deadline, look, f"tier {there.tier.name!r}"):
            raise TierUnavailable("files without a manifest lie there")
