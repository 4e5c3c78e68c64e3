"""The files of one generation as folders: made once, because a generation never changes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from tieredstore.manifest.names import parents
from tieredstore.manifest.records import FileRecord
from tieredstore.mounted.beneath import split


class Tree:
    """Files by their names, and what lies directly in each folder.

    Parameters
    ----------
    files : mapping
        Records by path.
    """

    def __init__(self, files: Mapping[str, FileRecord]) -> None:
        self.files = files

    @cached_property
    def folders(self) -> dict[str, list[str]]:
        """The paths directly in each folder; that of the artifact itself is ``""``."""
        found: dict[str, list[str]] = {"": []}
        for file in self.files:
            for folder in parents(file):
                if folder not in found:
                    found[folder] = []
                    found[split(folder)[0]].append(folder)
            found[split(file)[0]].append(file)
        return found
