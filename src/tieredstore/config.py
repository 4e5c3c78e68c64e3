"""Configuration to tiers, once, at the edge: TOML, environment, or what is found on the machine.

The only module that reads environment variables: ``TIEREDSTORE_CONFIG`` (a configuration file)
and ``TIEREDSTORE_RUNPOD_VOLUME`` (where the RunPod volume is mounted).
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tieredstore import registry
from tieredstore.artifact import Layout
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import ConfigError, InvalidName, TieredStoreError, reason
from tieredstore.reporter import Reporter
from tieredstore.store import TieredStore
from tieredstore.tier import Tier

CONFIG_VARIABLE: Final = "TIEREDSTORE_CONFIG"
VOLUME_VARIABLE: Final = "TIEREDSTORE_RUNPOD_VOLUME"
RUNPOD_VOLUME: Final = "/runpod-volume"
REPO_LAYOUT: Final = Layout("{name}/{name}", ("{name}",))
VOLUME_LAYOUT: Final = Layout("data/{name}")

_POLICY: Final[dict[str, type]] = {
    "name": str,
    "backend": str,
    "durable": bool,
    "read_only": bool,
    "adopt": bool,
    "deadline": float,
    "layout": str,
    "also_read": list,
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
    tiers = _tiers(config)
    if first is not None:
        tiers = [first, *(t for t in tiers[1:] if t.name != first.name)]
    return TieredStore(tiers, reporter)


def local_tier(path: str | os.PathLike[str], layout: Layout | None = None) -> Tier:
    """A first tier on this machine: the folder ``path``, with data from before adopted."""
    return Tier("local", LocalBackend(os.fspath(path)), layout or Layout(), adopt=True)


def _tiers(config: str | os.PathLike[str] | Mapping[str, Any] | None) -> list[Tier]:
    if isinstance(config, Mapping):
        return _Source("config", Path.cwd()).tiers(config)
    path = Path(config) if config is not None else _found_config()
    if path is None:
        return found_tiers()
    table = _read_table(path)
    return _Source(str(path), path.resolve().parent).tiers(table)


def found_tiers() -> list[Tier]:
    """What is found on this machine: ``./data``, and the RunPod volume where there is one."""
    tiers = [local_tier("data", REPO_LAYOUT)]
    volume = runpod_volume()
    if volume is not None:
        backend = registry.load("runpod")(volume)  # type: ignore[call-arg]
        tiers.append(Tier("runpod", backend, VOLUME_LAYOUT, durable=True, adopt=True))
    return tiers


def runpod_volume() -> str | None:
    """Where the RunPod volume is mounted, or ``None`` where there is none."""
    path = os.environ.get(VOLUME_VARIABLE) or RUNPOD_VOLUME
    return path if os.path.isdir(path) else None


def _found_config() -> Path | None:
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    here = Path.cwd()
    for folder in (here, *here.parents):
        own, project = folder / "tieredstore.toml", folder / "pyproject.toml"
        if own.is_file():
            return own
        if project.is_file() and "[tool.tieredstore" in project.read_text(errors="replace"):
            return project
    return None


def _read_table(path: Path) -> Mapping[str, Any]:
    import tomllib

    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {reason(error)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no valid TOML: {error}") from None
    if path.name == "pyproject.toml":
        table = table.get("tool", {}).get("tieredstore", {})
    return table


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a configuration comes from, for messages and for relative paths."""

    file: str
    folder: Path

    def tiers(self, table: Mapping[str, Any]) -> list[Tier]:
        unknown = sorted(table.keys() - {"tier"})
        if unknown:
            raise ConfigError(f"{self.file}: unknown key {unknown[0]!r}; expected [[tier]] tables")
        rows = table.get("tier")
        if not isinstance(rows, list) or not rows or not all(isinstance(r, Mapping) for r in rows):
            raise ConfigError(f"{self.file}: expected at least one [[tier]] table")
        return [self._tier(row, number) for number, row in enumerate(rows, 1)]

    def _tier(self, row: Mapping[str, Any], number: int) -> Tier:
        where = f"{self.file}: [[tier]] {row.get('name', number)!r}"
        for key, kind in _POLICY.items():
            if key in row:
                _check_type(row[key], kind, f"{where}: {key}")
        for key in ("name", "backend"):
            if not row.get(key):
                raise ConfigError(f"{where}: {key} is missing")
        name = row["name"]
        try:
            kind = registry.load(row["backend"])
        except ConfigError as error:
            raise ConfigError(f"{where}: backend: {error}") from None
        backend = self._backend(kind, row, where)
        mounted = isinstance(backend, LocalBackend)
        return Tier(
            name,
            backend,
            self._layout(row, where, first=number == 1 and row["backend"] == "local"),
            durable=row.get("durable", row["backend"] == "runpod"),
            read_only=row.get("read_only", False),
            adopt=row.get("adopt", mounted),
            deadline=float(row.get("deadline", 30.0)),
        )

    def _layout(self, row: Mapping[str, Any], where: str, *, first: bool) -> Layout:
        usual = VOLUME_LAYOUT if row["backend"] == "runpod" else REPO_LAYOUT if first else Layout()
        if "layout" not in row and "also_read" not in row:
            return usual
        try:
            return Layout(row.get("layout", usual.write), tuple(row.get("also_read", ())))
        except (InvalidName, TypeError) as error:
            raise ConfigError(f"{where}: layout: {error}") from None

    def _backend(self, kind: Any, row: Mapping[str, Any], where: str) -> Any:
        options = {k: v for k, v in row.items() if k not in _POLICY}
        accepted = inspect.signature(kind).parameters
        for key in sorted(options.keys() - accepted.keys()):
            known = ", ".join(sorted([*accepted, *_POLICY]))
            raise ConfigError(f"{where}: unknown key {key!r}; expected one of {known}")
        if row["backend"] == "runpod" and "path" not in options:
            options["path"] = runpod_volume() or RUNPOD_VOLUME
        for key, parameter in accepted.items():
            if parameter.default is parameter.empty and key not in options:
                raise ConfigError(f"{where}: {key} is missing")
            if key in options and "str" in str(parameter.annotation).split("[", maxsplit=1)[0]:
                _check_type(options[key], str, f"{where}: {key}")
        if isinstance(options.get("path"), str):
            options["path"] = str(self.folder / Path(options["path"]).expanduser())
        try:
            return kind(**options)
        except (TieredStoreError, TypeError, ValueError) as error:
            raise ConfigError(f"{where}: {reason(error)}") from None


def _check_type(value: object, kind: type, where: str) -> None:
    fits = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        fits = value > 0
    if not fits:
        names = {str: "text", bool: "true or false", float: "a positive number", list: "a list"}
        raise ConfigError(f"{where} is {value!r}, expected {names[kind]}")
