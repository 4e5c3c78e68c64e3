"""The tables of a configuration to tiers: every key checked, each message names file and table.

What the environment says comes in as a `Machine`, from ``config.py``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from tieredstore import registry
from tieredstore.backend import Readable, Surrounded
from tieredstore.backends.local import LocalBackend
from tieredstore.backends.offline import OfflineBackend
from tieredstore.errors import ConfigError, InvalidName, TieredStoreError, TierTimeout, reason
from tieredstore.limits import EXPECTED, Space, parse_size
from tieredstore.manifest.names import Layout
from tieredstore.mounted.job_folders import PLACEHOLDER, JobFolders
from tieredstore.tiers.tier import NEVER, Tier, check_pack, check_space
from tieredstore.variables import JOB, Variables, uses
from tieredstore.workers import within

REPO_LAYOUT: Final = Layout("{name}/{name}", ("{name}",))
VOLUME_LAYOUT: Final = Layout("data/{name}")
_LOOK: Final = 5.0  # seconds to look for a folder; a mount that hangs must not keep a command


_POLICY: Final = {
    "name": "str",
    "backend": "str",
    "durable": "bool",
    "read_only": "bool",
    "adopt": "bool",
    "deadline": "seconds",
    "populate": "bool",
    "pack": "str",
    "max_size": "size",
    "min_free": "size",
    "layout": "str",
    "also_read": "texts",
}
_KINDS: Final[Mapping[str, tuple[type | tuple[type, ...], str]]] = {
    "str": (str, "text"),
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "seconds": ((int, float), "a positive number of seconds"),
    "size": ((int, str), EXPECTED),
    "list": (list, "a list"),
    "texts": (list, "a list of texts"),
    "dict": (Mapping, "a table such as { key = value }"),
    "Mapping": (Mapping, "a table such as { key = value }"),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """What tables may mean on this machine.

    Attributes
    ----------
    offline : str
        Why remote tiers are left out; empty where they are not.
    volume : callable
        Gives the folder at which the RunPod volume is, or would be, mounted.
    environment : mapping
        What variables in paths and layouts stand for.
    """

    offline: str
    volume: Callable[[], str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a configuration comes from, for messages and for relative paths; makes its tiers."""

    file: str
    folder: Path
    machine: Machine
    table: str = "[[tier]]"

    def tiers(self, table: Mapping[str, Any]) -> list[Tier]:
        """The tiers that a configuration's tables describe, each key of them checked."""
        rows = table.get("tier")
        unknown = sorted(str(key) for key in table.keys() - {"tier"})
        if unknown:
            raise ConfigError(
                f"{self.file}: unknown key {unknown[0]!r}; expected only {self.table} tables"
            )
        if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
            raise ConfigError(f"{self.file}: expected at least one {self.table} table, found none")
        seen: dict[str, int] = {}
        tiers = []
        for number, row in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                raise ConfigError(f"{self.file}: tier {number} is {row!r}, expected a {self.table}")
            tier = self._tier(row, number)
            if seen.setdefault(tier.name, number) != number:
                raise ConfigError(
                    f"{self.file}: {self.table} {number}: name {tier.name!r} is taken by "
                    f"{self.table} {seen[tier.name]}; expected another"
                )
            tiers.append(tier)
        return tiers

    def _tier(self, row: Mapping[str, Any], number: int) -> Tier:
        where = f"{self.file}: {self.table} {row.get('name') or number!r}"
        for key, kind in _POLICY.items():
            if key in row:
                _check_type(row[key], kind, f"{where}: {key}")
        for key in ("name", "backend"):
            if not row.get(key):
                raise ConfigError(f"{where}: {key} is missing")
        if not row["name"].isprintable() or "," in row["name"]:
            raise ConfigError(f"{where}: name: control characters and commas are not allowed")
        backend = self._backend(self._kind(row, where), row, where)
        if number == 1:
            _check_first(backend, where)
        try:
            check_pack(row.get("pack", NEVER), backend)
            space = _space(row)
            check_space(space, backend)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        if backend.remote and self.machine.offline:
            backend = OfflineBackend(backend.place, self.machine.offline)
        return Tier(
            row["name"],
            backend,
            self._layout(row, where, first=number == 1 and row["backend"] == "local"),
            durable=row.get("durable", row["backend"] == "runpod"),
            read_only=row.get("read_only", False),
            adopt=row.get("adopt", isinstance(backend, LocalBackend) and backend.adopts),
            deadline=float(row.get("deadline", 30.0)),
            populate=row.get("populate", False),
            pack=row.get("pack", NEVER),
            jobs=self._jobs(row, backend, f"{where}: path"),
            space=space,
        )

    def _kind(self, row: Mapping[str, Any], where: str) -> type[Readable]:
        try:
            return registry.load(row["backend"])
        except ConfigError as error:
            raise ConfigError(f"{where}: backend: {error}") from None

    def _layout(self, row: Mapping[str, Any], where: str, *, first: bool) -> Layout:
        usual = VOLUME_LAYOUT if row["backend"] == "runpod" else REPO_LAYOUT if first else Layout()
        if "layout" not in row and "also_read" not in row:
            return usual
        key = "layout" if "layout" in row else "also_read"
        write = self._variables(f"{where}: layout").layout(row.get("layout", usual.write))
        older = [self._variables(f"{where}: also_read").layout(t) for t in row.get("also_read", ())]
        try:
            return Layout(write, tuple(older))
        except InvalidName as error:
            raise ConfigError(f"{where}: {key}: {error}") from None

    def _backend(self, kind: type[Readable], row: Mapping[str, Any], where: str) -> Readable:
        from inspect import signature

        options = {k: v for k, v in row.items() if k not in _POLICY}
        accepted = signature(kind).parameters
        for key in sorted(options.keys() - accepted.keys()):
            known = ", ".join(sorted([*accepted, *_POLICY]))
            raise ConfigError(f"{where}: unknown key {key!r}; expected one of {known}")
        if row["backend"] == "runpod" and "path" not in options:
            options["path"] = self.machine.volume()
        for key, parameter in accepted.items():
            if parameter.default is parameter.empty and key not in options:
                raise ConfigError(f"{where}: {key} is missing")
            if key in options:
                _check_type(options[key], _annotated(parameter.annotation), f"{where}: {key}")
        if isinstance(options.get("path"), str):
            options["path"] = self._path(options["path"], f"{where}: path")
        try:
            backend = kind(**options)
            if isinstance(backend, Surrounded):
                backend.environment = self.machine.environment
            return backend
        except (TieredStoreError, OSError, TypeError, ValueError) as error:
            raise ConfigError(f"{where}: {reason(error)}") from None

    def _path(self, path: str, where: str) -> str:
        if not path or "\0" in path:
            raise ConfigError(f"{where} is {path!r}, expected the path of a folder")
        path = self._variables(where).path(path)
        try:
            return str(self.folder / Path(path).expanduser())
        except RuntimeError as error:  # ~nobody
            raise ConfigError(f"{where} is {path!r}: {error}") from None

    def _jobs(self, row: Mapping[str, Any], backend: Readable, where: str) -> JobFolders | None:
        """The folders that other jobs get by the same path, unless artifacts are to last there."""
        path = row.get("path")
        if not isinstance(path, str) or not uses(path, JOB) or row.get("durable", False):
            return None
        environment = {**self.machine.environment, JOB: PLACEHOLDER}
        source = replace(self, machine=replace(self.machine, environment=environment))
        template = source._path(path, where)  # noqa: SLF001 - its own, elsewhere
        once = template.count(PLACEHOLDER) == 1
        return JobFolders(template, backend.place) if once else None

    def _variables(self, where: str) -> Variables:
        return Variables(self.machine.environment, where)


def _annotated(annotation: object) -> str:
    """The first word of a parameter's annotation: ``str`` of ``str | None``, ``dict`` of …"""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return text.replace("[", " ").split(" ", maxsplit=1)[0]


def _check_first(backend: Readable, where: str) -> None:
    if not isinstance(backend, LocalBackend):
        raise ConfigError(
            f"{where}: backend: the first tier is the one that work reads from, "
            f'expected a folder on this machine (backend = "local" with path)'
        )
    # Only here: a stat on a lower tier would keep a hit waiting for a mount that hangs. There a
    # wrong path counts as a tier that fails, and is named whenever it is skipped.
    check_folder(backend.place, f"{where}: path")


def check_folder(path: str, where: str) -> None:
    """Refuse a path at which something else than a folder lies; one that hangs shows when used."""
    with suppress(TierTimeout):
        if within(_LOOK, partial(_is_no_folder, path), path):
            raise ConfigError(f"{where}: {path} is no folder, expected one")


def _is_no_folder(path: str) -> bool:
    return os.path.lexists(path) and not os.path.isdir(path)


def _space(row: Mapping[str, Any]) -> Space:
    sizes: dict[str, int] = {}
    for key in ("max_size", "min_free"):
        if key in row:
            try:
                sizes[key] = parse_size(row[key])
            except ValueError as error:
                raise ConfigError(f"{key}: {error}") from None
    if sizes.get("max_size") == 0:
        raise ConfigError("max_size is 0, expected more: nothing could be kept there")
    return Space(**sizes)


def _check_type(value: object, kind: str, where: str) -> None:
    if kind not in _KINDS:
        return
    types, expected = _KINDS[kind]
    fits = isinstance(value, types) and (kind == "bool" or not isinstance(value, bool))
    if fits and kind == "seconds" and isinstance(value, int | float):
        fits = value > 0 and math.isfinite(value)
    if fits and kind == "texts" and isinstance(value, list):
        fits = all(isinstance(item, str) for item in value)
    if not fits:
        secret = isinstance(value, str) and types is Mapping  # headers, options: may hold one
        shown = "text" if secret else repr(value)
        raise ConfigError(f"{where} is {shown}, expected {expected}")
