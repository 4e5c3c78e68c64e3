"""The pre-built copy of a request: from the store, or built once and kept there.

The artifact is named after the bytes of the data file and what the builder is given, so that equal
files at different paths share it, and another version of a file never takes its place.
"""

from __future__ import annotations

import json
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import xxhash

from datasets_prep.config import datasets_cache, prebuilt_cache
from datasets_prep.hf_cache.building import build
from datasets_prep.hf_cache.entries import Entry
from datasets_prep.hf_cache.opening import opened
from datasets_prep.hf_cache.request import Key, Request, key_of
from datasets_prep.hf_cache.source import Source
from tieredstore import (
    Build,
    Got,
    PromoteFailed,
    Recipe,
    Reporter,
    TieredStore,
    configured,
    open_store,
)

if TYPE_CHECKING:
    import os

    import datasets

PREPARER: Final = "hf-datasets"
STORE: Final = ".tiers"  # in the pre-built cache, where no tiers are configured


@dataclass(frozen=True, slots=True)
class Prebuilt:
    """A pre-built copy that is there now.

    Attributes
    ----------
    got : Got
        The artifact in the first tier; its folder has an entry's files.
    key : Key
        How ``datasets`` calls it.
    source, digest : Source and str
        What it was made from.
    """

    got: Got
    key: Key
    source: Source
    digest: str


def open_cache_store(
    config: str | os.PathLike[str] | None = None, reporter: Reporter | None = None
) -> TieredStore:
    """The store of pre-built copies: the configured tiers, or a folder of the pre-built cache.

    Parameters
    ----------
    config : path, optional
        A configuration of tiers, see `tieredstore.open_store`.
    reporter : Reporter, optional
        Told what happens.
    """
    if config is None and not configured():
        # A home folder is on a network mount as often as not, where no lock is to be relied on.
        path = str(prebuilt_cache() / STORE).replace("$", "$$")
        first = {"name": "pre-built", "backend": "scratch", "path": path}
        return open_store({"tier": [first]}, reporter=reporter)
    return open_store(config, reporter=reporter)


def get(request: Request, store: TieredStore, cache: Path) -> Prebuilt:
    """Restore the pre-built copy, wait for who builds it, or build it and promote it.

    Parameters
    ----------
    request : Request
        What is asked for.
    store : TieredStore
        Where it is kept.
    cache : Path
        A pre-built cache, whose notes spare the reading of data files that have not changed.

    Raises
    ------
    SourceError
        When the data file is missing, or changes meanwhile.
    CacheError
        When ``datasets`` cannot build it.
    tieredstore.BuildFailed
        When another process tried, and could not.
    """
    source = Source.of(request.path)
    key = key_of(request)
    note = Entry(cache, key.entry).note()
    digest = note.digest if note is not None and note.source == source else source.digest()
    name, recipe = artifact(request, key, digest)

    def work(stage: Build) -> None:
        stage.facts["rows"] = build(request, stage.path)
        source.check()

    try:
        got = store.ensure(name, work, recipe)
    except PromoteFailed:  # the reporter has heard of it; here it is whole
        got = store.restore(name, recipe=recipe)
    return Prebuilt(got, key, source, digest)


def artifact(request: Request, key: Key, digest: str) -> tuple[str, Recipe]:
    """Name and recipe of the artifact that holds a request's pre-built copy."""
    options = {"builder": request.builder, "module": key.module, **request.options}
    said = json.dumps([digest, options], sort_keys=True).encode()
    recipe = Recipe(PREPARER, "1", options, {"data": digest})
    return f"{PREPARER}/{xxhash.xxh3_128_hexdigest(said)}", recipe


def load(
    path: str | os.PathLike[str],
    *,
    field: str | None = None,
    split: str = "train",
    store: TieredStore | None = None,
    **options: Any,
) -> datasets.Dataset:
    """Load a data file as ``load_dataset`` does, from a copy that is built once for all.

    That is an entry of the job's or the pre-built cache; else it is restored from the store, or
    built by one of all who ask for it. It is opened memory-mapped: without a lock, also from a
    read-only mount. Results of ``map`` and ``filter`` go to a folder of this process.

    Parameters
    ----------
    path : path
        A data file.
    field : str, optional
        The part of a JSON file to load; all of it by default.
    split : str
        As ``datasets`` writes it: ``train``, ``train[:10%]``.
    store : TieredStore, optional
        Where copies are kept; by default the configured tiers, else a folder of the pre-built
        cache.
    **options
        ``builder``, which is ``json`` by default, and what that builder takes.

    Raises
    ------
    SourceError
        When the data file is missing, or changes meanwhile.
    CacheError
        When ``datasets`` cannot build it, or it has no such split.
    tieredstore.BuildFailed
        When another process tried to build it while this one waited, and could not.
    """
    request = Request.of(path, field, **options)
    source, key = Source.of(request.path), key_of(request)
    for cache in dict.fromkeys((datasets_cache(), prebuilt_cache())):
        entry = Entry(cache, key.entry)
        note = entry.note()
        if note is not None and note.source == source and not entry.lacks():
            return opened(entry.path, split, _fingerprint(request, key, note.digest, split))
    found = get(request, open_cache_store() if store is None else store, prebuilt_cache())
    fingerprint = _fingerprint(request, key, found.digest, split)
    dataset = opened(found.got.path, split, fingerprint)
    weakref.finalize(dataset, found.got.close)  # nothing of it is evicted while it is in use
    return dataset


def _fingerprint(request: Request, key: Key, digest: str, split: str) -> str:
    name, _ = artifact(request, key, digest)
    return xxhash.xxh3_64_hexdigest(f"{name} {split}".encode())
