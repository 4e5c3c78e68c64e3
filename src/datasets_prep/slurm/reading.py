"""Configurations to jobs: one file, or a folder of experiments. Every key is checked and named."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from datasets_prep.errors import InvalidJob
from datasets_prep.slurm import keys
from datasets_prep.slurm.job import Job, Promote, Restore, Staging, dependency
from datasets_prep.slurm.keys import KEYS, converted
from datasets_prep.slurm.parsing import SUFFIXES, parse

DEFAULTS: Final = "defaults"  # a file of a folder, or a table of a file
_JOBS: Final = "job"
_KEYS: Final = {key.name: key for key in KEYS}
_PROMOTE: Final = {"name": keys.text, "path": keys.text, "when": keys.text, "replace": keys.flag}
_STAGING: Final = ("config", "restore", "promote")


def load(path: str | os.PathLike[str], over: Mapping[str, Any] | None = None) -> list[Job]:
    """The jobs that a file or a folder describes.

    Parameters
    ----------
    path : path
        A TOML or YAML file: the keys of one job; or tables ``job``, and ``defaults`` for all of
        them. Or a folder of such files, in which ``defaults.toml`` or ``.yaml`` holds keys for all.
    over : mapping, optional
        Keys that count more than what is written there.

    Raises
    ------
    InvalidJob
        In one line that names the file and the key.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path, over or {})
    return _file(path, parse(path), {}, over or {})


def job(table: Mapping[str, Any], called: str = "job") -> Job:
    """One job from a table of its keys.

    Raises
    ------
    InvalidJob
        For unknown keys, with the nearest known one, and for values of another kind.
    """
    fields: dict[str, Any] = {}
    for name, value in table.items():
        if name not in _KEYS:
            raise InvalidJob(f"{called}: unknown key {name!r}; {_nearest(name, _KEYS)}")
        try:
            fields[name] = converted(_KEYS[name], value)
        except ValueError as error:
            raise InvalidJob(f"{called}: {name} {error}") from None
    for name in ("name", "command"):
        if name not in fields:
            raise InvalidJob(f"{called}: no {name}, expected one")
    if "staging" in fields:
        fields["staging"] = _staging(fields["staging"], called)
    try:
        return Job(**fields)
    except InvalidJob as error:
        raise InvalidJob(f"{called}: {error}") from None


def _folder(folder: Path, over: Mapping[str, Any]) -> list[Job]:
    there = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())
    files = [path for path in there if not path.name.startswith(".")]
    shared = [path for path in files if path.stem == DEFAULTS]
    if len(shared) > 1:
        raise InvalidJob(f"{folder}: {shared[0].name} and {shared[1].name}, expected one of them")
    defaults = parse(shared[0]) if shared else {}
    experiments = [path for path in files if path.stem != DEFAULTS]
    if not experiments:
        raise InvalidJob(f"{folder}: no experiments, expected {', '.join(SUFFIXES)} files")
    found: list[Job] = []
    for path in experiments:
        table = parse(path)
        jobs = _file(path, table, defaults, over)
        found += _qualified(jobs, path.stem) if _JOBS in table else jobs
    return found


def _qualified(jobs: list[Job], stem: str) -> list[Job]:
    """Jobs of one experiment under names that no other's have: ``EXPERIMENT-NAME``."""
    names = {each.name: f"{stem}-{each.name}" for each in jobs}

    def renamed(entry: str) -> str:
        kind, name = dependency(entry)
        return f"{kind}:{names[name]}" if name in names else entry

    return [
        replace(each, name=names[each.name], after=tuple(map(renamed, each.after))) for each in jobs
    ]


def _file(
    path: Path, table: Mapping[str, Any], shared: Mapping[str, Any], over: Mapping[str, Any]
) -> list[Job]:
    here = {"folder": str(path.resolve().parent)}
    if _JOBS not in table:
        own = _layered([here, {"name": path.stem}, shared, table, over])
        return [job(_based(own, here["folder"]), str(path))]
    unknown = sorted(set(table) - {_JOBS, DEFAULTS})
    if unknown:
        near = _nearest(unknown[0], (_JOBS, DEFAULTS))
        raise InvalidJob(f"{path}: unknown key {unknown[0]!r} beside {_JOBS!r}; {near}")
    defaults, rows = table.get(DEFAULTS, {}), table[_JOBS]
    if not isinstance(defaults, Mapping):
        raise InvalidJob(f"{path}: {DEFAULTS} is {defaults!r}, expected a table")
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise InvalidJob(f"{path}: {_JOBS} is {rows!r}, expected a list of tables")
    found = []
    for number, row in enumerate(rows, 1):
        own = _layered([here, shared, defaults, row, over])
        found.append(job(_based(own, here["folder"]), f"{path}, job {number}"))
    return found


def _layered(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Later ones over earlier ones; tables within them are merged key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            before = merged.get(name)
            both = isinstance(value, Mapping) and isinstance(before, Mapping)
            merged[name] = {**before, **value} if both else value  # type: ignore[dict-item]
    return merged


def _based(table: dict[str, Any], folder: str) -> dict[str, Any]:
    """Paths of the machine relative to the configuration's folder."""
    based = dict(table)
    if isinstance(based["folder"], str) and based["folder"]:
        based["folder"] = os.path.join(folder, os.path.expanduser(based["folder"]))
    return based


def _staging(table: Mapping[str, Any], called: str) -> Staging:
    for name in table:
        if name not in _STAGING:
            near = _nearest(name, _STAGING)
            raise InvalidJob(f"{called}: unknown key {name!r} in staging; {near}")
    try:
        restore = [_row(row, ("name", "files")) for row in _rows(table.get("restore", []))]
        promote = [_row(row, _PROMOTE) for row in _rows(table.get("promote", []))]
        return Staging(
            keys.text(table.get("config", "")),
            tuple(Restore(keys.text(r["name"]), keys.texts(r.get("files", ()))) for r in restore),
            tuple(_promote(row) for row in promote),
        )
    except ValueError as error:
        raise InvalidJob(f"{called}: staging {error}") from None


def _promote(row: Mapping[str, Any]) -> Promote:
    fields: dict[str, Any] = {name: _PROMOTE[name](value) for name, value in row.items()}
    return Promote(**fields)


def _rows(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _row(value: Any, names: Collection[str]) -> dict[str, Any]:
    """An artifact, by its name or as a table."""
    row = {"name": value} if isinstance(value, str) else keys.mapping(value)
    for name in row:
        if name not in names:
            raise ValueError(f"holds the unknown key {name!r}; {_nearest(name, names)}")
    if "name" not in row:
        raise ValueError(f"holds {row!r}, expected a name in it")
    return row


def _nearest(name: object, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(str(name).replace("-", "_"), known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
