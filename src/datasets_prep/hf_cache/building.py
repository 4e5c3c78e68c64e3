"""One entry built by ``datasets`` in a private folder, and verified by opening it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

from datasets_prep.errors import CacheError, FieldMissing, reason
from datasets_prep.hf_cache.opening import check
from datasets_prep.hf_cache.request import Request, builder_of

_PRIVATE: Final = ".building"
_WRITABLE: Final = 0o222


def build(request: Request, folder: Path) -> int:
    """Build an entry's files into a folder that is seen by nobody else.

    Parameters
    ----------
    request : Request
        What to build.
    folder : Path
        Gets ``dataset_info.json`` and the Arrow files, without the right to write to them.

    Returns
    -------
    int
        Rows of all splits.

    Raises
    ------
    FieldMissing
        When the data file has no such field.
    CacheError
        When ``datasets`` cannot read the data file, or what it has built is not whole.
    """
    private = folder / _PRIVATE
    private.mkdir()
    built = private / "entry"
    try:
        _prepare(builder_of(request, str(private)), request, built)
        rows = check(built)
        for file in built.iterdir():
            file.chmod(file.stat().st_mode & ~_WRITABLE & 0o777)
            file.rename(folder / file.name)
    finally:
        shutil.rmtree(private)
    return rows


def _prepare(builder: Any, request: Request, built: Path) -> None:
    try:
        builder.download_and_prepare(output_dir=os.fspath(built))
    except Exception as error:  # noqa: BLE001 - whatever a data file of somebody's leads it into
        why = error.__cause__ or error
        if isinstance(why, KeyError) and why.args == (request.options.get("field"),):
            raise FieldMissing(f"{request.path}: no field {why.args[0]!r}") from None
        said = f"{type(why).__name__}: {reason(why)}"
        raise CacheError(f"{request.shown}: not read by datasets: {said}") from None
