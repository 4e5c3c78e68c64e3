"""Ensure: an artifact is restored, or else built by one of all who ask for it, and promoted.

Who builds holds the lease of the first tier, for this node, and that of the farthest tier that
has leases, for all nodes. A build that fails is noted beside both; that note counts for the calls
that were under way when it was written, and for no later one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Final

from tieredstore.backend import Leasable
from tieredstore.errors import ArtifactNotFound, TieredStoreError
from tieredstore.manifest.artifact import Recipe
from tieredstore.notes import Failure
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.got import Got
from tieredstore.tiers.holding import Claim, Progress
from tieredstore.tiers.tier import Tier
from tieredstore.verbs.building import Build
from tieredstore.verbs.promoting import Promotion
from tieredstore.verbs.restoring import restore

Builder = Callable[[Build], object]

_VERB: Final = "build"


class Ensuring:
    """One call of `TieredStore.ensure`.

    Parameters
    ----------
    chain : Chain
        The tiers.
    name : str
        The artifact.
    files : list of str or None
        The files that are needed; all by default.
    recipe : Recipe or None
        What it is made from.
    retry : int
        Failures of others that are passed over.
    """

    def __init__(
        self,
        chain: Chain,
        name: str,
        files: Sequence[str] | None,
        recipe: Recipe | None,
        retry: int,
    ) -> None:
        self._chain = chain
        self._name = name
        self._files = files
        self._recipe = recipe
        self._retry = retry
        self._claims = [Claim(tier, name, _VERB, chain.reporter) for tier in _lease_tiers(chain)]
        self._before: dict[str, Failure | None] = {}  # by tier: the last one before this call

    def run(self, build: Builder) -> Got:
        """Restore it, wait for who builds it, or build it."""
        got = self._chain.first.hit(self._name, self._files, self._recipe)
        if got is not None:
            self._chain.reporter.hit(self._name, got.source)
            return got
        looking = [self._begin_to_look(claim) for claim in self._claims]
        with suppress(ArtifactNotFound):
            return self._restored()
        for claim, thread in zip(self._claims, looking, strict=True):
            thread.join(claim.tier.deadline)
        try:
            return self._build_alone(build) or self._published()
        except _Told as told:
            with suppress(ArtifactNotFound):  # built, and not promoted: here it is all the same
                return self._restored()
            raise told.failure.error(self._name) from None

    def _restored(self) -> Got:
        return restore(self._chain, self._name, self._files, self._recipe)

    def _published(self) -> Got:
        got = self._chain.first.hit(self._name, self._files, self._recipe)
        return got if got is not None else self._restored()

    # -- alone ----------------------------------------------------------------------------------

    def _build_alone(self, build: Builder) -> Got | None:
        """Build it, unless somebody else has while the leases were waited for."""
        with ExitStack() as held:
            works: list[Progress] = []
            got = None
            try:
                for claim in self._claims:
                    works.append(self._take(held, claim))  # noqa: PERF401 - who raises finds them
                with suppress(ArtifactNotFound):
                    got = self._restored()
                if got is None:
                    self._build(build, works)
            except _Told as told:  # by all nodes: to be passed on to those of this node
                _fail(works, told.failure)
                raise
            for work in works:
                work.succeeded()
        return got

    def _build(self, build: Builder, works: Sequence[Progress]) -> None:
        chain = self._chain
        for work in works:
            chain = chain.counted(work)
        try:
            chain.first.check_free(self._name)
            tell = [work.told for work in works]
            with Build(chain, self._name, self._recipe, "folder", tell) as stage:
                build(stage)
            # Under the lease: another node looks for it in the lower tiers.
            Promotion(chain, self._name, None, replace=False).run()
        except Exception as error:
            _fail(works, Failure.of(error))
            raise

    # -- what others have left ------------------------------------------------------------------

    def _begin_to_look(self, claim: Claim) -> threading.Thread:
        """Find out which attempt had failed last when this call began; it keeps nobody for long."""
        look = partial(self._look, claim)
        thread = threading.Thread(target=look, name="tieredstore-note", daemon=True)
        thread.start()
        if claim.tier is self._chain.tiers[0]:
            thread.join(claim.tier.deadline)
        return thread

    def _look(self, claim: Claim) -> None:
        with suppress(OSError, TieredStoreError):
            self._before[claim.tier.name] = claim.note().failed

    def _take(self, held: ExitStack, claim: Claim) -> Progress:
        heard = partial(self._heard, claim)
        work = held.enter_context(claim.held(heard=heard))
        self._chain.look_afresh(claim.tier, self._name)
        if work.kept:
            with suppress(OSError, TieredStoreError):
                work.earlier = claim.note().failed
            if work.earlier is not None:
                heard(work.earlier)
        return work

    def _heard(self, claim: Claim, failure: Failure) -> None:
        """Of an attempt that failed: where it and those before it are too many, end this call."""
        if claim.tier.name not in self._before:
            return  # which have failed since this call began, nobody knows
        before = self._before[claim.tier.name]
        if before is not None and before.attempt == failure.attempt:
            return
        passed = 0 if before is None or before.count >= failure.count else before.count
        if failure.count - passed > self._retry:
            raise _Told(failure)


def _fail(works: Sequence[Progress], failure: Failure) -> None:
    for work in works:
        work.failed(failure)


@contextmanager
def claimed(chain: Chain, name: str) -> Iterator[bool]:
    """Hold the leases of a build unless somebody else does, see `TieredStore.claim`."""
    with ExitStack() as held:
        yield all(chain.only_one(held, tier, name, _VERB) for tier in _lease_tiers(chain))


def _lease_tiers(chain: Chain) -> list[Tier]:
    """The first tier, for this node, and the farthest that can lease, for all nodes."""
    able = [t for t in chain.tiers if t.writable and isinstance(t.backend, Leasable)]
    return able[:1] + able[1:][-1:]


class _Told(Exception):
    """Another's attempt has failed while this call waited for it."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)
