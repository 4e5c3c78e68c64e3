"""Many data files built before the jobs that read them, and put where those jobs will look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from datasets_prep.errors import CacheError, FieldMissing, PrepError, reason
from datasets_prep.hf_cache.entries import Entry, Note
from datasets_prep.hf_cache.getting import Prebuilt, get
from datasets_prep.hf_cache.opening import check
from datasets_prep.hf_cache.request import Request
from datasets_prep.hf_cache.seeding import OWN, Files, discard, put
from tieredstore import BuildFailed, TieredStore, TieredStoreError

Tell = Callable[[str], None]

FALLBACK: Final = "validation"
ALL, SOME, NONE = "success", "partial", "failed"


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a pre-build.

    Attributes
    ----------
    built : list of str
        Data files whose entries are there, whole.
    failed : dict of str to str
        The others, and why.
    entries : list of Entry
        What is there now.
    """

    built: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)

    @property
    def status(self) -> str:
        """``success``: all are there; ``partial``: some; ``failed``: none."""
        if not self.failed:
            return ALL
        return SOME if self.built else NONE

    def told(self) -> dict[str, object]:
        """The summary as plain data."""
        return {
            "status": self.status,
            "datasets_cached": len(self.built),
            "datasets_failed": len(self.failed),
            "paths_cached": self.built,
            "paths_failed": list(self.failed),
        }


def prebuild(
    paths: Sequence[str], field: str | None, store: TieredStore, cache: Path, tell: Tell
) -> Summary:
    """Build each data file once, and seed the cache with it.

    Afterwards ``load_dataset("json", data_files=path, field=field, split="train")`` builds nothing.

    Parameters
    ----------
    paths : sequence of str
        Data files; each is built once, however often it is named.
    field : str or None
        The part of each file; where a file does not have it, ``validation``.
    store : TieredStore
        Where copies are kept.
    cache : Path
        The cache that is seeded: what jobs have as ``HF_DATASETS_CACHE``.
    tell : callable
        Told each line of the log.
    """
    unique = list(dict.fromkeys(paths))
    done = Summary()
    tell(f"Unique datasets: {len(unique)}")
    for path in unique:
        try:
            done.entries.append(_one(path, field, store, cache, tell))
        except (PrepError, TieredStoreError, OSError) as error:
            done.failed[path] = reason(error)
            tell(f"CACHE_FAILED: {path} ({reason(error)})")
        else:
            done.built.append(path)
            tell(f"CACHE_BUILT: {path}")
    tell(f"CACHE_PREBUILD_COMPLETE: {len(done.built)} cached, {len(done.failed)} failed")
    return done


def _one(path: str, field: str | None, store: TieredStore, cache: Path, tell: Tell) -> Entry:
    try:
        return entry_of(Request.of(path, field), store, cache)
    except FieldMissing:
        if field == FALLBACK:
            raise
        tell(f"CACHE_PREBUILD: warning: {path} has no field {field!r}; using {FALLBACK!r}")
        return entry_of(Request.of(path, FALLBACK), store, cache)


def entry_of(request: Request, store: TieredStore, cache: Path) -> Entry:
    """Have a request's entry in a cache, whole: seeded from the pre-built copy, and opened.

    Parameters
    ----------
    request : Request
        What a job will ask for.
    store : TieredStore
        Where copies are kept.
    cache : Path
        The cache.

    Raises
    ------
    SourceError, CacheError
        When it cannot be built.
    """
    try:
        found = get(request, store, cache)
    except BuildFailed:  # another's attempt: this one says why, or succeeds
        found = get(request, store, cache)
    with found.got:
        entry = Entry(cache, found.key.entry)
        _seed(_files(request, found), entry)
        if found.source != type(found.source).of(request.path):
            raise CacheError(f"{request.path}: changed while it was built; run it again")
    return entry


def _seed(files: Files, entry: Entry) -> None:
    put(files, entry, OWN)
    try:
        check(entry.path)
    except CacheError:  # it was there before, with the right sizes and other bytes
        discard(entry)
        put(files, entry, OWN)
        check(entry.path)


def _files(request: Request, found: Prebuilt) -> Files:
    folder = found.got.path.absolute()
    names = Entry(folder, ".").arrow()
    source = found.source
    note = Note(
        source.path,
        source.size,
        source.mtime_ns,
        source.ctime_ns,
        found.digest,
        dict(request.options),
        names,
    )
    return Files(folder, names, note)
