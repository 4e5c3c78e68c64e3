"""How much of a place a tier may take, and bytes as people write and read them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

EXPECTED: Final = "a size such as 200GB, 1.5TiB or a whole number of bytes"
_SIZE: Final = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*(?:([kKMGTP])(i?)B|B|)")
_POWERS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


@dataclass(frozen=True, slots=True)
class Space:
    """What a tier may take of its place; without limits, whatever fits the disk.

    Attributes
    ----------
    max_size : int or None
        Bytes that the tier may hold at most: its artifacts, and what the store keeps there for
        itself.
    min_free : int or None
        Bytes that have to stay free on its file system.
    """

    max_size: int | None = None
    min_free: int | None = None

    @property
    def limited(self) -> bool:
        """Whether any limit is set."""
        return self.max_size is not None or self.min_free is not None


NO_LIMITS: Final = Space()


def parse_size(written: str | int) -> int:
    """Bytes from ``200GB`` (powers of 1000), ``1.5TiB`` (of 1024), or a whole number.

    Raises
    ------
    ValueError
        When it is none of these.
    """
    if isinstance(written, int) and not isinstance(written, bool) and written >= 0:
        return written
    found = _SIZE.fullmatch(written.strip()) if isinstance(written, str) else None
    if found is None:
        raise ValueError(f"{written!r} is no size, expected {EXPECTED}")
    number, unit, binary = found.groups()
    if "." not in number and not unit:
        return int(number)
    if "." in number and not unit:
        raise ValueError(f"{written!r} is no whole number of bytes, expected {EXPECTED}")
    base: int = 1024 if binary else 1000
    return round(float(number) * math.pow(base, _POWERS[unit.upper()]))


def size(count: int | None) -> str:
    """Bytes for people: ``1.2 MB``."""
    if count is None:
        return ""
    for unit, length in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} B"
