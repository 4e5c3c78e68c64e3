"""Files put into artifacts and taken out of them, and what becomes of that in lower tiers.

The artifact has to be whole in the first tier before: one generation's files are never mixed with
another's. How a folder is changed is in ``mounted/changes.py``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tieredstore.errors import (
    ArtifactExists,
    ConfigError,
    HeadConflict,
    ManifestError,
    TierUnavailable,
    writing_to,
)
from tieredstore.filesystem.asking import Asking
from tieredstore.filesystem.naming import Names, Spot
from tieredstore.manifest.artifact import HEAD, MAX_HEAD, Head
from tieredstore.mounted import beneath
from tieredstore.mounted.alive import temporary
from tieredstore.mounted.changes import Change, PutIn, TakeOut, change, writing
from tieredstore.space.room import make_way
from tieredstore.store import TieredStore
from tieredstore.tiers import queued
from tieredstore.tiers.queued import Queued
from tieredstore.tiers.tier import UNREACHABLE

NEVER: Final = "never"
ON_CLOSE: Final = "on-close"
QUEUED: Final = "queued"
_TRIES: Final = 10


def check_promote(promote: str) -> str:
    """Refuse a word that means nothing here.

    Raises
    ------
    ConfigError
        When it is none of ``never``, ``on-close`` and ``queued``.
    """
    if promote not in {NEVER, ON_CLOSE, QUEUED}:
        raise ConfigError(f"promote is {promote!r}, expected {NEVER!r}, {ON_CLOSE!r} or {QUEUED!r}")
    return promote


@dataclass(slots=True)
class _Written:
    """What this process has changed of an artifact since its records were last written.

    Attributes
    ----------
    mark : str
        The generation of the mark that it was changed under.
    changes : int
        How many changes that were.
    files : int
        How many files the records have.
    """

    mark: str
    changes: int
    files: int


class Changing:
    """Changes artifacts of a store.

    The records are written anew when as much has been changed as they have files, so that many
    files written one by one cost few times what they do together.

    Parameters
    ----------
    store : TieredStore
        The store.
    asking : Asking
        Its tiers.
    names : Names
        Told of artifacts that are gone.
    promote : str
        What becomes of changes in durable tiers.
    """

    def __init__(self, store: TieredStore, asking: Asking, names: Names, promote: str) -> None:
        self._store = store
        self._asking = asking
        self._names = names
        self._promote = promote
        self._first = asking.chain.first
        self._writer = temporary("by-")
        self._written: dict[str, _Written] = {}
        self._queued: set[tuple[str, str]] = set()

    def put(self, spot: Spot, files: list[PutIn]) -> None:
        """Put files into one artifact, each of them whole at once.

        Raises
        ------
        ArtifactExists
            When one of them is exclusive, and lies there already.
        PromoteFailed
            When they are in the first tier, and a durable tier could not take them.
        """
        if spot.single:
            self._put_single(spot.name, files[-1])
        else:
            self._change(spot.name, files)
        self._pass_on(spot.name)

    def take_out(self, name: str, files: Sequence[str]) -> None:
        """Take files out of an artifact that keeps others."""
        self._change(name, [TakeOut(file) for file in files])
        self._pass_on(name)

    def remove(self, name: str) -> None:
        """Remove an artifact from every tier."""
        self._store.remove(name)
        self._names.forget(name)

    def sum_up(self, name: str) -> None:
        """Write the records of an artifact anew, where files of it were changed."""
        self._written.pop(name, None)
        folder = self._first.tier.layout.folder(name)
        with writing_to(self._first.tier.name), self._first.backend.publishing(folder):
            self._first.backend.mount.complete(folder)
        make_way(self._asking.chain, self._first.tier, name)

    def _put_single(self, name: str, file: PutIn) -> None:
        mount = self._first.backend.mount
        with self._store.create_file(name) as stage:
            if file.exclusive and self._first.held(name) is not None:
                raise ArtifactExists(f"{name}: another has published it meanwhile")
            os.rename(mount.area_path("stage", file.staged), stage.file)

    def _change(self, name: str, changes: Sequence[Change]) -> None:
        folder = self._first.tier.layout.folder(name)
        mount = self._first.backend.mount
        for left in reversed(range(_TRIES)):
            before = self._ready(name)
            try:
                with writing_to(self._first.tier.name), self._first.backend.publishing(folder):
                    mark = change(mount, folder, changes, self._writer, before)
            except HeadConflict:
                if not left:
                    raise
            else:
                self._count(name, mark, len(changes))
                return

    def _count(self, name: str, mark: str, changes: int) -> None:
        written = self._written.get(name)
        if written is None or written.mark != mark:
            written = self._written[name] = _Written(mark, 0, self._files(name))
        written.changes += changes
        if written.changes >= written.files:
            self.sum_up(name)

    def _files(self, name: str) -> int:
        """How many files the records name that were written last."""
        fd = writing(self._first.backend.mount, self._first.tier.layout.folder(name))
        if fd is not None:
            with beneath.opened(fd), suppress(FileNotFoundError, ManifestError):
                return Head.parse(beneath.read_small(fd, HEAD, MAX_HEAD), HEAD).files
        return 0

    def _ready(self, name: str) -> str | None:
        """The generation that is to be changed, whole in the first tier; ``None``: there is none.

        Raises
        ------
        TierUnavailable
            When it cannot be known whether a tier has the artifact.
        """
        first = self._first
        fd = writing(first.backend.mount, first.tier.layout.folder(name))
        if fd is not None:
            os.close(fd)
            return None  # whoever laid the mark has looked
        held = first.held(name)
        if held is not None:
            held.close()
            if not held.partial and held.head.shards is None:
                return held.head.generation
        if held is None and not self._elsewhere(name):
            first.check_free(name)
            return None
        with self._store.restore(name) as got:
            return got.generation or None

    def _elsewhere(self, name: str) -> bool:
        """Whether a tier has the artifact, or data that would be taken for it."""
        located = self._asking.located(name)
        if any(where.present for where in located):
            return True
        away = [w for w in located if w.state == UNREACHABLE and w.tier.durable]
        if away:
            raise TierUnavailable(
                f"{name}: is not in the first tier, and whether {away[0].tier.name!r} has it "
                f"cannot be known ({away[0].detail}); nothing was written, try again"
            )
        return False

    # -- durable tiers --------------------------------------------------------------------------

    def _pass_on(self, name: str) -> None:
        if self._promote == ON_CLOSE:
            self.sum_up(name)
            self._store.promote(name)
        elif self._promote == QUEUED:
            self._queue(name)

    def _queue(self, name: str) -> None:
        """Let a promote wait, once for all that is changed until the records are written anew."""
        written = self._written.get(name)
        mark = written.mark if written is not None else f"summed-{time.monotonic_ns()}"
        if (name, mark) in self._queued:
            return
        self._queued.add((name, mark))
        for tier in self._asking.chain.tiers[1:]:
            if tier.durable and not tier.read_only:
                waiting = Queued(name, tier.name, mark, since=time.time())
                queued.add(self._first.tier, waiting)

    def flush(self) -> None:
        """Write the records of all that this process has changed anew, and promote what waits.

        Raises
        ------
        TierUnavailable
            When something goes on waiting; the message says why.
        """
        for name in list(self._written):
            self.sum_up(name)
        failed = [done for done in self._store.flush() if done.failed]
        if failed:
            said = "; ".join(f"{done.name} to {done.tier}: {done.detail}" for done in failed)
            raise TierUnavailable(f"still waiting to be promoted: {said}")
