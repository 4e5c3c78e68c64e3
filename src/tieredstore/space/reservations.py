"""Reservations: what a mounted tier keeps free for bytes that are on their way to it.

A reservation is a small file in ``.tieredstore/space/``. Its holder writes it anew three times in
the length that stands in it. It counts for what it says, less what its stage holds already, so a
byte is counted as reserved or as written; twice at most what is written while somebody counts.

One whose holder is gone counts no more: on the same machine that is seen at once (see
``alive.py``), elsewhere when the file has stayed the same for its length by the reader's own
monotonic clock. No wall clock is compared. Nothing that is published depends on a reservation.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Final

from tieredstore.errors import TieredStoreError
from tieredstore.leases import LEASE_LENGTH
from tieredstore.manifest.artifact import check_generation
from tieredstore.mounted import alive, small
from tieredstore.mounted.mount import Root
from tieredstore.notes import who
from tieredstore.space.usage import Bytes, written

AREA: Final = "space"
_LIMIT: Final = 4096  # bytes of a reservation
_LARGEST: Final = 1 << 62
_SHORTEST, _LONGEST = 1.0, 3600.0  # seconds; what another wrote is believed within these
_BEATS: Final = 3  # refreshes in a length
_AGAIN: Final = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Reserved:
    """What a reservation says.

    Attributes
    ----------
    stage : str
        Where the bytes are written, below the store's own area: ``part/<generation>``.
    files : Bytes
        What will lie there when all are written.
    rest : Bytes
        What comes on top of it in other places: the manifest.
    host, pid : str and int
        Who holds it, for people; its file's name tells the process.
    stands : bool
        Whether it was found to fit; else it may be about to be taken back.
    length : float
        Seconds without a refresh after which it counts no more.
    beat : int
        Counts the refreshes, so that each is another content.
    """

    stage: str
    files: Bytes
    rest: Bytes
    host: str
    pid: int
    stands: bool = False
    length: float = LEASE_LENGTH
    beat: int = 0

    def emit(self) -> bytes:
        """The file's bytes."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def parse(cls, data: bytes) -> Reserved | None:
        """What the file's bytes say; ``None`` where they say nothing."""
        try:
            found = json.loads(data)
            area, _, generation = str(found["stage"]).partition("/")
            if area not in {"stage", "part"}:
                return None
            return cls(
                f"{area}/{check_generation(generation)}",
                _bytes(found["files"]),
                _bytes(found["rest"]),
                str(found["host"]),
                int(found["pid"]),
                bool(found["stands"]),
                min(max(float(found["length"]), _SHORTEST), _LONGEST),
                int(found["beat"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return None

    def left(self, mount: Root) -> Bytes:
        """What is still to be written."""
        if not self.files.size and not self.files.room:
            return self.rest
        return self.files.beyond(written(mount, self.stage)) + self.rest

    @property
    def who(self) -> str:
        """The holder in words."""
        return who(self.pid, self.host)


def _bytes(found: Mapping[str, object]) -> Bytes:
    size, room = found["size"], found["room"]
    if not isinstance(size, int) or not isinstance(room, int):
        raise TypeError("no numbers of bytes")
    return Bytes(min(max(size, 0), _LARGEST), min(max(room, 0), _LARGEST))


class Reservations:
    """The reservations in one root, as one reader has seen them come, change and stay."""

    def __init__(self, mount: Root) -> None:
        self._mount = mount
        self._seen: dict[str, tuple[bytes, float]] = {}
        self._refreshed: set[str] = set()

    def standing(self) -> dict[str, Reserved]:
        """Those that count, by name; one whose holder is gone is taken away."""
        standing: dict[str, Reserved] = {}
        for name in small.names(self._mount, AREA):
            data = small.read(self._mount, AREA, name, _LIMIT)
            if not data:
                continue  # gone meanwhile
            reserved = Reserved.parse(data)
            if self._over(name, data, reserved):
                with suppress(OSError, TieredStoreError):
                    small.remove(self._mount, AREA, name)
            elif reserved is not None:
                standing[name] = reserved
        return standing

    def doubtful(self, standing: Mapping[str, Reserved]) -> bool:
        """Whether any of them may be of a holder that is gone: none of its refreshes was seen."""
        return any(alive.lives(name) is None and name not in self._refreshed for name in standing)

    def _over(self, name: str, data: bytes, reserved: Reserved | None) -> bool:
        lives = alive.lives(name)
        if lives is not None:
            return not lives
        now = time.monotonic()
        before = self._seen.setdefault(name, (data, now))
        if before[0] != data:
            self._seen[name] = data, now
            self._refreshed.add(name)
            return False
        return now - before[1] >= (LEASE_LENGTH if reserved is None else reserved.length)


class Reservation:
    """One that this process holds, or tries to; a daemon thread refreshes it until it is dropped.

    Attributes
    ----------
    name : str
        Its file's name. Of two that do not fit together the later one by name gives way.
    reserved : Reserved
        What it says now.
    """

    def __init__(self, mount: Root, reserved: Reserved) -> None:
        self._mount = mount
        self._changing = threading.Lock()
        self._over = threading.Event()
        self.name = alive.temporary(f"{reserved.stage.rpartition('/')[2]}.")
        self.reserved = reserved

    def put(self) -> None:
        """Write it, for others to see."""
        with self._changing:
            if not self._over.is_set():  # else whoever tried it was interrupted meanwhile
                small.put(self._mount, AREA, self.name, self.reserved.emit())

    def withdraw(self) -> None:
        """Take it away, to be tried again."""
        with self._changing:
            small.remove(self._mount, AREA, self.name)

    def stand(self) -> None:
        """It fits: others may count on it that it stays."""
        self.reserved = replace(self.reserved, stands=True)
        self.put()

    def keep(self) -> None:
        """Refresh it from now on."""
        threading.Thread(target=self._keep, name="tieredstore-space", daemon=True).start()

    def shrink(self) -> None:
        """Let the files' bytes go: they are all written, and about to be published."""
        with self._changing, suppress(OSError, TieredStoreError):
            self.reserved = replace(self.reserved, files=Bytes())
            small.put(self._mount, AREA, self.name, self.reserved.emit())

    def drop(self) -> None:
        """Let go of it; a place that does not take that now is told when it does."""
        self._over.set()
        if not self._removed():
            threading.Thread(target=self._remove, name="tieredstore-space", daemon=True).start()

    def _removed(self) -> bool:
        try:
            self.withdraw()
        except (OSError, TieredStoreError):
            return False
        return True

    def _remove(self) -> None:
        while not self._removed():  # or others would wait for it as long as this process lives
            time.sleep(_AGAIN)

    def _keep(self) -> None:
        while not self._over.wait(self.reserved.length / _BEATS):
            with self._changing, suppress(OSError, TieredStoreError):
                if not self._over.is_set():
                    self.reserved = replace(self.reserved, beat=self.reserved.beat + 1)
                    small.put(self._mount, AREA, self.name, self.reserved.emit())
