"""Which way of reading a dataset from many jobs fits a case, why, and what it costs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

QUICK, REGULAR, PRODUCTION = "quick", "regular", "production"
USES: Final = (QUICK, REGULAR, PRODUCTION)
PER_JOB, PARQUET, SHARED = "per-job cache", "parquet", "shared cache"
BOTH: Final = f"{PARQUET} and {SHARED}"
GB: Final = 10**9
_LARGE: Final = GB
_HUGE: Final = 10 * GB
_FEW: Final = 10  # jobs
_SOME: Final = 20
_MANY: Final = 100


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do.

    Attributes
    ----------
    way : str
        ``per-job cache``, ``parquet``, ``shared cache`` or ``parquet and shared cache``.
    why : str
        In one line.
    costs : str
        In one line.
    commands : tuple of str
        How.
    """

    way: str
    why: str
    costs: str
    commands: tuple[str, ...]


def advise(use: str, size: int, jobs: int) -> Advice:
    """The way for a case.

    Parameters
    ----------
    use : str
        ``quick``: an experiment of a day; ``regular``: the same data again and again;
        ``production``.
    size : int
        Bytes of the data.
    jobs : int
        How many jobs read it, of which many run at once.

    Raises
    ------
    ValueError
        For another use.
    """
    if use not in USES:
        raise ValueError(f"use {use!r}: expected one of {', '.join(USES)}")
    way, why = _way(use, size, jobs)
    return Advice(way, why, _costs(way, size, jobs), _COMMANDS[way])


def _way(use: str, size: int, jobs: int) -> tuple[str, str]:
    if size >= _HUGE:
        return BOTH, "an Arrow copy of so much in each job's reach is built once, or not at all"
    if use == PRODUCTION:
        return PARQUET, "nothing is built when a job starts, so nothing can fail there"
    if jobs >= _MANY:
        return SHARED, f"{jobs} jobs on the same data open one copy that nobody writes to"
    if size < _LARGE:
        if use == QUICK and jobs < _SOME:
            return PER_JOB, "nothing to convert, and each job has a cache that it shares with none"
        return PARQUET, "data that is read again and again is worth one conversion"
    if jobs < _FEW:
        return PER_JOB, f"seeding {jobs} caches is quicker than a conversion"
    return PARQUET, f"{jobs} jobs read columns and rows in parts, without a cache to build"


def _costs(way: str, size: int, jobs: int) -> str:
    each = _shown(size)
    if way == PER_JOB:
        return (
            f"one build; no further disk where scratch is on the file system of the pre-built "
            f"cache, else up to {each} for each job that runs ({_shown(size * jobs)} for {jobs})"
        )
    if way == SHARED:
        return f"one build and {each} of shared disk; nothing for each job"
    if way == PARQUET:
        return f"one conversion, and up to {each} of disk; jobs read Parquet in place of JSON"
    return f"one conversion and one build, up to {_shown(2 * size)} of shared disk"


def parse_size(text: str) -> int:
    """Bytes from ``5GB`` (powers of 1000), ``1.5GiB`` (of 1024), or a number of bytes.

    Raises
    ------
    ValueError
        For anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kKMGT])(i?)B?|B)?", text.strip())
    if found is None:
        raise ValueError(f"size {text!r}: expected such as 500MB, 5GB or 1.5GiB")
    base = 1024 if found[3] else 1000
    power = 0 if found[2] is None else " kMGT".index(found[2].replace("K", "k"))
    return int(float(found[1]) * base**power)


def _shown(size: int) -> str:
    return f"{size / GB:.3g} GB" if size >= GB else f"{size / 10**6:.3g} MB"


_COMMANDS: Final = {
    PER_JOB: (
        "datasets-prep cache prebuild experiment_summary.yaml",
        'eval "$(datasets-prep cache job-env --trap)"',
    ),
    PARQUET: ("datasets-prep parquet",),
    SHARED: (
        "datasets-prep cache prebuild experiment_summary.yaml --shared DIR",
        'eval "$(datasets-prep cache job-env --shared DIR --trap)"',
    ),
    BOTH: (
        "datasets-prep parquet",
        "datasets-prep cache prebuild experiment_summary.yaml --shared DIR",
    ),
}
