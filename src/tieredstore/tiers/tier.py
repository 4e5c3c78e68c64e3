"""One place in the chain: a backend, where artifacts lie in it, and the policy for it.

`Located` is what a tier says of an artifact. Lower tiers are asked in a thread with a deadline,
so that one that hangs counts as one that fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from tieredstore.backend import FileStat, Publishable, Readable
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import ConfigError, ManifestError, TieredStoreError, reason
from tieredstore.limits import NO_LIMITS, Space
from tieredstore.litter import Collectable
from tieredstore.manifest.artifact import Head, Recipe
from tieredstore.manifest.names import Layout
from tieredstore.manifest.records import Records
from tieredstore.moving.fetching import Copy
from tieredstore.pinned import look
from tieredstore.workers import patience, within

WHOLE, PARTIAL, UNMANAGED = "whole", "partial", "unmanaged"
PENDING, ABSENT, DAMAGED, UNREACHABLE = "pending", "absent", "damaged", "unreachable"
AUTO, NEVER = "auto", "never"
_EACH = 0.1  # seconds in which a place says what it has of one file


def check_pack(pack: str, backend: Readable) -> None:
    """Refuse ``pack`` where it means nothing.

    Raises
    ------
    ConfigError
        For other words than ``auto`` and ``never``, and for places that are mounted or only read.
    """
    if pack not in {AUTO, NEVER}:
        raise ConfigError(f"pack is {pack!r}, expected {AUTO!r} or {NEVER!r}")
    if pack == AUTO and (isinstance(backend, LocalBackend) or not isinstance(backend, Publishable)):
        kind = "a folder" if isinstance(backend, Publishable) else "only read"
        raise ConfigError(
            f"pack is {pack!r}, but {backend.place} is {kind}: files are packed in object stores "
            f"and on the Hub; remove it"
        )


def check_space(space: Space, backend: Readable) -> None:
    """Refuse limits where they mean nothing.

    Raises
    ------
    ConfigError
        For places that are not mounted: what is free there, and what was used when, is not known.
    """
    if space.limited and not isinstance(backend, LocalBackend):
        key = "max_size" if space.max_size is not None else "min_free"
        raise ConfigError(f"{key} is for folders on this machine, {backend.place} is none")


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier of a store.

    Attributes
    ----------
    name : str
        How configuration, results and messages call it.
    backend : Readable
        The adapter to the place.
    layout : Layout
        Where artifacts lie below the backend's root.
    durable : bool
        Promote copies to it; evict counts on it.
    read_only : bool
        Never written.
    adopt : bool
        Data without a manifest is accepted.
    deadline : float
        Seconds that a question to it may take, and a read or write that moves bytes (and a
        second more for each MiB of those).
    populate : bool
        A restore that is served from farther down the chain leaves a copy here.
    pack : str
        ``auto``: of more than some thousand small files, shards are kept; ``never``.
    space : Space
        How much it may take of its place; of mounted places only.
    jobs : Collectable or None
        Knows the folders beside this one that were made for jobs which have ended.

    Raises
    ------
    ConfigError
        When it is to pack, or has limits, and its place cannot.
    """

    name: str
    backend: Readable
    layout: Layout = field(default_factory=Layout)
    durable: bool = False
    read_only: bool = False
    adopt: bool = False
    deadline: float = 30.0
    populate: bool = False
    pack: str = NEVER
    space: Space = NO_LIMITS
    jobs: Collectable | None = None

    def __post_init__(self) -> None:
        """Refuse what the place cannot do."""
        check_pack(self.pack, self.backend)
        check_space(self.space, self.backend)

    @property
    def writable(self) -> bool:
        """Whether artifacts may be published here."""
        return not self.read_only and isinstance(self.backend, Publishable)

    def locate(self, name: str, files: Sequence[str] | None = None) -> Located:
        """Say what this tier has of an artifact; never raises for a tier that fails."""
        try:
            seconds = self.deadline
            if self.adopt and files is not None and not isinstance(self.backend, LocalBackend):
                seconds += _EACH * len(files)  # which are asked for one by one
            return within(seconds, lambda: self._locate(name, files), f"tier {self.name!r}")
        except (OSError, TieredStoreError) as error:
            return Located(self, UNREACHABLE, self.layout.folder(name), detail=reason(error))

    def _locate(self, name: str, files: Sequence[str] | None) -> Located:
        folder = self.layout.folder(name)
        try:
            for place in (folder, *self.layout.old_folders(name)):
                found = self.backend.read_head(place)
                if found is not None:
                    state = PARTIAL if found.partial else WHOLE
                    located = Located(self, state, place, found.head, found.tag)
                    grown = None
                    if found.head.recipe is None and isinstance(self.backend, LocalBackend):
                        grown = self.unmanaged(name, files)
                    return grown or located
        except ManifestError as error:
            return Located(self, DAMAGED, folder, detail=str(error))
        if isinstance(self.backend, LocalBackend) and self.backend.mount.pending(folder):
            return Located(self, PENDING, folder)
        return self.unmanaged(name, files) or Located(self, ABSENT, folder)

    def unmanaged(self, name: str, files: Sequence[str] | None) -> Located | None:
        """Data without a manifest that this tier may adopt, or ``None``.

        An old folder holds other things too: only files that are named are taken from there.
        """
        if not self.adopt:
            return None
        folder = self.layout.folder(name)
        if not isinstance(self.backend, LocalBackend):
            seen = look(self.backend, folder, files)
            start = f"{folder}/" if folder else ""
            names = tuple(f.path.removeprefix(start) for f in seen)
            return Located(self, UNMANAGED, folder, files=names, seen=tuple(seen)) if seen else None
        old = self.layout.old_folders(name) if files is not None else []
        for place in (folder, *old):
            with suppress(TieredStoreError):
                found = self.backend.mount.unmanaged(place, files)
                if found:
                    return Located(self, UNMANAGED, place, files=tuple(found))
        return None


@dataclass(frozen=True, slots=True)
class Located:
    """What one tier says of an artifact.

    Attributes
    ----------
    tier : Tier
        Who says it.
    state : str
        ``whole``, ``partial`` (some files of the generation), ``unmanaged`` (no manifest),
        ``pending``, ``absent``, ``damaged`` or ``unreachable``.
    folder : str
        Where, relative to the tier's root.
    head : Head or None
        Where there is one.
    tag : str or None
        Version of the head, for publishing over it.
    detail : str
        Why it is damaged or unreachable.
    files : tuple of str
        Of unmanaged data: what would be taken.
    seen : tuple of FileStat
        The same, as a place says that is not mounted: in which version each was seen.
    expires : float or None
        When its first file may be deleted by others, seconds since 1970; told by `status` only,
        of places where that happens.
    """

    tier: Tier
    state: str
    folder: str
    head: Head | None = None
    tag: str | None = None
    detail: str = ""
    files: tuple[str, ...] = ()
    seen: tuple[FileStat, ...] = ()
    expires: float | None = None

    @property
    def present(self) -> bool:
        """Whether something here can be served."""
        return self.state in {WHOLE, PARTIAL, UNMANAGED}

    @property
    def recipe(self) -> Recipe | None:
        """The recipe, ``None`` where it is unknown."""
        return None if self.head is None else self.head.recipe

    def records(self) -> Records:
        """All records of the generation here, within the tier's deadline (and more for many)."""
        assert self.head is not None, "no generation is here"
        read = partial(self.tier.backend.read_records, self.folder, self.head)
        seconds = patience(self.tier.deadline, self.head.records_size)
        return within(seconds, read, f"tier {self.tier.name!r}")

    def listed(self) -> set[str]:
        """Every path that lies here now, below the tier's root; within the tier's deadline."""
        tier = self.tier
        look = partial(tier.backend.list, self.folder)
        return within(tier.deadline, lambda: {f.path for f in look()}, f"tier {tier.name!r}")

    def holding(self, files: Iterable[str]) -> set[str]:
        """Which of a generation's files are here: all of them, unless the copy is partial.

        A place that cannot be listed may have each of them, until it is asked for one.
        """
        if self.state != PARTIAL or not self.tier.backend.listable:
            return set(files)
        copy, there = self.copy(), self.listed()
        return {f for f in files if copy.path(f) in there}

    def copy(self, records: Records | None = None) -> Copy:
        """The same, as something to move files from; a packed one needs its records for that."""
        tier = self.tier
        seen = dict(zip(self.files, self.seen, strict=False))
        return Copy(
            tier.name, tier.backend, self.folder, self.head, tier.deadline, records, seen=seen
        )

    def serves(self, recipe: Recipe | None) -> bool:
        """Whether this is what was asked for; an unknown recipe is accepted, and said so."""
        if not self.present:
            return False
        return recipe is None or self.recipe is None or recipe.same_as(self.recipe)
