"""Folders that a tier's path makes for each SLURM job: those of jobs that have ended, collected.

A path such as ``/scratch/job-$SLURM_JOB_ID/data`` gives each job a place of its own. Only folders
that a store made, of the same user, are looked at, and only what SLURM no longer has in its queue
is dropped. Where SLURM does not answer nothing is.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tieredstore.errors import TieredStoreError, TierUnavailable, UnsafePath
from tieredstore.litter import Collectable, Litter
from tieredstore.mounted import alive, beneath
from tieredstore.mounted.litter import measured
from tieredstore.mounted.staged import AREA
from tieredstore.mounted.vigil import Vigil, listed

JOB: Final = "job"
PLACEHOLDER: Final = "@job@"  # stands for the job's number in a template
_GONE: Final = f"{AREA}-gone-"
_PATIENCE: Final = 30.0  # seconds that SLURM may take to answer
_FRESH: Final = 10.0  # seconds for which an answer counts
_QUEUE: Final = ("squeue", "--noheader", "--all", "--states=all", "--format=%A %T")
_ENDED: Final = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)


@dataclass(frozen=True, slots=True)
class _Found:
    """A folder of a job: its number, and where, below the folder that all of them lie in."""

    job: str
    path: str


class JobFolders(Collectable):
    """The folders that one template makes.

    Parameters
    ----------
    template : str
        An absolute path with `PLACEHOLDER` in one of its parts.
    own : str
        The path that is in use here; never looked at.

    Raises
    ------
    ValueError
        When no part of the template, or more than one, has the placeholder.
    """

    def __init__(self, template: str, own: str) -> None:
        before, number, after = os.path.normpath(template).partition(PLACEHOLDER)
        if not number or PLACEHOLDER in after:
            raise ValueError(f"{template!r}: expected the number of the job in it once")
        above, _, begin = before.rpartition("/")
        end, _, self._rest = after.partition("/")
        self._above = above or "/"
        self._name = re.compile(f"{re.escape(begin)}([0-9]{{1,20}}){re.escape(end)}")
        self._own = os.path.normpath(own)
        self._lock = threading.Lock()
        self._asked = -_FRESH
        self._jobs: frozenset[str] = frozenset()

    def litter(self, grace: float) -> Iterator[Litter]:
        """See `Collectable.litter`.

        Raises
        ------
        TierUnavailable
            When there are folders of jobs, and SLURM does not say which of them it has.
        """
        try:
            above = beneath.open_root(self._above)
        except FileNotFoundError:
            return
        with beneath.opened(above):
            yield from self._half_deleted(above)
            found = list(self._folders(above))
            jobs = self._queue() if found else frozenset()  # a job that has a folder is in it
            for each in found:
                if each.job not in jobs:
                    yield from self._left(above, each, grace)

    def drop(self, litter: Litter) -> int | None:
        """See `Collectable.drop`; renamed in its own folder first."""
        path = os.path.relpath(litter.path, self._above)
        job, _, newest = litter.token.partition(" ")
        if job and job in self._queue():
            return None  # requeued
        with beneath.opened(beneath.open_root(self._above)) as above:
            folder = beneath.split(path)[0]
            if job:
                aside = f"{folder}/{alive.temporary(_GONE)}".lstrip("/")
                try:
                    beneath.rename(above, path, above, aside)
                except FileNotFoundError:
                    return None
                if measured(above, aside)[0] != int(newest):
                    beneath.rename(above, aside, above, path)
                    return None
                path = aside
            beneath.delete_tree(above, path)
            self._remove_empty(above, folder)
        return litter.size

    def _remove_empty(self, above: int, folder: str) -> None:
        with suppress(OSError):
            while folder:
                outer, name = beneath.split(folder)
                with beneath.opened(beneath.open_folder(above, outer)) as fd:
                    os.rmdir(name, dir_fd=fd)
                folder = outer

    def _folders(self, above: int) -> Iterator[_Found]:
        for name in listed(above, ""):
            matched = self._name.fullmatch(name)
            path = f"{name}/{self._rest}".rstrip("/")
            other = matched is not None and os.path.join(self._above, path) != self._own
            if matched is not None and other and self._is_ours(above, path):
                yield _Found(matched[1], path)

    @staticmethod
    def _is_ours(above: int, path: str) -> bool:
        """Whether a store of this user has made it; others' jobs may be hidden from this one."""
        with suppress(OSError, UnsafePath):
            with beneath.opened(beneath.open_folder(above, path)) as folder:
                ours = os.fstat(folder).st_uid == os.geteuid()
                return ours and beneath.exists(folder, AREA)
        return False

    def _left(self, above: int, found: _Found, grace: float) -> Iterator[Litter]:
        with suppress(FileNotFoundError):
            newest, size, since = measured(above, found.path)
            # What is written to see the time is a change: not in the folder that is measured.
            with beneath.opened(beneath.open_folder(above, beneath.split(found.path)[0])) as beside:
                now = alive.clock(beside)
            with beneath.opened(beneath.open_folder(above, f"{found.path}/{AREA}")) as area:
                waits = any(name[0] != "." for name in listed(area, "queue"))  # to be promoted
                if waits or since / 1e9 > now - grace:
                    return
                if Vigil(area, now, grace).living:
                    return
            path = os.path.join(self._above, found.path)
            yield Litter(JOB, path, size, since / 1e9, f"{found.job} {newest}")

    def _half_deleted(self, above: int) -> Iterator[Litter]:
        """What a collector that was killed has left, under the name that it gave it."""
        inner = beneath.split(self._rest)[0]
        folders = [n for n in listed(above, "") if self._name.fullmatch(n)] if self._rest else [""]
        for folder in (f"{name}/{inner}".strip("/") for name in folders):
            with suppress(OSError, TieredStoreError):
                for name in listed(above, folder):
                    path = f"{folder}/{name}".lstrip("/")
                    if name.startswith(_GONE) and alive.lives(name) is False:
                        _, size, since = measured(above, path)
                        yield Litter(JOB, os.path.join(self._above, path), size, since / 1e9)

    def _queue(self) -> frozenset[str]:
        """The numbers of all jobs that have not ended."""
        with self._lock:
            if time.monotonic() - self._asked >= _FRESH:
                self._jobs, self._asked = _asked(), time.monotonic()
            return self._jobs


def _asked() -> frozenset[str]:
    import subprocess

    try:
        done = subprocess.run(  # noqa: S603 - nothing of it comes from outside
            _QUEUE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        )
    except FileNotFoundError:
        why = "squeue is not installed here"
    except subprocess.TimeoutExpired:
        why = f"squeue gave no answer within {_PATIENCE:g} s"
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        why = f"squeue failed: {said[-1] if said else error}"
    else:
        rows = [line.split() for line in done.stdout.splitlines() if line.strip()]
        if all(len(row) == 2 and row[0].isdigit() for row in rows):  # noqa: PLR2004 - job, state
            return frozenset(job for job, state in rows if state not in _ENDED)
        why = "squeue printed something else than jobs and their states"
    raise TierUnavailable(f"folders of other jobs are left as they are: {why}")
