"""Settings of this package, once, at the edge: ``datasets_prep.toml`` and the environment.

The only module of it that reads environment variables: ``DATASETS_PREP_CONFIG`` (a settings file),
``CUDA_VISIBLE_DEVICES``, what says where Hugging Face caches are, and what SLURM says of a job.
Where data lies is configured for tieredstore, see there.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from datasets_prep.chunks.phases import Phase, read_phases
from datasets_prep.errors import OptionError, reason

CONFIG_VARIABLE: Final = "DATASETS_PREP_CONFIG"
FILE: Final = "datasets_prep.toml"
PREBUILT_VARIABLE: Final = "DATASETS_PREP_HF_CACHE"
DATASETS_VARIABLE: Final = "HF_DATASETS_CACHE"
_NEAR: Final = ("SLURM_TMPDIR", "TMPDIR")  # scratch folders of a node
_FAR: Final = "SCRATCH"
_NUMBERS: Final = {"checkpoint_frequency": 1, "retries": 0}  # the lowest that makes sense


@dataclass(frozen=True, slots=True)
class Settings:
    """What a project sets for its chunks.

    Attributes
    ----------
    checkpoint_frequency : int
        Items to a chunk.
    retries : int
        How often a chunk that failed is tried again.
    phases : dict
        Phases by name.
    """

    checkpoint_frequency: int = 50
    retries: int = 2
    phases: Mapping[str, Phase] = field(default_factory=dict)


def settings(path: str | os.PathLike[str] | None = None) -> Settings:
    """The settings of a file.

    Parameters
    ----------
    path : path, optional
        By default the file that ``DATASETS_PREP_CONFIG`` names, else ``datasets_prep.toml``, or a
        ``pyproject.toml`` with ``[tool.datasets_prep]``, in this folder or the nearest above it;
        without any, the usual settings.

    Raises
    ------
    OptionError
        In one line that names the file, the table and the key.
    """
    named = os.environ.get(CONFIG_VARIABLE) if path is None else os.fspath(path)
    found = Path(named) if named else _found()
    if found is None:
        return Settings()
    table = _table(found)
    where = str(found)
    for key in sorted(table.keys() - {*_NUMBERS, "phases"}):
        known = ", ".join(sorted([*_NUMBERS, "phases"]))
        raise OptionError(f"{where}: unknown key {key!r}; expected one of {known}")
    for key, lowest in _NUMBERS.items():
        if key in table and (type(table[key]) is not int or table[key] < lowest):
            raise OptionError(f"{where}: {key} is {table[key]!r}, expected a number from {lowest}")
    numbers = {key: table[key] for key in _NUMBERS if key in table}
    return Settings(phases=read_phases(table.get("phases", {}), where), **numbers)


def visible_gpus() -> list[str] | None:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves to this process; ``None`` where it is unset."""
    text = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if text is None else [each.strip() for each in text.split(",") if each.strip()]


def datasets_cache() -> Path:
    """Where ``datasets`` keeps its caches: by the variables, and in the order, of its own."""
    home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    hugging_face = os.environ.get("HF_HOME", os.path.join(home, "huggingface"))
    named = os.environ.get(DATASETS_VARIABLE, os.path.join(hugging_face, "datasets"))
    return Path(os.path.abspath(os.path.expanduser(named)))


def prebuilt_cache() -> Path:
    """The cache that is pre-built for all jobs: within a job, the one that its own comes from."""
    named = os.environ.get(PREBUILT_VARIABLE)
    return Path(os.path.abspath(named)) if named else datasets_cache()


def scratches() -> list[Path]:
    """Folders for what may be lost, the nearest first."""
    named = [os.environ.get(name, "") for name in _NEAR]
    named += ["/tmp", os.environ.get(_FAR, "")]  # noqa: S108 - a folder of the user's own is made
    return [Path(os.path.abspath(path)) for path in dict.fromkeys(named) if path]


def slurm_job() -> dict[str, str]:
    """What SLURM says of the job that this process is part of, by its variables; empty without."""
    return {name: text for name, text in os.environ.items() if name.startswith("SLURM_")}


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for this process and those it starts, until the block ends."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, text in before.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text


def _found() -> Path | None:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return folder / FILE
        project = folder / "pyproject.toml"
        if project.is_file() and "[tool.datasets_prep" in _text(project):
            return project
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # somebody else's, above this folder


def _table(path: Path) -> dict[str, Any]:
    try:
        table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"{path}: cannot be read: {reason(error)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OptionError(f"{path}: no valid TOML: {reason(error)}") from None
    if path.name == "pyproject.toml":
        table = table.get("tool", {}).get("datasets_prep", {})
    return dict(table)
