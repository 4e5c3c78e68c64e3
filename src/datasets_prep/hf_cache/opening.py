"""A built entry opened as a dataset: memory-mapped, without a lock, and without writing to it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets_prep.errors import CacheError, reason

if TYPE_CHECKING:
    import datasets


def check(folder: Path) -> int:
    """Open an entry, and compare each split with what is written down about it.

    Parameters
    ----------
    folder : Path
        With ``dataset_info.json`` and the Arrow files.

    Returns
    -------
    int
        Rows of all splits.

    Raises
    ------
    CacheError
        When it is not whole.
    """
    info = _info(folder)
    rows = 0
    for name, split in info.splits.items():
        table = _read(folder, info, name)["arrow_table"]
        if table.num_rows != split.num_examples:
            expected = f"{table.num_rows} rows, expected {split.num_examples}"
            raise CacheError(f"{folder}: split {name!r} has {expected}")
        rows += table.num_rows
    return rows


def opened(folder: Path, split: str, fingerprint: str) -> datasets.Dataset:
    """Open a split.

    The dataset maps its files under names in a folder of this process, so that what ``map`` and
    ``filter`` keep beside them lies there: the entry may be read-only, and is never written to.

    Parameters
    ----------
    folder : Path
        With ``dataset_info.json`` and the Arrow files.
    split : str
        As ``datasets`` writes it: ``train``, ``train[:10%]``.
    fingerprint : str
        What ``datasets`` names the results of ``map`` and ``filter`` after.

    Raises
    ------
    CacheError
        When it is not whole, or has no such split.
    """
    import datasets
    from datasets.fingerprint import get_temporary_cache_files_directory

    own = Path(tempfile.mkdtemp(dir=get_temporary_cache_files_directory()))
    for name in os.listdir(folder):
        if not name.startswith("."):
            (own / name).symlink_to(folder.absolute() / name)
    return datasets.Dataset(fingerprint=fingerprint, **_read(own, _info(own), split))


def _info(folder: Path) -> Any:
    import datasets

    try:
        info = datasets.DatasetInfo.from_directory(os.fspath(folder))
    except (OSError, ValueError, TypeError) as error:
        raise CacheError(f"{folder}: no entry that datasets reads: {reason(error)}") from None
    if not info.splits:
        raise CacheError(f"{folder}: has no splits, expected at least one")
    return info


def _read(folder: Path, info: Any, split: str) -> dict[str, Any]:
    from datasets.arrow_reader import ArrowReader
    from pyarrow import ArrowException

    reader = ArrowReader(os.fspath(folder.absolute()), info)
    try:
        read: dict[str, Any] = reader.read(info.dataset_name, split, list(info.splits.values()))
    except (OSError, ValueError, ArrowException) as error:
        raise CacheError(f"{folder}: split {split!r}: {reason(error)}") from None
    return read
