"""What lies in caches, as rows for people: pre-built entries, versions, caches of jobs."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datasets_prep.hf_cache import collecting, shared
from datasets_prep.hf_cache.entries import Entry, entries
from datasets_prep.hf_cache.seeding import OLD, STAGE
from datasets_prep.slurm import Queue

PREBUILT, OTHER, JOB, VERSION = "pre-built", "built by datasets", "job", "version"
_DAY: Final = 86400


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes
    ----------
    kind : str
        ``pre-built``, ``built by datasets``, ``job`` or ``version``.
    size : int
        Bytes.
    owner : str
        The user's name, or number.
    state : str
        ``whole`` or what is wrong; of a job whether it runs; of a version whether it is current.
    what : str
        The data file, where it is known; else the folder.
    """

    kind: str
    size: int
    owner: str
    state: str
    what: str


def of_entries(cache: Path) -> Iterator[Row]:
    """The entries of a cache."""
    for entry in entries(cache):
        if not os.path.basename(entry.name).startswith((STAGE, OLD)):
            yield _of_entry(entry)


def of_jobs(bases: Sequence[Path], queue: Queue) -> Iterator[Row]:
    """The caches of jobs in scratch folders."""
    for each in collecting.found(bases, queue):
        state = f"{each.state}: {each.why}" if each.why else each.state
        yield Row(JOB, each.size(), _user(each.uid), state, str(each.path))


def of_versions(folder: Path) -> Iterator[Row]:
    """The versions of a shared cache."""
    current = shared.version_of(folder)
    for path in sorted((folder / shared.VERSIONS).glob("[0-9]*")):
        size = sum(entry.size for entry in entries(path))
        state = "current" if path.resolve() == current else f"replaced, {_age(path)} old"
        yield Row(VERSION, size, _user(path.stat().st_uid), state, str(path))


def state_of(entry: Entry) -> str:
    """Whether an entry is whole and of use, in a few words."""
    lacks = entry.lacks()
    if lacks:
        return lacks
    note = entry.note()
    if note is None:
        return "whole"
    try:
        now = os.stat(note.path)
    except OSError:
        return "whole; its data file is gone"
    return "whole" if now.st_mtime_ns == note.mtime_ns else "whole; its data file has changed"


def _of_entry(entry: Entry) -> Row:
    note = entry.note()
    owner = _user(entry.path.stat().st_uid)
    if note is None:
        return Row(OTHER, entry.size, owner, state_of(entry), str(entry.path))
    field = note.options.get("field")
    what = note.path if field is None else f"{note.path} (field {field!r})"
    return Row(PREBUILT, entry.size, owner, state_of(entry), what)


def _age(path: Path) -> str:
    seconds = max(0.0, time.time() - path.stat().st_mtime)
    return f"{seconds / _DAY:.1f} days"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
