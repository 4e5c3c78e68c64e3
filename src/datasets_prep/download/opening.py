"""Whether images open: with Pillow, in a few threads, without decoding more than it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from datasets_prep.errors import reason

_THREADS: Final = 4
_AT_ONCE: Final = 256  # images that wait


def open_images(folder: Path, paths: Sequence[str]) -> Iterator[str]:
    """For each image what is wrong with it, or nothing.

    Raises
    ------
    ImportError
        When Pillow is not installed.
    """
    from PIL import Image

    def problem(path: str) -> str:
        try:
            with Image.open(folder / path) as image:
                image.load()
        except Exception as error:  # noqa: BLE001 - a damaged file may raise anything
            why = reason(error).replace(f"{folder}/", "")
            return f"{path}: does not open: {why}"
        return ""

    with ThreadPoolExecutor(_THREADS) as threads:
        for at in range(0, len(paths), _AT_ONCE):
            yield from threads.map(problem, paths[at : at + _AT_ONCE])
