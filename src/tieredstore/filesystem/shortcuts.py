"""The two things that people type most, without a filesystem of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tieredstore.filesystem.fs import TieredFileSystem


def open_url(url: str, mode: str = "rb", **options: Any) -> Any:
    """Open a file of a store: ``tieredstore.open("tiered://shakespeare/train.bin")``.

    Parameters
    ----------
    url : str
        The file; ``tiered://`` may be left out.
    mode : str
        As the built-in `open` has it; by default bytes are read.
    **options
        ``config``, ``restore``, ``promote`` and ``artifact`` of `TieredFileSystem`; and
        ``encoding``, ``errors``, ``newline``, ``compression`` of its `open`.

    Returns
    -------
    file object
        To be used in a ``with`` statement.
    """
    filesystem = TieredFileSystem(**_own(options))
    return filesystem.open(url, mode, **options)


def local_path(url: str, **options: Any) -> Path:
    """The path in the first tier of a file, folder or artifact, restored where it is missing.

    Parameters
    ----------
    url : str
        What; ``tiered://`` may be left out.
    **options
        See `open_url`.
    """
    return TieredFileSystem(**_own(options)).local_path(url)


def _own(options: dict[str, Any]) -> dict[str, Any]:
    names = ("config", "restore", "promote", "artifact")
    return {name: options.pop(name) for name in names if name in options}
