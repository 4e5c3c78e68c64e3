"""Find a dataset for a training script: here, in its old place, in another tier, or prepared."""

from __future__ import annotations

import os
from pathlib import Path

from datasets_prep.console import Console
from datasets_prep.errors import UnknownDataset
from datasets_prep.places import place_of
from datasets_prep.preparing import PrepareOptions, prepare
from datasets_prep.tokens import REQUIRED
from tieredstore import ArtifactNotFound, NoSuchFile, open_store


def find_dataset(name: str, root: str | os.PathLike[str] = "data") -> Path:
    """The folder with a dataset's ``train.bin``, ``val.bin`` and ``meta.pkl``.

    Looked for in ``root/name/name``, then in the old place ``root/name``, then restored from
    another tier, then prepared.

    Parameters
    ----------
    name : str
        The dataset.
    root : path
        The folder of all datasets.

    Raises
    ------
    UnknownDataset
        When it is nowhere, and there is no preparer of that name.
    """
    console = Console()
    place = place_of(Path(root, name), name)
    store = open_store(first=place.tier, reporter=console)
    try:
        with store.restore(name, REQUIRED) as got:
            return got.path
    except (ArtifactNotFound, NoSuchFile) as error:
        missing = error
    try:
        return prepare(name, PrepareOptions(data_dir=Path(root, name)), console).path
    except UnknownDataset as error:
        raise UnknownDataset(f"{missing}; {error}") from None
