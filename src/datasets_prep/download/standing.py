"""What lies at the destination before a download: the dataset, another one, or files of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets_prep.download.verifying import Verifier
from datasets_prep.errors import DownloadError, VerificationFailed
from tieredstore import ArtifactNotFound, Got, Recipe, TieredStore

_FORCE = "use --force to replace it when the new one stands"


class Standing:
    """What is there.

    Parameters
    ----------
    store : TieredStore
        The destination.
    name : str
        The artifact.
    folder : Path
        Where its files lie.
    verifier : Verifier
        Says whether a dataset is whole.
    """

    def __init__(self, store: TieredStore, name: str, folder: Path, verifier: Verifier) -> None:
        self._store = store
        self._name = name
        self._folder = folder
        self._verifier = verifier

    def look(self, recipe: Mapping[str, Any]) -> Got | None:
        """The dataset, where it is there and whole; ``None`` where nothing is.

        Raises
        ------
        DownloadError
            When something else is there, or the dataset is not whole.
        """
        try:
            got = self._store.restore(self._name)
        except ArtifactNotFound:
            return self._look_at_others()
        if got.recipe is not None or not self._verifier.knows:
            self._refuse_another(got, recipe)
        self._verify(got.path)
        return got

    def _refuse_another(self, got: Got, recipe: Mapping[str, Any]) -> None:
        wanted = Recipe.of(recipe)
        assert wanted is not None
        there = got.recipe.options if got.recipe is not None else {}
        if there != wanted.options:
            what = there.get("source") or "somewhere else"
            raise DownloadError(f"{got.path}: holds a dataset from {what}; {_FORCE}")

    def _verify(self, folder: Path) -> None:
        try:
            self._verifier.check(folder)
        except VerificationFailed as error:
            raise VerificationFailed(f"{folder}: is there already; {error}; {_FORCE}") from None

    def _look_at_others(self) -> Got | None:
        """Files without a manifest count as the dataset only when a specification says so."""
        if not self._folder.is_dir() or not any(self._folder.iterdir()):
            return None
        if not self._verifier.knows:
            raise DownloadError(
                f"{self._folder}: holds files that no download has put there; name another "
                "folder, or use --force to put the dataset among them"
            )
        self._verify(self._folder)
        first = replace(self._store.tiers[0], adopt=True)
        return TieredStore([first], self._store.reporter).restore(self._name)
