"""Scripts to files, none of which is ever replaced unasked."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from datasets_prep.errors import InvalidJob
from datasets_prep.slurm.rendering import Script

_Put = Callable[[str, Path], None]


def write(scripts: Iterable[Script], folder: str | os.PathLike[str]) -> list[Path]:
    """Write scripts into a folder, and make the folders of their logs.

    Parameters
    ----------
    scripts : iterable of Script
        What to write.
    folder : path
        Where to; made where it is missing.

    Returns
    -------
    list of Path
        A file for each. One that holds the same already is left as it is.

    Raises
    ------
    FileExistsError
        When a file of that name holds something else; then nothing is written.
    """
    targets = _targets(scripts, folder)
    for path, script in targets.items():
        if _differs(path, script):
            raise FileExistsError(
                f"{path} is there and is another script; --overwrite replaces it, "
                f"--output-dir writes elsewhere"
            )
    return _write(targets, _appear)


def overwrite(scripts: Iterable[Script], folder: str | os.PathLike[str]) -> list[Path]:
    """The same, replacing what is there."""
    return _write(_targets(scripts, folder), os.replace)


def _appear(name: str, path: Path) -> None:
    """Where another file has come meanwhile, it stays."""
    try:
        os.link(name, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise
        os.replace(name, path)


def _targets(scripts: Iterable[Script], folder: str | os.PathLike[str]) -> dict[Path, Script]:
    targets: dict[Path, Script] = {}
    for script in scripts:
        path = Path(folder, script.file_name)
        if path in targets:
            raise InvalidJob(f"job {script.job.name!r}: its name is there twice")
        targets[path] = script
    return targets


def _differs(path: Path, script: Script) -> bool:
    return os.path.lexists(path) and not _same(path, script)


def _same(path: Path, script: Script) -> bool:
    return path.is_file() and not path.is_symlink() and path.read_bytes() == script.data


def _write(targets: dict[Path, Script], put: _Put) -> list[Path]:
    for path, script in targets.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        os.makedirs(script.logs, exist_ok=True)
        if not _same(path, script):
            _write_one(path, script.data, put)
    return list(targets)


def _write_one(path: Path, data: bytes, put: _Put) -> None:
    """Whole or not at all."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            os.fchmod(number, 0o755)
        put(name, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)
