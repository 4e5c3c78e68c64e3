"""Room in mounted tiers: reserved before bytes move, made by evicting where a limit is set.

Who wants to write somewhere puts down a reservation, and then counts what is there, what is free
and what all others have reserved. It stands when all of that fits. Of two who do so at once the
one that was put down last sees the other, so no more than fits ever stands, whether or not the
lease keeps them apart; of several that do not stand yet the later ones by name give way. For
those nothing is evicted. Without limits, and with plenty of room, nothing is written.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from tieredstore.backends.local import LocalBackend
from tieredstore.errors import NoSpace, TieredStoreError, TierUnavailable, reason, writing_to
from tieredstore.limits import size as shown
from tieredstore.manifest.artifact import Head
from tieredstore.manifest.records import FileRecord
from tieredstore.mounted import small
from tieredstore.mounted.beneath import split
from tieredstore.notes import me
from tieredstore.reporter import Wait
from tieredstore.space import usage
from tieredstore.space.evicting import BEING_EVICTED
from tieredstore.space.least_used import Evicted, Used, make_room, measured
from tieredstore.space.reservations import AREA, Reservation, Reservations, Reserved
from tieredstore.space.usage import BLOCK, NOTHING, Bytes, in_blocks
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import Tier
from tieredstore.workers import PUBLISH_DEADLINE, within

PLENTY: Final = 32  # times what is needed: so many at once may go without a reservation
_SLACK: Final = 16  # blocks for a head, and whatever else a publication writes
_LEASE_WAIT: Final = 10.0  # seconds; without the lease the order of names decides
_LOOKS: Final = 50
_STEADY: Final = 5
_PAUSE: Final = 0.02  # seconds between two looks
_STUCK: Final = 5.0  # seconds; nobody who is not stopped tries for so long
_PATIENCE: Final = 30.0  # seconds for which those that are about to give way are waited for
_ROUNDS: Final = 2000
_POLL: Final = 0.1  # seconds
_TELL_EVERY: Final = 5.0  # seconds
_SHOWN: Final = 8  # artifacts that an error names


@dataclass(frozen=True, slots=True)
class Need:
    """What is to be written.

    Attributes
    ----------
    stage : str
        Where, below the store's own area: ``part/<generation>``.
    files : Bytes
        The files.
    rest : Bytes
        What comes on top of them.
    names : frozenset of str
        The files' names, where they are known.
    """

    stage: str
    files: Bytes
    rest: Bytes = NOTHING
    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, head: Head, files: Sequence[FileRecord]) -> Need:
        """Files of a generation on their way to a mounted place, with their manifest."""
        folders = {split(f.path)[0] for f in files}
        rest = in_blocks(head.records_size) + (_SLACK + len(folders)) * BLOCK
        names = frozenset(f.path for f in files)
        return cls(f"part/{head.generation}", Bytes.of(files), Bytes(0, rest), names)

    @classmethod
    def of_build(cls, generation: str, size: int, files: int) -> Need:
        """So many bytes of a build, in so many files that are not known yet."""
        room = in_blocks(size) + files * BLOCK
        slack = _SLACK * BLOCK if size else 0
        return cls(f"stage/{generation}", Bytes(size, room), Bytes(0, slack))

    @property
    def whole(self) -> Bytes:
        """All of it."""
        return self.files + self.rest


class Room:
    """What a `room` block has."""

    def __init__(self, reservation: Reservation | None) -> None:
        self._reservation = reservation

    def written(self) -> None:
        """Tell that all files are written, and about to be published: from now on they are seen."""
        if self._reservation is not None:
            self._reservation.shrink()

    def leave(self) -> None:
        """Let go of what is left."""
        if self._reservation is not None:
            self._reservation.drop()


@contextmanager
def room(chain: Chain, tier: Tier, name: str, need: Need) -> Iterator[Room]:
    """Keep room in a tier for the time of a ``with`` block; other than mounted ones have no end.

    Raises
    ------
    NoSpace
        When there is none, and none can be made.
    TierUnavailable
        When somebody else has just put the same generation there: look again.
    """
    reservation = None
    if isinstance(tier.backend, LocalBackend):
        reservation = _Seeking(chain, tier, tier.backend, name, need).take()
    found = Room(reservation)
    try:
        yield found
    finally:
        with suppress(OSError, TieredStoreError):
            if reservation is not None:
                within(tier.deadline, found.leave, f"tier {tier.name!r}")


def make_way(chain: Chain, tier: Tier, name: str) -> None:
    """Evict what a build of unknown size has left no room for; what cannot be is only told."""
    if not tier.space.limited or not isinstance(tier.backend, LocalBackend):
        return
    mount = tier.backend.mount
    try:
        reserved = Reservations(mount).standing().values()
        promised = sum((one.left(mount) for one in reserved), NOTHING)
        available = measured(tier).available(tier, promised)
        if available is not None and available < 0:
            done = make_room(chain, tier, -available, name)
            if done.missing > 0:
                why = f"{shown(done.missing)} more than its limits allow{_said(done)}"
                chain.reporter.skipped(tier.name, f"{name}: {why}")
    except (OSError, TieredStoreError) as error:
        chain.reporter.skipped(tier.name, f"no room was made: {reason(error)}")


@dataclass(frozen=True, slots=True)
class _Short:
    """Bytes that are missing: beside all reservations, and beside those that stand."""

    now: int
    sure: int


class _Seeking:
    """One search for room in one mounted tier."""

    def __init__(
        self, chain: Chain, tier: Tier, backend: LocalBackend, name: str, need: Need
    ) -> None:
        self._chain = chain
        self._tier = tier
        self._backend = backend
        self._mount = backend.mount
        self._name = name
        self._need = need
        self._what = f"tier {tier.name!r}"
        self._reservations = Reservations(self._mount)
        self._others: Mapping[str, Reserved] = {}
        self._used = Used(0, 0, None)
        self._short = _Short(0, 0)
        self._begun = time.monotonic()
        self._tried: dict[str, float] = {}

    def take(self) -> Reservation | None:
        """A reservation; ``None`` where there is so much room that none is needed."""
        if not within(self._tier.deadline, self._tight, self._what):
            return None
        mine = Reservation(self._mount, self._reserved())
        try:
            with writing_to(self._tier.name):
                self._seek(mine)
        except BaseException:
            mine.drop()
            raise
        mine.keep()
        return mine

    def _tight(self) -> bool:
        if self._tier.space.limited or next(small.names(self._mount, AREA), None) is not None:
            return True
        free = usage.free(self._backend.place)
        return free is not None and self._need.whole.room * PLENTY > free

    def _reserved(self) -> Reserved:
        stage, skip = self._need.stage, self._need.names
        there = within(
            PUBLISH_DEADLINE, lambda: usage.written(self._mount, stage, skip), self._what
        )
        return Reserved(stage, self._need.files + there, self._need.rest, *me())

    def _seek(self, mine: Reservation) -> None:
        """Put the reservation down as soon as it fits; evict where that is wanted, and helps."""
        evicting = False
        with ExitStack() as alone:
            for _ in range(_ROUNDS):
                if within(PUBLISH_DEADLINE, partial(self._try, mine), self._what):
                    return
                self._wait_for_the_same()
                if self._short.sure <= 0 and self._patient():
                    time.sleep(random.Random().uniform(0, 2 * _PAUSE))  # noqa: S311 - no secret
                elif self._tier.space.limited and not evicting:
                    self._lease(alone, "evict", PUBLISH_DEADLINE)
                    evicting = True  # and look again: others may have made room meanwhile
                elif not self._made(max(self._short.sure, 1)):
                    time.sleep(_POLL)
        raise TierUnavailable(f"{self._name}: {self._what}: others kept taking the room there")

    def _made(self, missing: int) -> bool:
        """Evict; false where another eviction, or a reservation, first has to be seen to be over.

        Raises
        ------
        NoSpace
            When nothing more can be done.
        """
        done = Evicted(self._tier.name)
        if self._tier.space.limited:
            done = make_room(self._chain, self._tier, missing, self._name)
        if done.gone:
            return True
        if self._patient() and any(BEING_EVICTED in one.kept for one in done.kept):
            return False
        if self._reservations.doubtful(self._others):
            return False
        raise self._error(missing, done)

    def _patient(self) -> bool:
        return time.monotonic() - self._begun < _PATIENCE

    def _try(self, mine: Reservation) -> bool:
        """Put the reservation down; take it back where it does not fit."""
        with ExitStack() as lease:
            self._lease(lease, "space", _LEASE_WAIT)
            if self._has_to_wait(mine):
                self._short = _Short(BLOCK, 0)
                return False
            try:
                mine.put()
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                self._look(mine)
                self._short = _Short(max(self._short.now, BLOCK), max(self._short.sure, BLOCK))
                return False
            for _ in range(_LOOKS):
                self._look(mine)
                if self._short.now <= 0:
                    mine.stand()
                    return True
                if self._short.sure > 0 or self._earlier(mine):
                    break  # else the later ones are about to give way
                time.sleep(_PAUSE)
            mine.withdraw()
            return False

    def _has_to_wait(self, mine: Reservation) -> bool:
        """Whether one that is earlier by name is being tried just now, and not stuck."""
        self._others, now = self._standing(mine), time.monotonic()
        earlier = self._earlier(mine)
        self._tried = {name: self._tried.get(name, now) for name in earlier}
        return any(now - since < _STUCK for since in self._tried.values())

    def _earlier(self, mine: Reservation) -> list[str]:
        return [n for n, one in self._others.items() if n < mine.name and not one.stands]

    def _look(self, mine: Reservation) -> None:
        """Count what is there, what is free, and what others have reserved."""
        for _ in range(_STEADY):
            standing = self._standing(mine)
            left = {name: one.left(self._mount) for name, one in standing.items()}
            self._others = standing
            # What lies in a stage that others publish as well may be gone when it is to be used.
            own = self._need.whole if self._same() else mine.reserved.left(self._mount)
            self._used = self._measured()
            if _as_before(self._standing(mine), standing):
                break  # else one of them has ended, and would be counted twice
        sure = [left[name] for name, one in standing.items() if one.stands]
        now = self._missing(sum(left.values(), own))
        self._short = _Short(now, self._missing(sum(sure, own)))

    def _missing(self, left: Bytes) -> int:
        space, used = self._tier.space, self._used
        missing = []
        if space.max_size is not None:
            missing.append(used.size + left.size - space.max_size)
        if used.free is not None:
            missing.append(left.room + (space.min_free or 0) - used.free)
        return max(missing, default=0)

    def _standing(self, mine: Reservation) -> dict[str, Reserved]:
        found = self._reservations.standing()
        return {name: one for name, one in found.items() if name != mine.name}

    def _measured(self) -> Used:
        if self._tier.space.max_size is None:
            return Used(0, 0, usage.free(self._backend.place))
        return measured(self._tier)

    def _wait_for_the_same(self) -> None:
        """Where somebody else is putting the same generation there, wait until that is over.

        Raises
        ------
        TierUnavailable
            When it is: what is still missing then is another question (see `overtaken`).
        """
        since = told = time.monotonic()
        while same := self._same():
            now = time.monotonic()
            if now - told >= _TELL_EVERY:
                told = now
                self._chain.reporter.waits(Wait(self._name, "restore", same[0].who, now - since))
            time.sleep(_POLL)
            look = self._reservations.standing
            self._others = within(self._tier.deadline, look, self._what)
            if not self._same():
                why = f"{self._name}: another process has just written to {self._what}"
                raise TierUnavailable(why, errno.ENOENT, self._tier.name)

    def _same(self) -> list[Reserved]:
        others = self._others.values()
        return [one for one in others if one.stands and one.stage == self._need.stage]

    def _lease(self, held: ExitStack, key: str, timeout: float) -> None:
        with suppress(OSError, TieredStoreError):  # without it the order of names decides
            held.enter_context(self._backend.lease(key, timeout, self._tell))

    def _tell(self, holder: str) -> None:
        waited = time.monotonic() - self._begun
        self._chain.reporter.waits(Wait(self._name, "evict", holder, waited))

    def _error(self, missing: int, done: Evicted) -> NoSpace:
        needed, space = self._need.whole.room, self._tier.space
        said = [f"{shown(needed)} needed"]
        if self._used.free is not None:
            said.append(f"{shown(self._used.free)} free on its file system")
        if space.min_free is not None:
            said.append(f"min_free is {shown(space.min_free)}")
        if space.max_size is not None:
            own = f", {shown(self._used.own)} of it stages and old copies" if self._used.own else ""
            said.append(f"max_size is {shown(space.max_size)}, {shown(self._used.size)} used{own}")
        if self._others:
            said.append(f"{len(self._others)} others are being written")
        advice = "free some there, or set max_size or min_free so that the least used is evicted"
        if space.limited:
            advice = "evict, unpin or promote what is kept, or raise the limit"
        return NoSpace(
            f"no room in {self._what} ({self._backend.place}) for {self._name}: {shown(missing)} "
            f"missing ({', '.join(said)}){_said(done)}; {advice}",
            self._tier.name,
            needed=needed,
            missing=missing,
        )


def _as_before(now: Mapping[str, Reserved], before: Mapping[str, Reserved]) -> bool:
    return now.keys() >= before.keys() and all(now[n].files == before[n].files for n in before)


def _said(done: Evicted) -> str:
    """What could not be evicted, and why."""
    if not done.kept:
        return ""
    said = [f"{one.name}: {one.kept}" for one in done.kept[:_SHOWN]]
    if len(done.kept) > _SHOWN:
        said.append(f"and {len(done.kept) - _SHOWN} more")
    return f"; kept: {'; '.join(said)}"
