"""Chunks of a run to final datasets: one for each slice, or one of all, in the chunks' order.

Parquet files become one, row group by row group; ``.bin`` files become one by their block tables;
everything else comes to lie side by side. What a merge is made of is part of its recipe, so that
chunks that have not changed are merged once. Chunks are dropped only after the merge is whole,
verified, and in every durable tier.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from datasets_prep.chunks.footer import NotMovable
from datasets_prep.chunks.joining import Joinable, join
from datasets_prep.chunks.merged import MergeNotes
from datasets_prep.chunks.parquet import concatenate
from datasets_prep.chunks.phases import LOG
from datasets_prep.chunks.plan import Chunk, Plan
from datasets_prep.chunks.telling import SILENT, ChunkReporter
from datasets_prep.errors import ChunksFailed
from tieredstore import ArtifactNotFound, CorruptData, Recipe, TieredStore

PREPARER: Final = "datasets_prep.chunks.merge"
VERSION: Final = "1"
ALL: Final = "all"
_AHEAD: Final = 2
_NAMED: Final = 5  # missing chunks that an error names
_POLL: Final = 2.0  # seconds
_TIMES: Final = "%Y%m%d_%H%M%S"


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """How a run is merged.

    Attributes
    ----------
    whole : bool
        One dataset of all slices, instead of one for each.
    allow_missing : bool
        Merge what is there even where chunks are missing.
    """

    whole: bool = False
    allow_missing: bool = False


@dataclass(slots=True)
class Merged:
    """What came of merging one slice, or all.

    Attributes
    ----------
    scope : str
        ``gpu0``, or ``all``.
    artifacts : list of str
        What has been published.
    chunks : list of Chunk
        What it is made of.
    missing : list of Chunk
        What is not in it, because it was not there.
    rows : int
        Rows of the Parquet files.
    again : bool
        Whether it was there already.
    """

    scope: str
    artifacts: list[str]
    chunks: list[Chunk]
    missing: list[Chunk] = field(default_factory=list)
    rows: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    """One chunk's files, in the first tier."""

    chunk: Chunk
    name: str
    path: Path
    files: tuple[str, ...]
    generation: str


class Merge:
    """One merge of a run.

    Parameters
    ----------
    store : TieredStore
        Where chunks are, and datasets go.
    plan : Plan
        The run.
    options : MergeOptions
        How.
    reporter : ChunkReporter
        Told what happens.
    """

    def __init__(
        self,
        store: TieredStore,
        plan: Plan,
        options: MergeOptions,
        reporter: ChunkReporter = SILENT,
    ) -> None:
        self._store = store
        self._plan = plan
        self._options = options
        self._reporter = reporter
        self._notes = MergeNotes(store, plan)

    def run(self) -> list[Merged]:
        """Merge each slice, or all of them into one.

        Raises
        ------
        ChunksFailed
            When chunks are missing, before anything is merged.
        MergeError
            When their files cannot become one.
        """
        scopes = self._scopes()
        removed = self._removed()
        there = self._generations(self._plan.chunks())
        gone = {chunk for each in removed.values() for chunk in each.chunks}
        if not self._options.allow_missing or not there.keys() | gone:
            self._check(there.keys(), gone)
        merged = list(removed.values())
        for each in merged:
            self._again(each)
        for scope, chunks in scopes.items():
            if scope not in removed and any(chunk in there for chunk in chunks):
                merged.append(self._merge_alone(scope, chunks, there))
        return merged

    def _scopes(self) -> dict[str, list[Chunk]]:
        if self._options.whole:
            return {ALL: self._plan.chunks()}
        return {f"gpu{n}": self._plan.chunks(n) for n in range(len(self._plan.slices))}

    def _check(self, there: AbstractSet[Chunk], gone: AbstractSet[Chunk]) -> None:
        """Refuse to merge less than all."""
        run, chunks = self._plan.run, self._plan.chunks()
        missing = [chunk for chunk in chunks if chunk not in there and chunk not in gone]
        if missing:
            labels = ", ".join(chunk.label for chunk in missing[:_NAMED])
            more = ", …" if len(missing) > _NAMED else ""
            raise ChunksFailed(
                f"{run}: {len(missing)} of {len(chunks)} chunks are missing ({labels}{more}); "
                f"run them, or merge what is there with --allow-missing"
            )
        for scope, wanted in self._scopes().items():
            if any(chunk in there for chunk in wanted) and not there >= set(wanted):
                raise ChunksFailed(
                    f"{run}: some chunks of {scope} were removed when they had been merged with "
                    f"others; merge as it was done then, or what is left with --allow-missing"
                )

    def drop_chunks(self, merged: Iterable[Merged]) -> int:
        """Remove chunks whose merge is whole in the first tier and in every durable one.

        Returns
        -------
        int
            How many were removed.

        Raises
        ------
        ChunksFailed
            When a merge is not in every durable tier, before any of its chunks is removed.
        """
        count = 0
        for each in merged:
            for name in each.artifacts:
                self._check_kept(name)
            self._notes.removed(each.scope)
            for chunk in each.chunks:
                with suppress(ArtifactNotFound):
                    self._store.remove(chunk.artifact(self._plan.run))
                    count += 1
        return count

    def older_than(self, seconds: float, merged: Iterable[Merged]) -> list[Merged]:
        """Those of the merges that were made so long ago."""
        notes, now = self._notes.read(), time.time()
        return [m for m in merged if m.scope in notes and now - notes[m.scope].time >= seconds]

    def _check_kept(self, name: str) -> None:
        lacking = self._lacking(name)
        if lacking:
            self._store.restore(name)
            self._store.promote(name)
            lacking = self._lacking(name)
        if lacking:
            raise ChunksFailed(
                f"{name}: not whole in {', '.join(lacking)}; its chunks are kept, promote it first"
            )

    def _lacking(self, name: str) -> list[str]:
        """The durable tiers that have no whole, verified copy."""
        durable = {t.name for t in self._store.tiers if t.durable} or {self._store.tiers[0].name}
        return sorted(durable - {v.tier for v in self._store.verify(name) if v.ok})

    # -- one scope ------------------------------------------------------------------------------

    def _again(self, merged: Merged) -> None:
        self._reporter.note(f"{merged.scope}: already merged into {', '.join(merged.artifacts)}")

    def _removed(self) -> dict[str, Merged]:
        """Merges that hold chunks which have been removed for it."""
        chunks = self._plan.chunks()
        return {
            scope: Merged(
                scope,
                list(note.artifacts),
                [chunk for chunk in chunks if chunk.label in note.chunks],
                again=True,
            )
            for scope, note in self._notes.read().items()
            if note.removed
        }

    def _generations(self, chunks: Sequence[Chunk]) -> dict[Chunk, str]:
        """The generation of each chunk that is there, whole or to be brought together."""

        def look(chunk: Chunk) -> str:
            located = self._store.locate(chunk.artifact(self._plan.run))
            return next((w.head.generation for w in located if w.present and w.head), "")

        with ThreadPoolExecutor(16) as pool:
            found = dict(zip(chunks, pool.map(look, chunks), strict=True))
        return {chunk: generation for chunk, generation in found.items() if generation}

    def _merge_alone(
        self, scope: str, chunks: Sequence[Chunk], there: Mapping[Chunk, str]
    ) -> Merged:
        """Merge while nobody else does; whoever waits finds it merged."""
        while True:
            with self._store.claim(f"{self._plan.run}/{scope}.merge") as mine:
                if mine:
                    return self._merge(scope, chunks, there)
            self._reporter.note(f"{scope}: waiting for another process that merges it")
            time.sleep(_POLL)

    def _merge(self, scope: str, chunks: Sequence[Chunk], there: Mapping[Chunk, str]) -> Merged:
        have = [chunk for chunk in chunks if chunk in there]
        missing = [chunk for chunk in chunks if chunk not in there]
        inputs = {c.artifact(self._plan.run): there[c] for c in have}
        recipe = Recipe(PREPARER, VERSION, {"run": self._plan.run, "scope": scope}, inputs)
        before = self._notes.read().get(scope)
        if before is not None and before.made_of == recipe.fingerprint:
            merged = Merged(scope, list(before.artifacts), have, missing, again=True)
            self._again(merged)
            return merged
        parts = self._fetched(have)
        merged = Merged(scope, [], have, missing)
        stamp = time.strftime(_TIMES, time.gmtime())
        for kind, group in _groups(parts).items():
            name = f"{self._plan.run}/{kind.stem}_{scope}_{stamp}{kind.suffix}"
            merged.rows += self._publish(name, kind, group, recipe)
            merged.artifacts.append(name)
        labels = [chunk.label for chunk in have]
        self._notes.merged(scope, recipe.fingerprint, merged.artifacts, labels)
        return merged

    def _fetched(self, chunks: Sequence[Chunk]) -> list[_Part]:
        """Bring chunks up to the first tier, a few at a time."""
        with ThreadPoolExecutor(_AHEAD) as pool:
            return list(pool.map(self._fetch, chunks))

    def _fetch(self, chunk: Chunk) -> _Part:
        name = chunk.artifact(self._plan.run)
        first = self._store.tiers[0].name
        with self._store.restore(name) as got:
            located = next(w for w in self._store.locate(name) if w.tier.name == first)
            if located.head is None:
                raise ArtifactNotFound(f"{name}: was taken away while it was merged")
            files = tuple(f for f in located.records().files if f != LOG)
            return _Part(chunk, name, got.path, files, got.generation)

    # -- one dataset ----------------------------------------------------------------------------

    def _publish(self, name: str, kind: _Kind, group: _Group, recipe: Recipe) -> int:
        self._reporter.note(f"merging {sum(map(len, group.values()))} files into {name}")
        pairs = [(part, file) for part, files in group.items() for file in files]
        rows = 0
        if kind.how == _BINARY:
            self._compose(name, pairs, recipe)
        elif kind.how == _PARQUET:
            with self._store.create_file(name, recipe) as stage:
                rows = stage.facts["rows"] = self._one_parquet(pairs, stage.file)
        else:
            with self._store.create(name, recipe) as stage:
                self._side_by_side(stage.path, kind, pairs)
        self._store.promote(name)
        return rows

    def _one_parquet(self, pairs: Sequence[tuple[_Part, str]], target: Path) -> int:
        def joinable(part: _Part, file: str) -> Joinable:
            return Joinable(part.path / file, partial(self._store.open_stream, part.name, file))

        try:
            return join([joinable(part, file) for part, file in pairs], target)
        except NotMovable:
            self._mend(dict.fromkeys(part for part, _ in pairs))  # what follows compares nothing
            return concatenate([part.path / file for part, file in pairs], target)

    def _compose(self, name: str, pairs: Sequence[tuple[_Part, str]], recipe: Recipe) -> None:
        named = [(part.name, file) for part, file in pairs]
        try:
            self._store.compose(name, named, recipe)
        except CorruptData:
            self._mend(dict.fromkeys(part for part, _ in pairs))
            self._store.compose(name, named, recipe)

    def _mend(self, parts: Iterable[_Part]) -> None:
        """Compare chunks with their manifests; take what is damaged from other tiers.

        Raises
        ------
        TieredStoreError
            When no tier has what a damaged one lacks.
        """
        self._store.repair([part.name for part in parts], [self._store.tiers[0].name])

    def _side_by_side(self, target: Path, kind: _Kind, pairs: Sequence[tuple[_Part, str]]) -> None:
        """Copy files under their own names; those of one name go to a folder for each chunk."""
        inner = [file.removeprefix(f"{kind.stem}/") for _, file in pairs]
        clash = len(set(inner)) < len(inner)
        for (part, file), name in zip(pairs, inner, strict=True):
            path = target / part.chunk.label / name if clash else target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # compared as it is read, and taken from another tier where it is damaged
            with self._store.open_stream(part.name, file) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)


_PARQUET, _BINARY, _FILES = "parquet", "bin", "files"


@dataclass(frozen=True, slots=True)
class _Kind:
    """Files that become one thing."""

    how: str
    stem: str
    suffix: str


_Group = dict[_Part, list[str]]


def _groups(parts: Sequence[_Part]) -> dict[_Kind, _Group]:
    """The files of all chunks, by what they become; numbers in names count for nothing."""
    found: dict[_Kind, _Group] = {}
    for part in parts:
        for file in sorted(part.files, key=_natural):
            found.setdefault(_kind(file), {}).setdefault(part, []).append(file)
    for how in (_PARQUET, _BINARY):
        kinds = [kind for kind in found if kind.how == how]
        if len(kinds) == 1:  # the dataset, whatever each chunk calls it
            found[_Kind(how, "dataset", kinds[0].suffix)] = found.pop(kinds[0])
    return found


def _kind(file: str) -> _Kind:
    folder, _, _ = file.partition("/")
    path = Path(file)
    how = {".parquet": _PARQUET, ".bin": _BINARY}.get(path.suffix)
    if how is not None and "/" not in file:
        stem = re.sub(r"[-_.]*\d+", "", path.stem) or "dataset"
        return _Kind(how, stem, path.suffix)
    return _Kind(_FILES, folder if "/" in file else "files", "")


def _natural(file: str) -> list[tuple[int, str]]:
    """A key that sorts ``part-2`` before ``part-10``."""
    return [
        (int(word), "") if word.isdigit() else (0, word)
        for word in re.split(r"(\d+)", file)
        if word
    ]
