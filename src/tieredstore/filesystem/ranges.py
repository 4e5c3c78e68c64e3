"""Bytes of ranges of files: each file is opened once, and several are read at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from tieredstore.errors import TieredStoreError
from tieredstore.workers import together

_AT_ONCE: Final = 8

Bound = int | None
Ranges = Sequence[tuple[Bound, Bound]]


def read_ranges(
    open_file: Callable[[str, str], Any],
    paths: Sequence[str],
    starts: Bound | Iterable[Bound],
    ends: Bound | Iterable[Bound],
) -> list[Any]:
    """Read a range of each path.

    Parameters
    ----------
    open_file : callable
        Opens a path in a mode.
    paths : sequence of str
        One for each range; the same may come several times.
    starts, ends : int or None, or iterable of these
        Of each range, as slices have them; one for all, or one for each.

    Returns
    -------
    list of bytes or Exception
        In the order of the paths; what could not be read is the error.
    """
    ranges = list(zip(_each(starts, len(paths)), _each(ends, len(paths)), strict=True))
    if len(ranges) != len(paths):
        raise ValueError(f"{len(paths)} paths, and {len(ranges)} ranges")
    by_path: dict[str, list[int]] = {}
    for number, path in enumerate(paths):
        by_path.setdefault(path, []).append(number)
    found: list[Any] = [b""] * len(paths)
    calls = [partial(_read, open_file, p, wanted, ranges, found) for p, wanted in by_path.items()]
    together(calls, _AT_ONCE)
    return found


def _each(bound: Bound | Iterable[Bound], count: int) -> list[Bound]:
    return [bound] * count if bound is None or isinstance(bound, int) else list(bound)


def _read(
    open_file: Callable[[str, str], Any],
    path: str,
    wanted: list[int],
    ranges: Ranges,
    found: list[Any],
) -> None:
    try:
        with open_file(path, "rb") as file:
            for number in wanted:
                start, stop, _ = slice(*ranges[number]).indices(file.size)
                file.seek(start)
                found[number] = file.read(max(0, stop - start))
    except (OSError, TieredStoreError, ValueError) as error:
        for number in wanted:
            found[number] = error
