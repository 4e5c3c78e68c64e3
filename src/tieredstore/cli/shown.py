"""What a verb has to show, and how rows of it are written on a terminal and elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tieredstore import views

DONE, FAILED, MISUSED = 0, 1, 2
COLUMNS: Final = ("Artifact", "Tier", "State", "Files", "Size", "Age", "Recipe", "Differs")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a verb has to show: one JSON document, or the same as lines or rows."""

    document: dict[str, Any]
    lines: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    code: int = DONE
    error: str = ""
    columns: Sequence[str] = COLUMNS


def size(count: int | None) -> str:
    """Bytes, for a person on a terminal and for programs elsewhere."""
    if _terminal():
        return views.size(count)
    return "" if count is None else str(count)


def age(created: int | None) -> str:
    """Seconds since 1970, as an age on a terminal and as a time elsewhere."""
    return views.age(created) if _terminal() else views.when(created)


def _terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()
