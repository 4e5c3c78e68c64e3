"""Caches of jobs that have ended, found and removed. Where SLURM does not answer none is."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datasets_prep.errors import SlurmFailed
from datasets_prep.hf_cache.jobs import PREFIX, above, note_of
from datasets_prep.slurm import Queue

RUNNING, ENDED, UNKNOWN = "running", "ended", "unknown"
_GONE: Final = f".{PREFIX}gone-"
_JOB: Final = re.compile(r"(\d+)([.-].*)?")
_PROCESS: Final = re.compile(r"(.+)@(\d+)\.\w+")


@dataclass(frozen=True, slots=True)
class Found:
    """The cache of a job.

    Attributes
    ----------
    path : Path
        The folder.
    owner : str
        Whose it is: a job's id, or a host and a process.
    state : str
        ``running``, ``ended``, or ``unknown``.
    why : str
        Why it is not known.
    uid : int
        The user.
    """

    path: Path
    owner: str
    state: str
    why: str
    uid: int

    def size(self) -> int:
        """Bytes of all files in it, links to files elsewhere aside."""
        total = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                with suppress(OSError):
                    seen = os.lstat(os.path.join(folder, name))
                    total += seen.st_size if not os.path.islink(os.path.join(folder, name)) else 0
        return total


def found(bases: Sequence[Path], queue: Queue) -> list[Found]:
    """The caches of jobs in these scratch folders, and which of the jobs have ended.

    SLURM is asked after the folders were listed: a job that has one is in its queue.

    Parameters
    ----------
    bases : sequence of Path
        Scratch folders.
    queue : Queue
        Who is asked about jobs.
    """
    folders = [path for base in bases for where in (base, above(base)) for path in _folders(where)]
    asked = _Asked(queue)
    return [each for path in folders for each in _judged(path, asked)]


def remove(each: Found) -> bool:
    """Remove a cache: renamed first, so that nobody sees half of it. Whether it was there."""
    aside = each.path
    if not each.path.name.startswith(_GONE):
        aside = each.path.parent / f"{_GONE}{secrets.token_hex(8)}"
        try:
            each.path.rename(aside)
        except FileNotFoundError:
            return False
    there = aside.exists()
    while aside.exists():
        with suppress(FileNotFoundError):  # another collector deletes it too
            shutil.rmtree(aside)
    return there


def _folders(where: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(
            Path(each.path)
            for each in os.scandir(where)
            if each.name.startswith((PREFIX, _GONE)) and each.is_dir(follow_symlinks=False)
        )
    return []


def _judged(path: Path, asked: _Asked) -> Iterator[Found]:
    with suppress(FileNotFoundError):
        uid = path.lstat().st_uid
        if path.name.startswith(_GONE):
            yield Found(path, "", ENDED, "", uid)
            return
        owner = path.name.removeprefix(PREFIX)
        if process := _PROCESS.fullmatch(owner):
            state, why = _process(process[1], int(process[2]))
        elif job := _JOB.fullmatch(owner):
            state, why = asked.job(job[1], str(note_of(path).get("cluster", "")))
        else:
            state, why = UNKNOWN, "not named after a job"
        yield Found(path, owner, state, why, uid)


def _process(host: str, number: int) -> tuple[str, str]:
    if host != socket.gethostname():
        return UNKNOWN, f"of a process on {host}"
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return ENDED, ""
    except PermissionError:
        pass  # another user's
    return RUNNING, ""


class _Asked:
    """What SLURM says, asked once and only where it matters."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._jobs: frozenset[str] | None = None
        self._cluster = ""
        self._why = ""

    def job(self, number: str, cluster: str) -> tuple[str, str]:
        if self._jobs is None and not self._why:
            self._ask()
        if self._jobs is None:
            return UNKNOWN, self._why
        if number in self._jobs:
            return RUNNING, ""
        if cluster and self._cluster != cluster:
            return UNKNOWN, f"of a job on the cluster {cluster}"
        return ENDED, ""

    def _ask(self) -> None:
        try:
            self._cluster = self._queue.cluster()
            self._jobs = self._queue.living()
        except SlurmFailed as error:
            self._why = str(error)
