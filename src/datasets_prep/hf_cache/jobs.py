"""Caches of single jobs: a folder of its own for each, seeded, and removed when the job ends.

``<scratch>/.cache/hf-datasets-<owner>``. The owner is a SLURM job's id, with its step and task
within one, or elsewhere ``<host>@<process>.<random>``.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datasets_prep.config import (
    DATASETS_VARIABLE,
    PREBUILT_VARIABLE,
    environment,
    prebuilt_cache,
    scratches,
    slurm_job,
)
from datasets_prep.errors import CacheError
from datasets_prep.hf_cache.entries import Entry, entries
from datasets_prep.hf_cache.seeding import LINKS, OWN, Seeded, Way, seed
from tieredstore import terminable

ABOVE: Final = ".cache"
PREFIX: Final = "hf-datasets-"
NOTE: Final = ".job.json"
_RESERVE: Final = 20  # a twentieth of a file system stays free


@dataclass(frozen=True, slots=True)
class JobCache:
    """The cache of one job.

    Attributes
    ----------
    path : Path
        The folder: ``HF_DATASETS_CACHE`` of the job.
    prebuilt : Path
        The cache that it was seeded from.
    seeded : Seeded
        What it was seeded with.
    """

    path: Path
    prebuilt: Path
    seeded: Seeded

    @property
    def variables(self) -> dict[str, str]:
        """What the job is to have in its environment."""
        return {DATASETS_VARIABLE: str(self.path), PREBUILT_VARIABLE: str(self.prebuilt)}


def owner() -> str:
    """Whose cache it is, as part of its name; elsewhere than in a job another one each time.

    There it names the session, which lives as long as the shell that began it.
    """
    told = slurm_job()
    job, step = told.get("SLURM_JOB_ID", ""), told.get("SLURM_STEP_ID", "")
    if not job.isdecimal():
        return f"{socket.gethostname()}@{os.getsid(0)}.{secrets.token_hex(4)}"
    if not step.isdecimal():
        return job
    return f"{job}.{step}-{told.get('SLURM_PROCID', '0')}"


def owner_of_process() -> str:
    """The same for a cache that this process has for itself, beside its job's."""
    job, own = slurm_job().get("SLURM_JOB_ID", ""), os.getpid()
    unique = secrets.token_hex(4)
    return f"{job}.{own}-{unique}" if job.isdecimal() else f"{socket.gethostname()}@{own}.{unique}"


def folder_of(base: Path, name: str) -> Path:
    """Where in a scratch folder a job's cache lies: ``<base>/.cache/hf-datasets-<name>``.

    In a folder that everybody may write to it is ``<base>/<user>/.cache/…``, so that nobody else
    can put something there.
    """
    return above(base) / f"{PREFIX}{name}"


def above(base: Path) -> Path:
    """The folder in which this user's job caches of a scratch folder lie."""
    with suppress(OSError):
        if base.stat().st_mode & stat.S_IWOTH:
            return base / _user() / ABOVE
    return base / ABOVE


def place(bases: Sequence[Path], found: Sequence[Entry]) -> Path:
    """Which of several folders gets the cache: the first with room for what is copied there.

    Parameters
    ----------
    bases : sequence of Path
        Scratch folders, the best first.
    found : sequence of Entry
        What it is seeded with. Those on another file system are copied.

    Raises
    ------
    CacheError
        When none of them can be written to.
    """
    able = [base for base in bases if _is_able(base)]
    if not able:
        named = ", ".join(map(str, bases))
        raise CacheError(f"{named}: no folder that can be written to, expected a scratch folder")
    made_here = [entry for entry in found if entry.note() is not None]
    return next((base for base in able if _has_room(base, made_here)), able[-1])


def _is_able(base: Path) -> bool:
    """Whether job caches can be made there; the folder for them is."""
    folder = above(base)
    own = folder.parent != base
    # Who shares the scratch folder shares the one in it.
    try:
        mode = 0o700 if own else stat.S_IMODE(base.stat().st_mode)
        for each in (folder.parent, folder) if own else (folder,):
            with suppress(FileExistsError):
                each.mkdir(mode=0o700)
                each.chmod(mode)
        mine = not own or os.lstat(folder.parent).st_uid == os.geteuid()
    except OSError:
        return False
    return mine and os.access(folder, os.W_OK | os.X_OK)


def _has_room(base: Path, found: Sequence[Entry]) -> bool:
    here = base.stat().st_dev
    size = sum(entry.size for entry in found if entry.path.stat().st_dev != here)
    room = os.statvfs(base)
    return not size or (
        room.f_bavail * room.f_frsize - size >= room.f_blocks * room.f_frsize // _RESERVE
    )


def make(folder: Path, prebuilt: Path, found: Sequence[Entry], ways: Sequence[Way]) -> JobCache:
    """Make a job's cache, and seed it. What was begun is removed when this is ended.

    Parameters
    ----------
    folder : Path
        Where; one that is there from an earlier start of the job is kept.
    prebuilt : Path
        The cache that it is seeded from.
    found : sequence of Entry
        What it is seeded with.
    ways : sequence of callable
        How what was pre-built gets there, see `seeding`; of other entries there are links.

    Raises
    ------
    CacheError
        When it cannot be made.
    """
    new = not folder.exists()
    try:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(exist_ok=True, mode=0o700)
            if os.lstat(folder).st_uid != os.geteuid():
                raise CacheError(f"{folder}: is there, and belongs to another user")
            _write_note(folder)
        except OSError as error:
            if isinstance(error, CacheError):
                raise
            raise CacheError(f"{folder}: {error.strerror}; no cache can be made there") from None
        made_here = [entry for entry in found if entry.note() is not None]
        seeded = seed(made_here, folder, ways)
        # What datasets itself has built there may be anything; it costs neither time nor room.
        others = [entry for entry in found if entry.note() is None]
        return JobCache(folder, prebuilt, seeded + seed(others, folder, LINKS))
    except BaseException:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def job_cache(scratch: Path | None = None, *, prebuilt: Path | None = None) -> Iterator[JobCache]:
    """A cache of this process's own while the block runs: seeded, in use, then removed.

    ``load_dataset`` uses it, also where ``datasets`` was imported before. SIGTERM ends the block in
    order.

    Parameters
    ----------
    scratch : path, optional
        Where; by default the nearest of ``SLURM_TMPDIR``, ``TMPDIR``, ``/tmp`` and ``SCRATCH`` with
        room.
    prebuilt : path, optional
        The cache that it is seeded from; by default the usual one.

    Raises
    ------
    CacheError
        When it cannot be made.
    """
    prebuilt = prebuilt_cache() if prebuilt is None else prebuilt.absolute()
    found = entries(prebuilt)
    base = place(scratches() if scratch is None else [scratch.absolute()], found)
    folder = folder_of(base, owner_of_process())
    with ExitStack() as held:
        held.enter_context(terminable())
        held.callback(shutil.rmtree, folder, ignore_errors=True)
        made = make(folder, prebuilt, found, OWN)
        held.enter_context(environment(made.variables))
        held.enter_context(_told(made.path))
        yield made


@contextmanager
def _told(cache: Path) -> Iterator[None]:
    """Let ``datasets`` use a cache, where it has read its variables already."""
    config = getattr(sys.modules.get("datasets"), "config", None)
    if config is None:
        yield
        return
    paths = {
        "HF_DATASETS_CACHE": cache,
        "DOWNLOADED_DATASETS_PATH": cache / "downloads",
        "EXTRACTED_DATASETS_PATH": cache / "downloads" / "extracted",
    }
    before = {name: getattr(config, name) for name in paths}
    try:
        for name, path in paths.items():
            setattr(config, name, path)
        yield
    finally:
        for name, path in before.items():
            setattr(config, name, path)


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _write_note(folder: Path) -> None:
    told = slurm_job()
    note = {
        "cluster": told.get("SLURM_CLUSTER_NAME", ""),
        "host": socket.gethostname(),
        "created": int(time.time()),
    }
    (folder / NOTE).write_text(json.dumps(note), encoding="utf-8")


def note_of(folder: Path) -> Mapping[str, object]:
    """What was written down about a job's cache when it was made."""
    with suppress(OSError, ValueError):
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        if isinstance(note, dict):
            return note
    return {}
