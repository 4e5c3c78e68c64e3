"""Where a dataset's files lie: a folder as people name it, to a tier and an artifact's name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datasets_prep.errors import OptionError
from tieredstore import Layout, Tier, local_tier

IN_REPO: Final = Layout("{name}/{name}", ("{name}",))


@dataclass(frozen=True, slots=True)
class Place:
    """A first tier, and the name that a folder's files have in it.

    Attributes
    ----------
    tier : Tier
        The first tier.
    name : str
        The artifact.
    folder : Path
        Where its files lie.
    """

    tier: Tier
    name: str
    folder: Path


def place_of(data_dir: str | os.PathLike[str], name: str | None = None) -> Place:
    """The place of a dataset that is prepared in ``data_dir``.

    A folder named like the dataset (``data/shakespeare``) is addressed from the one above it, as
    `tieredstore.open_store` finds ``./data``, so that all who work there share leases and state.
    Without a name the files lie in ``data_dir`` itself.

    Raises
    ------
    OptionError
        For a name that is absolute, empty or leads elsewhere.
    """
    folder = Path(os.path.abspath(data_dir))
    if name is None and not folder.name:
        raise OptionError(f"{folder}: expected a folder of its own, or a dataset's name")
    if name is not None and ({"", ".", ".."} & set(name.split("/"))):
        raise OptionError(f"dataset {name!r}: expected a relative name such as 'shakespeare'")
    if name is None:
        return Place(local_tier(folder.parent), folder.name, folder)
    if folder.name == name:
        return Place(local_tier(folder.parent, IN_REPO), name, folder / name)
    return Place(local_tier(folder), name, folder / name)
