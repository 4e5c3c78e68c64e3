"""The chain of tiers that one operation works on: the tiers, the first of them, the reporter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from tieredstore.backends.local import LocalBackend
from tieredstore.errors import ArtifactNotFound, ConfigError, LeaseTimeout, reason
from tieredstore.reporter import Reporter
from tieredstore.tiers.hits import FirstTier
from tieredstore.tiers.holding import Claim, Counting, Progress
from tieredstore.tiers.tier import Located, Tier
from tieredstore.workers import together, within


@dataclass(frozen=True, slots=True)
class Chain:
    """Tiers in order; the first is the one that work reads from."""

    tiers: tuple[Tier, ...]
    first: FirstTier
    reporter: Reporter

    @classmethod
    def of(cls, tiers: Sequence[Tier], reporter: Reporter) -> Chain:
        """A chain, checked.

        Raises
        ------
        ConfigError
            When there is no tier, two have one name, or the first is no folder.
        """
        names = [t.name for t in tiers]
        if not names:
            raise ConfigError("a store needs at least one tier")
        if len(set(names)) != len(names):
            raise ConfigError(f"two tiers have one name: {', '.join(sorted(names))}")
        backend = tiers[0].backend
        if not isinstance(backend, LocalBackend):
            raise ConfigError(f"tier {names[0]!r}: the first tier must be a folder on this machine")
        return cls(tuple(tiers), FirstTier(tiers[0], backend), reporter)

    def tier(self, name: str) -> Tier:
        """The tier of that name, else `ConfigError`."""
        for tier in self.tiers:
            if tier.name == name:
                return tier
        known = ", ".join(t.name for t in self.tiers)
        raise ConfigError(f"no tier {name!r}; this store has {known}")

    def locate(self, name: str, files: Sequence[str] | None = None) -> list[Located]:
        """What each tier has, in the order of the chain; all are asked at the same time."""
        return together([partial(tier.locate, name, files) for tier in self.tiers])

    @contextmanager
    def working_on(self, tier: Tier, name: str, verb: str) -> Iterator[Chain]:
        """Hold a tier's lease where it can be had; without it work is done twice at worst.

        Yields the chain whose reporter also counts, for those who wait, what is moved.
        """
        with Claim(tier, name, verb, self.reporter).held() as progress:
            self.look_afresh(tier, name)
            yield self.counted(progress)

    def only_one(self, held: ExitStack, tier: Tier, name: str, verb: str) -> bool:
        """Hold a tier's lease, unless somebody else does: then false, without a wait."""
        try:
            held.enter_context(Claim(tier, name, verb, self.reporter).held(0.0))
        except LeaseTimeout:
            return False
        self.look_afresh(tier, name)
        return True

    def counted(self, progress: Progress) -> Chain:
        """The same chain; what its reporter is told of bytes that move is progress."""
        return replace(self, reporter=Counting(self.reporter, progress))

    def look_afresh(self, tier: Tier, name: str) -> None:
        """Who held the lease may have put it there just now: a network mount is to see that."""
        if isinstance(tier.backend, LocalBackend) and not tier.read_only:
            look = partial(tier.backend.mount.look_afresh, tier.layout.folder(name))
            try:
                within(tier.deadline, look, f"tier {tier.name!r}")
            except OSError as error:
                self.reporter.skipped(tier.name, reason(error))

    def not_found(
        self, name: str, located: Sequence[Located], why: Mapping[str, str]
    ) -> ArtifactNotFound:
        """The error that says what each tier answered."""
        said = {
            where.tier.name: why.get(where.tier.name) or where.detail or where.state
            for where in located
        }
        listed = "; ".join(f"{tier}: {detail}" for tier, detail in said.items())
        return ArtifactNotFound(f"{name}: no tier can serve it ({listed})", said)
