"""What a restore hands out: a local folder, and a view of one generation for as long as wanted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tieredstore.manifest.artifact import Recipe
from tieredstore.mounted.marks import Held


@dataclass(slots=True)
class Got:
    """An artifact in the first tier.

    Attributes
    ----------
    name : str
        The artifact.
    path : Path
        The folder that holds its files, or the file itself for a single-file artifact. What a
        path names may be replaced between two opens: use `open` to read one generation.
    source : str
        The tier that it came from; the first tier's own name for a hit.
    recipe : Recipe or None
        What it was made from; ``None``: unknown, the data had no manifest.
    generation : str
        Which publication it is; empty for data that could not be given a manifest.
    skipped : dict
        Tiers that could not serve, with the reason.
    """

    name: str
    path: Path
    source: str
    recipe: Recipe | None
    generation: str
    skipped: Mapping[str, str] = field(default_factory=dict)
    _held: Held | None = None

    def open(self, file: str) -> BinaryIO:
        """Open one file for reading, of this generation whatever has been published since.

        Raises
        ------
        ArtifactChanged
            When the files were replaced one by one, in a folder that is shared with others.
        """
        if self._held is None:
            return open(self.path / file, "rb")
        return os.fdopen(self._held.open(file), "rb")

    def close(self) -> None:
        """Let go of the generation."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
