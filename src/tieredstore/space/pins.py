"""Pins: leases on an artifact's copy in one mounted tier, which keep it from being evicted.

A pin is a small file in ``.tieredstore/pins/`` and ends by itself. Clocks are trusted as little
as can be: where it was made on this machine since it was started, a clock counts that nobody
sets. Else it is over only when both the time that stands in it and that of its file are over by
an hour, by the reader's clock. In doubt the copy stays.
"""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

from tieredstore.backends.local import LocalBackend
from tieredstore.errors import InvalidName, TierUnavailable, Unsupported, writing_to
from tieredstore.manifest.artifact import digest128, random_hex
from tieredstore.manifest.names import check_name
from tieredstore.mounted import beneath, small
from tieredstore.mounted.mount import Root
from tieredstore.mounted.staged import AREA as OWN
from tieredstore.notes import me, who
from tieredstore.tiers.tier import Tier
from tieredstore.workers import within

AREA: Final = "pins"
DOUBT: Final = 3600.0  # seconds by which clocks may differ
_LIMIT: Final = 4096  # bytes of a pin
_LARGEST: Final = 1e12  # seconds
_KEY: Final = 32  # digits of a name's digest, which begin the name of its pins


@dataclass(frozen=True, slots=True)
class Pin:
    """What a pin says.

    Attributes
    ----------
    name : str
        The artifact; empty where the pin cannot be read, and its file's name says which one.
    tier : str
        Where it is kept.
    length : float
        Seconds that it lasts.
    created : float
        Seconds since 1970, by the clock of who made it.
    host, pid : str and int
        Who made it.
    file : str
        Its file.
    """

    name: str
    tier: str
    length: float
    created: float
    host: str = ""
    pid: int = 0
    file: str = ""

    @property
    def until(self) -> float:
        """When it ends, by the clock of who made it."""
        return self.created + self.length

    @property
    def who(self) -> str:
        """Who made it, in words."""
        return who(self.pid, self.host) if self.host else "a pin that cannot be read"


@dataclass(frozen=True, slots=True)
class _Ticking:
    """A moment by the clock of a running system that nobody sets."""

    system: str
    seconds: float

    @classmethod
    def now(cls) -> _Ticking:
        system = ""
        with suppress(OSError):
            with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
                system = file.read().strip()
        return cls(system, time.clock_gettime(time.CLOCK_BOOTTIME))


def pin(tier: Tier, name: str, seconds: float) -> Pin:
    """Keep an artifact's copy in a tier, there by now or not, from being evicted for a time."""
    if not (math.isfinite(seconds) and 0 < seconds <= _LARGEST):
        raise InvalidName(f"{name}: pinned for {seconds!r} s, expected a positive number")
    mount = _mount(tier)
    if not tier.writable:
        raise TierUnavailable(f"tier {tier.name!r} is read-only: nothing can be pinned there")
    host, pid = me()
    file = f"{_key(name)}-{random_hex(4)}.json"
    made = Pin(name, tier.name, float(seconds), time.time(), host, pid, file)
    body = {k: v for k, v in asdict(made).items() if k not in {"tier", "file"}}
    data = json.dumps({**body, "ticking": asdict(_Ticking.now())}).encode()
    with writing_to(tier.name):
        put = partial(small.put_lasting, mount, AREA, file, data)
        within(tier.deadline, put, f"tier {tier.name!r}")
    return made


def unpin(tier: Tier, name: str) -> int:
    """Take away all pins of an artifact in a tier, and say how many there were."""
    found = [each for each in standing(tier, name) if each.name in {name, ""}]
    with writing_to(tier.name):
        for each in found:
            remove = partial(small.remove, _mount(tier), AREA, each.file)
            within(tier.deadline, remove, f"tier {tier.name!r}")
    return len(found)


def standing(tier: Tier, name: str | None = None) -> list[Pin]:
    """The pins in a tier that are not over, of one artifact or of all; the first to end first.

    Raises
    ------
    Unsupported
        For a tier that keeps no pins: it is no folder, and nothing is evicted there by itself.
    """
    mount = _mount(tier)
    found = within(tier.deadline, lambda: _standing(mount, tier.name, name), f"tier {tier.name!r}")
    return sorted(found, key=lambda each: each.until)


def _standing(mount: Root, tier: str, name: str | None) -> list[Pin]:
    begins = "" if name is None else _key(name)
    found = []
    for file in small.names(mount, AREA):
        if file.startswith(begins):
            data = small.read(mount, AREA, file, _LIMIT)
            made, ticking = _parsed(data, tier, file)
            if data and not _over(mount, made, ticking):
                found.append(made)
    return found


def _parsed(data: bytes, tier: str, file: str) -> tuple[Pin, _Ticking]:
    """A pin; one that cannot be read lasts until it is taken away."""
    with suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        body = json.loads(data)
        length, created = float(body["length"]), float(body["created"])
        ticking = _Ticking(str(body["ticking"]["system"]), float(body["ticking"]["seconds"]))
        if 0 < length <= _LARGEST and abs(created) <= _LARGEST and math.isfinite(ticking.seconds):
            name, host = check_name(str(body["name"])), str(body["host"])
            if file.startswith(_key(name)):
                return Pin(name, tier, length, created, host, int(body["pid"]), file), ticking
    return Pin("", tier, _LARGEST, 0.0, file=file), _Ticking("", 0.0)


def _over(mount: Root, made: Pin, ticking: _Ticking) -> bool:
    now = _Ticking.now()
    if now.system and now.system == ticking.system:
        return now.seconds - ticking.seconds >= made.length
    seen = made.created
    with suppress(OSError), beneath.opened(mount.root()) as root:
        seen = max(seen, beneath.stat_file(root, f"{OWN}/{AREA}/{made.file}").st_mtime)
    return time.time() - seen >= made.length + DOUBT


def _key(name: str) -> str:
    return digest128(name.encode())[:_KEY]


def _mount(tier: Tier) -> Root:
    if not isinstance(tier.backend, LocalBackend):
        raise Unsupported(f"tier {tier.name!r} keeps no pins: {tier.backend.place} is no folder")
    return tier.backend.mount


def who_pins(tier: Tier, name: str) -> str:
    """Why an artifact's copy is kept by pins; empty where none keeps it."""
    if not isinstance(tier.backend, LocalBackend):
        return ""
    found = standing(tier, name)
    if not found:
        return ""
    last = found[-1]
    if not last.name:
        return f"pinned: {last.who} lies in {os.path.join(_mount(tier).area_path(AREA), last.file)}"
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(last.until))
    return f"pinned until {until} by {last.who}"
