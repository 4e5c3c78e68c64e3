"""Configuration to tiers, once, at the edge: TOML, environment, or what is found on the machine.

The only module that reads environment variables: ``TIEREDSTORE_CONFIG`` (a configuration file),
``TIEREDSTORE_RUNPOD_VOLUME`` (where the RunPod volume is mounted), ``TIEREDSTORE_OFFLINE`` (no
network) and ``TIEREDSTORE_DEBUG`` (tracebacks on the command line); and those that paths and
layouts of a configuration name. `surroundings` gives what it says of the job or pod.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from tieredstore import registry
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import (
    ConfigError,
    TierTimeout,
    reason,
)
from tieredstore.manifest.names import Layout
from tieredstore.reporter import SILENT, Reporter
from tieredstore.store import TieredStore
from tieredstore.tables import REPO_LAYOUT, VOLUME_LAYOUT, Machine, Source, check_folder
from tieredstore.tiers.tier import Tier
from tieredstore.workers import within

CONFIG_VARIABLE: Final = "TIEREDSTORE_CONFIG"
VOLUME_VARIABLE: Final = "TIEREDSTORE_RUNPOD_VOLUME"
DEBUG_VARIABLE: Final = "TIEREDSTORE_DEBUG"
OFFLINE_VARIABLE: Final = "TIEREDSTORE_OFFLINE"
RUNPOD_VOLUME: Final = "/runpod-volume"
_SURROUNDINGS: Final = ("SLURM_JOB_ID", "SLURM_TMPDIR", "TMPDIR", "RUNPOD_POD_ID")
_LOOK: Final = 5.0  # seconds to look for the volume; a mount that hangs must not keep a hit


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


def configured() -> bool:
    """Whether a configuration is named or found, for `open_store` without one to take."""
    return bool(os.environ.get(CONFIG_VARIABLE)) or _found_config() is not None


def local_tier(path: str | os.PathLike[str], layout: Layout | None = None) -> Tier:
    """A first tier on this machine: the folder ``path``, with data from before adopted."""
    return Tier("local", LocalBackend(os.fspath(path)), layout or Layout(), adopt=True)


def debug() -> bool:
    """Whether the command line is to show tracebacks: ``TIEREDSTORE_DEBUG`` is set, and not 0."""
    return _is_set(DEBUG_VARIABLE)


def surroundings() -> dict[str, str]:
    """What the environment says of the job or pod that this process is part of, where it does."""
    return {name: os.environ[name] for name in _SURROUNDINGS if os.environ.get(name)}


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in {"", "0"}


def machine() -> Machine:
    """What the environment says, for whoever makes tiers of something else than tables."""
    why = f"offline ({OFFLINE_VARIABLE}); unset it to use this tier"
    offline = why if _is_set(OFFLINE_VARIABLE) else ""
    return Machine(offline, lambda: runpod_volume() or RUNPOD_VOLUME, os.environ)


def _tiers(
    config: str | os.PathLike[str] | Mapping[str, Any] | None, reporter: Reporter
) -> list[Tier]:
    if isinstance(config, Mapping):
        return Source("config", Path.cwd(), machine()).tiers(config)
    if config is not None:
        return _from_file(Path(config), str(config))
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return _from_file(Path(named), f"{named} (named by {CONFIG_VARIABLE})")
    path = _found_config()
    return found_tiers(reporter) if path is None else _from_file(path, str(path))


def found_tiers(reporter: Reporter = SILENT) -> list[Tier]:
    """What is found on this machine: ``./data``, and the RunPod volume where there is one."""
    check_folder("data", "./data, the first tier where there is no tieredstore.toml")
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
    return Source(called, path.resolve().parent, machine(), f"[[{prefix}tier]]").tiers(table)
