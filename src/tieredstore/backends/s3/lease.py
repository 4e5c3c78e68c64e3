"""Leases in a bucket: one small object each, written on conditions and refreshed by its holder.

No clock is compared with another. A contender looks at the object now and then; when it has
stayed the same for the length that stands in it, as the contender's own monotonic clock measures,
the contender writes over that very version. A holder that was thought dead finds another version
when it wants to refresh, and leaves it alone. Needs a server that keeps conditions; nothing that
is published depends on a lease.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Final

from tieredstore.backend import OnWait
from tieredstore.backends.s3.heads import NEVER, Heads
from tieredstore.backends.s3.objects import Lost, Objects
from tieredstore.errors import LeaseTimeout, TieredStoreError, TierUnavailable
from tieredstore.leases import LEASE_LENGTH, lock_name, note_name
from tieredstore.manifest.artifact import random_hex
from tieredstore.manifest.names import RESERVED

_LIMIT: Final = 4096  # bytes of a lease
_SHORTEST, _LONGEST = 1.0, 3600.0  # seconds; what another wrote is believed within these
_BEATS: Final = 3  # refreshes in a length
_POLL: Final = 1.0  # seconds between two looks; the first ones follow faster
_FIRST: Final = 0.1  # seconds
_JITTER: Final = 0.25
_TELL_EVERY: Final = 5.0  # seconds
_LATE: Final = 0.3  # seconds that a request may still be on its way
_GOODBYE: Final = 5.0  # seconds that letting go may keep whoever does


def note_path(key: str) -> str:
    """Where the note beside the lease ``key`` lies."""
    return f"{RESERVED}/lease/{note_name(key)}"


@dataclass(frozen=True, slots=True)
class Note:
    """What a lease says.

    Attributes
    ----------
    holder : str
        Another for each time it is taken.
    host, pid : str and int
        For people.
    length : float
        Seconds without a refresh after which it may be taken over.
    beat : int
        Counts the refreshes, so that each is another version.
    """

    holder: str
    host: str
    pid: int
    length: float
    beat: int = 0

    def emit(self) -> bytes:
        """The object's bytes."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """What the object's bytes say; a note of nobody where they say nothing."""
        try:
            found = json.loads(data)
            length = min(max(float(found["length"]), _SHORTEST), _LONGEST)
            return cls(
                holder=str(found["holder"]),
                host=str(found["host"]),
                pid=int(found["pid"]),
                length=length,
                beat=int(found["beat"]),
            )
        except (ValueError, KeyError, TypeError, OverflowError):
            return cls("", "", 0, LEASE_LENGTH)

    @property
    def who(self) -> str:
        """The holder in words."""
        return f"process {self.pid} on {self.host}" if self.holder else "another process"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a lease: what it says, its bytes and its ETag."""

    note: Note
    data: bytes
    tag: str


class LeaseObject:
    """The object of one lease.

    Raises
    ------
    TierUnavailable
        When the server does not keep conditions, so that there are no leases.
    """

    def __init__(self, objects: Objects, heads: Heads, key: str) -> None:
        self._objects = objects
        self._heads = heads
        self.path = f"{RESERVED}/lease/{lock_name(key)}"
        self.place = f"{objects.place}/{self.path}"
        conditions = heads.conditions()
        if not conditions.create or conditions.replace == NEVER:
            raise TierUnavailable(
                f"{objects.place}: this server ignores conditions on writes, so it has no leases"
            )

    def look(self) -> Version | None:
        """The version that is there now."""
        found = self._heads.now(self.path, _LIMIT)
        return None if found is None else Version(Note.parse(found[0]), *found)

    def write(self, note: Note, over: Version | None) -> Version:
        """Write a version over another; `Lost` where that one is not there any more."""
        data = note.emit()
        found = None if over is None else (over.data, over.tag)
        return Version(note, data, self._heads.put(self.path, data, found))

    def delete(self, version: Version) -> None:
        """Delete a version, on the condition that it is there where the server knows that one."""
        try:
            self._objects.delete_version(self.path, self._heads.written(version.tag))
        except (Lost, FileNotFoundError):
            return
        except (OSError, TieredStoreError):  # a server that knows no condition here, and says so
            self._objects.delete([self.path])


class Held:
    """A lease that this process has taken; a daemon thread refreshes it and lets it go."""

    def __init__(self, lease: LeaseObject, version: Version, since: float) -> None:
        self._lease = lease
        self._version = version
        self._since = since
        self._taken = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="tieredstore-lease", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether another has it, or may have: it was not refreshed for its length."""
        return self._taken or time.monotonic() - self._since >= self._version.note.length

    def let_go(self) -> None:
        """Give it back, unless it is lost; does not wait long for a place that hangs."""
        self._stop.set()
        self._thread.join(_GOODBYE)

    def _keep(self) -> None:
        pause = self._version.note.length / _BEATS
        while not self._stop.wait(pause):
            self._refresh()
            if self.lost:
                return
        if time.monotonic() - self._since > 2 * pause:
            self._refresh()  # another may be about to take it: first be sure that none has
        while not self.lost:
            try:
                self._lease.delete(self._version)
            except (OSError, TieredStoreError):
                time.sleep(_POLL)  # a place that comes back in time is told
            else:
                return

    def _refresh(self) -> None:
        now = time.monotonic()
        if self.lost:
            return
        note = replace(self._version.note, beat=self._version.note.beat + 1)
        try:
            self._version = self._lease.write(note, self._version)
            self._since = now
        except Lost:
            self._look_whose()
        except (OSError, TieredStoreError):
            pass  # tried again with the next beat, while there is time

    def _look_whose(self) -> None:
        """Another version is there: another's, or ours, of a refresh whose answer never came."""
        with suppress(OSError, TieredStoreError):
            found = self._lease.look()
            if found is not None and found.note.holder == self._version.note.holder:
                self._version = found
            else:
                self._taken = True


class S3Lease(AbstractContextManager[None]):
    """Holds a lease for the time of a ``with`` block; asking for it has looked at it once.

    Parameters
    ----------
    lease : LeaseObject
        What is leased.
    length : float
        Seconds after which others may take it from a holder who does not refresh it.
    timeout, on_wait
        See `Leasable.lease`.
    """

    def __init__(
        self, lease: LeaseObject, length: float, timeout: float | None, on_wait: OnWait
    ) -> None:
        self._lease = lease
        self._timeout = timeout
        self._on_wait = on_wait
        self._note = Note(random_hex(8), socket.gethostname(), os.getpid(), length)
        self._held: Held | None = None
        self._asked = False
        self._seen: Version | None = None
        self._seen_at = 0.0
        self._look()

    def __enter__(self) -> None:
        try:
            self._wait()
        except (KeyboardInterrupt, SystemExit):  # perhaps just when it was taken
            if self._held is None and self._asked:
                back = threading.Thread(target=self._give_back, daemon=True)
                back.start()
                back.join(_GOODBYE)
            self.__exit__(None, None, None)
            raise

    def _wait(self) -> None:
        since = time.monotonic()
        told = since - _TELL_EVERY + 1.0
        for pause in _pauses():
            self._held = self._take()
            if self._held is not None:
                return
            now = time.monotonic()
            left = _LONGEST if self._timeout is None else since + self._timeout - now
            if left <= 0:
                raise LeaseTimeout(
                    f"{self._lease.place}: still held after {now - since:.0f} s by {self._holder}; "
                    f"wait longer, or look for the process that holds it"
                )
            if now - told >= _TELL_EVERY:
                told = now
                self._on_wait(self._holder)
            time.sleep(min(pause, left))
            self._look()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._held is not None:
            self._held.let_go()

    @property
    def _holder(self) -> str:
        return "another process" if self._seen is None else self._seen.note.who

    def _look(self) -> None:
        """Look what is there; how long it has been there counts from after the answer."""
        found = self._lease.look()
        if found is None or self._seen is None or found.data != self._seen.data:
            self._seen, self._seen_at = found, time.monotonic()

    def _take(self) -> Held | None:
        """Take it where nobody has it, or its holder has not refreshed it for its length."""
        seen, now = self._seen, time.monotonic()
        if seen is not None and seen.note.holder == self._note.holder:
            return Held(self._lease, seen, self._seen_at)  # taken before, without an answer
        if seen is not None and now - self._seen_at < seen.note.length:
            return None
        self._asked = True
        try:
            return Held(self._lease, self._lease.write(self._note, seen), now)
        except Lost:
            return None

    def _give_back(self) -> None:
        """Interrupted while it was being written: whether it was, only looking tells."""
        with suppress(OSError, TieredStoreError):
            for pause in (0.0, _LATE):  # the request may be on its way yet
                time.sleep(pause)
                found = self._lease.look()
                if found is not None and found.note.holder == self._note.holder:
                    self._lease.delete(found)
                    return


def _pauses() -> Iterator[float]:
    """Seconds between two looks: short ones at first, never the same for two contenders."""
    for attempt in itertools.count():
        pause = min(_FIRST * 2.0 ** min(attempt, 10), _POLL)
        yield pause * random.Random().uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
