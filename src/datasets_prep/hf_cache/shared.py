"""A cache that is built centrally and read by all: versions that nobody writes to any more.

``<folder>/versions/<version>/`` is a cache as ``datasets`` lays it out, and ``<folder>/current`` a
link to the newest. A reader takes the version that ``current`` names when it begins, and keeps it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from datasets_prep.errors import CacheError
from datasets_prep.hf_cache.entries import Entry, entries
from datasets_prep.hf_cache.opening import check
from datasets_prep.hf_cache.seeding import OWN, seed

CURRENT: Final = "current"
VERSIONS: Final = "versions"
GRACE: Final = 7 * 86400.0  # seconds for which a version that was replaced may still be read
_WRITABLE: Final = 0o222
_STAGE: Final = ".new-"
_TRIES: Final = 5


def version_of(folder: Path) -> Path:
    """The cache that a folder stands for now: its newest version, or the folder itself."""
    with suppress(OSError):
        if (folder / CURRENT).is_symlink():
            return (folder / CURRENT).resolve(strict=True)
    return folder


def publish(added: Sequence[Entry], folder: Path) -> Path:
    """Make a new version: what the present one has, and these entries.

    Of the present one an entry of the same data file and options is left out where there is a new
    one. Every entry is opened before anybody sees the version.

    Parameters
    ----------
    added : sequence of Entry
        What is new.
    folder : Path
        Where versions lie.

    Returns
    -------
    Path
        The version; the present one where it has all of it already.

    Raises
    ------
    CacheError
        When it cannot be made, or an entry is not whole.
    """
    try:
        return _published(added, folder)
    except OSError as error:
        if isinstance(error, CacheError):
            raise
        raise CacheError(f"{folder}: {error.strerror}; no version can be made there") from None


def _published(added: Sequence[Entry], folder: Path) -> Path:
    for _ in range(_TRIES):
        before = _target(folder)
        present = [] if before is None else entries(folder / before)
        if before is not None and {e.name for e in added} <= {e.name for e in present}:
            return folder / before
        version = _staged(_merged(present, added), folder)
        if _swap(version, before, folder):
            return version
        _delete(version)
    raise CacheError(f"{folder}: others replace the version again and again; run it again")


def _merged(present: Sequence[Entry], added: Sequence[Entry]) -> list[Entry]:
    new = {_data(entry) for entry in added}
    names = {entry.name for entry in added}
    return [e for e in present if e.name not in names and _data(e) not in new] + list(added)


def _data(entry: Entry) -> str:
    note = entry.note()
    return entry.name if note is None else json.dumps([note.path, note.options], sort_keys=True)


def _staged(all_of_it: Sequence[Entry], folder: Path) -> Path:
    (folder / VERSIONS).mkdir(parents=True, exist_ok=True)
    stage = folder / VERSIONS / f"{_STAGE}{secrets.token_hex(8)}"
    stage.mkdir()
    try:
        done = seed(all_of_it, stage, OWN[:3])  # no links out of it
        if done.entries < len(all_of_it):
            raise CacheError(f"{folder}: {len(all_of_it) - done.entries} entries are not whole")
        for entry in entries(stage):
            check(entry.path)
        _write_protect(stage)
        name = time.strftime("%Y%m%dt%H%M%S", time.gmtime()) + f"-{secrets.token_hex(4)}"
        return stage.rename(stage.parent / name)
    except BaseException:
        _delete(stage)
        raise


def _swap(version: Path, before: str | None, folder: Path) -> bool:
    """Let ``current`` name a version in one step, unless somebody else has replaced it."""
    link = folder / f".{CURRENT}-{secrets.token_hex(8)}"
    link.symlink_to(f"{VERSIONS}/{version.name}")
    if _target(folder) != before:
        link.unlink()
        return False
    link.rename(folder / CURRENT)
    return True


def _target(folder: Path) -> str | None:
    try:
        return os.readlink(folder / CURRENT)
    except FileNotFoundError:
        return None


def outdated(folder: Path, grace: float = GRACE) -> Iterator[Path]:
    """Versions that were replaced longer ago than a grace, and what was never finished."""
    current = version_of(folder)
    with suppress(OSError):
        replaced = os.lstat(folder / CURRENT).st_mtime
        for path in sorted((folder / VERSIONS).iterdir()):
            since = max(replaced, path.stat().st_mtime)
            if path != current and time.time() - since > grace:
                yield path


def remove(version: Path) -> None:
    """Remove a version; nobody may need it any more."""
    aside = version.parent / f"{_STAGE}{secrets.token_hex(8)}"
    with suppress(FileNotFoundError):
        version.rename(aside)
        _delete(aside)


def _write_protect(tree: Path) -> None:
    for path, _, names in os.walk(tree, topdown=False):
        for each in (*(os.path.join(path, name) for name in names), path):
            mode = os.lstat(each).st_mode
            if mode & _WRITABLE:
                os.chmod(each, mode & ~_WRITABLE & 0o7777)


def _delete(tree: Path) -> None:
    for path, _, _ in os.walk(tree):
        with suppress(OSError):
            os.chmod(path, 0o700)
    shutil.rmtree(tree, ignore_errors=True)
