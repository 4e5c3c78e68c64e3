"""Configuration to tiers, once, at the edge: TOML, environment, or what is found on the machine.

The only module that reads environment variables: ``TIEREDSTORE_CONFIG`` (a configuration file),
``TIEREDSTORE_RUNPOD_VOLUME`` (where the RunPod volume is mounted), ``TIEREDSTORE_OFFLINE`` (no
network) and ``TIEREDSTORE_DEBUG`` (tracebacks on the command line).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from tieredstore import registry
from tieredstore.backend import Readable
from tieredstore.backends.local import LocalBackend
from tieredstore.backends.offline import OfflineBackend
from tieredstore.errors import (
    ConfigError,
    InvalidName,
    TieredStoreError,
    TierTimeout,
    reason,
)
from tieredstore.names import Layout
from tieredstore.reporter import SILENT, Reporter
from tieredstore.store import TieredStore
from tieredstore.tier import NEVER, Tier, check_pack
from tieredstore.workers import within

CONFIG_VARIABLE: Final = "TIEREDSTORE_CONFIG"
VOLUME_VARIABLE: Final = "TIEREDSTORE_RUNPOD_VOLUME"
DEBUG_VARIABLE: Final = "TIEREDSTORE_DEBUG"
OFFLINE_VARIABLE: Final = "TIEREDSTORE_OFFLINE"
RUNPOD_VOLUME: Final = "/runpod-volume"
REPO_LAYOUT: Final = Layout("{name}/{name}", ("{name}",))
VOLUME_LAYOUT: Final = Layout("data/{name}")

_OFFLINE: Final = f"offline ({OFFLINE_VARIABLE}); unset it to use this tier"
_LOOK: Final = 5.0  # seconds to look for the volume; a mount that hangs must not keep a hit

_POLICY: Final = {
    "name": "str",
    "backend": "str",
    "durable": "bool",
    "read_only": "bool",
    "adopt": "bool",
    "deadline": "seconds",
    "populate": "bool",
    "pack": "str",
    "layout": "str",
    "also_read": "texts",
}
_KINDS: Final[Mapping[str, tuple[type | tuple[type, ...], str]]] = {
    "str": (str, "text"),
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "seconds": ((int, float), "a positive number of seconds"),
    "list": (list, "a list"),
    "texts": (list, "a list of texts"),
    "dict": (Mapping, "a table such as { key = value }"),
    "Mapping": (Mapping, "a table such as { key = value }"),
}


def open_store(
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    first: Tier | None = None,
    reporter: Reporter | None = None,
) -> TieredStore:
    """Open the store that a configuration describes, or that this machine suggests.

    Parameters
    ----------
    config : path or mapping, optional
        A TOML file, or what one would hold. By default the file that ``TIEREDSTORE_CONFIG``
        names; else ``tieredstore.toml``, or a ``pyproject.toml`` with ``[tool.tieredstore]``, in
        this folder or the nearest one above it; else ``./data`` and the RunPod volume.
    first : Tier, optional
        Takes the place of the configured first tier.
    reporter : Reporter, optional
        Told what happens.

    Raises
    ------
    ConfigError
        In one line that names the file, the table and the key.
    """
    tiers = _tiers(config, reporter or SILENT)
    if first is not None:
        tiers = [first, *(t for t in tiers[1:] if t.name != first.name)]
    return TieredStore(tiers, reporter)


def local_tier(path: str | os.PathLike[str], layout: Layout | None = None) -> Tier:
    """A first tier on this machine: the folder ``path``, with data from before adopted."""
    return Tier("local", LocalBackend(os.fspath(path)), layout or Layout(), adopt=True)


def debug() -> bool:
    """Whether the command line is to show tracebacks: ``TIEREDSTORE_DEBUG`` is set, and not 0."""
    return _is_set(DEBUG_VARIABLE)


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in {"", "0"}


def _tiers(
    config: str | os.PathLike[str] | Mapping[str, Any] | None, reporter: Reporter
) -> list[Tier]:
    if isinstance(config, Mapping):
        return _Source("config", Path.cwd()).tiers(config)
    if config is not None:
        return _from_file(Path(config), str(config))
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return _from_file(Path(named), f"{named} (named by {CONFIG_VARIABLE})")
    path = _found_config()
    return found_tiers(reporter) if path is None else _from_file(path, str(path))


def found_tiers(reporter: Reporter = SILENT) -> list[Tier]:
    """What is found on this machine: ``./data``, and the RunPod volume where there is one."""
    _check_folder("data", "./data, the first tier where there is no tieredstore.toml")
    tiers = [local_tier("data", REPO_LAYOUT)]
    volume = runpod_volume()
    if volume is not None:
        backend = registry.load("runpod")(volume)  # type: ignore[call-arg]
        tiers.append(Tier("runpod", backend, VOLUME_LAYOUT, durable=True, adopt=True))
    elif os.environ.get(VOLUME_VARIABLE):
        named = os.environ[VOLUME_VARIABLE]
        why = f"{VOLUME_VARIABLE} names {named}, which is no folder; is the volume mounted?"
        reporter.skipped("runpod", why)
    return tiers


def runpod_volume() -> str | None:
    """Where the RunPod volume is mounted, or ``None`` where there is none."""
    path = os.environ.get(VOLUME_VARIABLE) or RUNPOD_VOLUME
    try:
        there = within(_LOOK, partial(os.path.isdir, path), path)
    except TierTimeout:
        there = True  # mounted, and hangs: a tier that fails, named whenever it is skipped
    return path if there else None


def _found_config() -> Path | None:
    here = Path.cwd()
    for folder in (here, *here.parents):
        own, project = folder / "tieredstore.toml", folder / "pyproject.toml"
        if os.path.isfile(own):
            return own
        if os.path.isfile(project) and _has_table(project):
            return project
    return None


def _has_table(project: Path) -> bool:
    """Whether a ``pyproject.toml`` has a table for this library, without parsing most of them."""
    try:
        lines = project.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False  # somebody else's, above this folder; nothing says that it is meant for us
    return any(line.lstrip().lstrip("[ ").startswith("tool.tieredstore") for line in lines)


def _from_file(path: Path, called: str) -> list[Tier]:
    import tomllib

    try:
        with path.open("rb") as file:
            table: Any = tomllib.load(file)
    except OSError as error:
        raise ConfigError(
            f"{called}: cannot be read: {error.strerror or error}; expected a TOML file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{called}: no valid TOML: {reason(error)}") from None
    prefix = ""
    if path.name == "pyproject.toml":
        for key in ("tool", "tieredstore"):
            table = table.get(key) if isinstance(table, Mapping) else None
        if not isinstance(table, Mapping):
            raise ConfigError(f"{called}: no table [tool.tieredstore]; expected it in this file")
        prefix = "tool.tieredstore."
    return _Source(called, path.resolve().parent, f"[[{prefix}tier]]").tiers(table)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a configuration comes from, for messages and for relative paths."""

    file: str
    folder: Path
    table: str = "[[tier]]"

    def tiers(self, table: Mapping[str, Any]) -> list[Tier]:
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
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        if backend.remote and _is_set(OFFLINE_VARIABLE):
            backend = OfflineBackend(backend.place, _OFFLINE)
        return Tier(
            row["name"],
            backend,
            self._layout(row, where, first=number == 1 and row["backend"] == "local"),
            durable=row.get("durable", row["backend"] == "runpod"),
            read_only=row.get("read_only", False),
            adopt=row.get("adopt", isinstance(backend, LocalBackend)),
            deadline=float(row.get("deadline", 30.0)),
            populate=row.get("populate", False),
            pack=row.get("pack", NEVER),
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
        try:
            return Layout(row.get("layout", usual.write), tuple(row.get("also_read", ())))
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
            options["path"] = runpod_volume() or RUNPOD_VOLUME
        for key, parameter in accepted.items():
            if parameter.default is parameter.empty and key not in options:
                raise ConfigError(f"{where}: {key} is missing")
            if key in options:
                _check_type(options[key], _annotated(parameter.annotation), f"{where}: {key}")
        if isinstance(options.get("path"), str):
            options["path"] = self._path(options["path"], f"{where}: path")
        try:
            return kind(**options)
        except (TieredStoreError, OSError, TypeError, ValueError) as error:
            raise ConfigError(f"{where}: {reason(error)}") from None

    def _path(self, path: str, where: str) -> str:
        if not path or "\0" in path:
            raise ConfigError(f"{where} is {path!r}, expected the path of a folder")
        try:
            return str(self.folder / Path(path).expanduser())
        except RuntimeError as error:  # ~nobody
            raise ConfigError(f"{where} is {path!r}: {error}") from None


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
    _check_folder(backend.place, f"{where}: path")


def _check_folder(path: str, where: str) -> None:
    if os.path.lexists(path) and not os.path.isdir(path):
        raise ConfigError(f"{where}: {path} is no folder, expected one")


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
