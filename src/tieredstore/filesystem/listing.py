"""What lies below a path: the union of the tiers, sizes and digests from manifests."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tieredstore.errors import InvalidName, TieredStoreError
from tieredstore.filesystem.asking import Asking
from tieredstore.filesystem.naming import Names, Spot
from tieredstore.filesystem.tree import Tree
from tieredstore.manifest.artifact import Head, digest128
from tieredstore.manifest.names import parents
from tieredstore.manifest.records import FileRecord
from tieredstore.mounted import beneath
from tieredstore.mounted.changes import writing
from tieredstore.tiers.tier import PARTIAL, UNMANAGED, WHOLE, Located

Info = dict[str, Any]


@dataclass(slots=True)
class Contents:
    """The files of one artifact.

    Attributes
    ----------
    name : str
        The artifact.
    head : Head or None
        Of the generation that is served; ``None``: the data has no manifest.
    tree : Tree
        Its files.
    tiers : dict
        Which of its files each tier has, in the order of the chain; ``None``: all of them.
    """

    name: str
    head: Head | None
    tree: Tree
    tiers: dict[str, set[str] | None] = field(default_factory=dict)

    @property
    def single(self) -> bool:
        """Whether the artifact is a single file."""
        return self.head is not None and self.head.kind == "file"

    def info(self, file: str) -> Info | None:
        """What is said of a file or folder in it; ``None`` where there is no such thing."""
        record = self.tree.files.get(file)
        if record is not None:
            return self._of_file(record)
        if file in self.tree.folders:
            return self._of_folder(file)
        return None

    def below(self, folder: str) -> Iterator[Info]:
        """What lies directly in a folder."""
        yield from filter(None, map(self.info, self.tree.folders[folder]))

    def all(self, folder: str) -> dict[str, Info]:
        """Everything in a folder of it, however deep, and the folder; or the one file."""
        begin = f"{folder}/" if folder else ""
        paths = [*self.tree.folders, *self.tree.files]
        chosen = [p for p in paths if p == folder or p.startswith(begin)]
        if self.single:
            chosen = list(self.tree.files)
        return {found["name"]: found for found in filter(None, map(self.info, chosen))}

    def _of_file(self, record: FileRecord) -> Info:
        said: Info = {
            "name": self.name if self.single else f"{self.name}/{record.path}",
            "size": record.size,
            "type": "file",
            "mtime": record.mtime_ns / 1e9,
            "mode": stat.S_IFREG | record.mode,
            "tiers": self._tiers_of(record.path),
        }
        if self.head is not None:
            said["generation"] = self.head.generation
            said["digest"] = f"xxh3-128:{digest128(record.table)}"
        if record.sha256:
            said["sha256"] = record.sha256
        return said

    def _of_folder(self, folder: str) -> Info:
        name = f"{self.name}/{folder}" if folder else self.name
        return {"name": name, "size": 0, "type": "directory", "tiers": list(self.tiers)}

    def _tiers_of(self, file: str) -> list[str]:
        return [tier for tier, files in self.tiers.items() if files is None or file in files]


class Listing:
    """Looks into the tiers of a store.

    Parameters
    ----------
    asking : Asking
        The tiers.
    names : Names
        What paths mean.
    """

    def __init__(self, asking: Asking, names: Names) -> None:
        self._asking = asking
        self._names = names

    def info(self, path: str) -> Info:
        """What is said of a path.

        Raises
        ------
        FileNotFoundError
            When no tier has it.
        """
        if not path:
            return {"name": "", "size": 0, "type": "directory"}
        spot = self._names.of(path)
        fd = self._written(spot.name)
        if fd is not None:
            return _lying(fd, spot, self._asking.chain.tiers[0].name)
        contents = self.contents(spot.name)
        found = None if contents is None else contents.info(spot.file)
        if contents is None and self._asking.names(path):
            found = {"name": path, "size": 0, "type": "directory"}
        if found is None:
            raise FileNotFoundError(path)
        return found

    def ls(self, path: str) -> list[Info]:
        """What lies directly below a path; of a file, the file.

        Raises
        ------
        FileNotFoundError
            When no tier has it.
        """
        spot = self._names.of(path) if path else None
        contents = None if spot is None else self.contents(spot.name)
        if spot is None or contents is None:
            return self._artifacts(path)
        found = contents.info(spot.file)
        if found is None:
            raise FileNotFoundError(path)
        if found["type"] == "file":
            return [found]
        return list(contents.below(spot.file))

    def find(self, path: str, maxdepth: int | None = None) -> dict[str, Info]:
        """All files and folders below a path, and itself; tiers are asked once for each artifact.

        Parameters
        ----------
        path : str
            A folder, an artifact, what is above artifacts, or a file.
        maxdepth : int, optional
            How many folders deep.

        Returns
        -------
        dict
            By name, in their order; nothing where there is no such path.
        """
        spot = self._names.of(path) if path else None
        contents = None if spot is None else self.contents(spot.name)
        if spot is not None and contents is not None:
            found = contents.all(spot.file)
        else:
            found = {}
            for name in self._asking.names(path):
                inside = self.contents(name)
                for above in parents(name):
                    if above == path or above.startswith(f"{path}/" if path else ""):
                        found[above] = {"name": above, "size": 0, "type": "directory"}
                found.update({} if inside is None else inside.all(""))
        if maxdepth is not None:
            begin = len(path) + 1 if path else 0
            found = {p: i for p, i in found.items() if p[begin:].count("/") < maxdepth}
        return dict(sorted(found.items()))

    def quick(self, path: str) -> Info:
        """Like `info`; what the first tier can say by itself no other one is asked for.

        Raises
        ------
        FileNotFoundError
            When no tier has it.
        """
        spot = self._names.of(path) if path else None
        if spot is None:
            return self.info(path)
        fd = self._written(spot.name)
        if fd is not None:
            return _lying(fd, spot, self._asking.chain.tiers[0].name)
        whole = self._whole_here(spot.name)
        if whole is None:
            return self.info(path)
        found = whole.info(spot.file)
        if found is None:
            raise FileNotFoundError(path)
        return found

    def _whole_here(self, name: str) -> Contents | None:
        """The files of an artifact that the first tier has, by what it says alone."""
        first = self._asking.chain.first
        with suppress(OSError, TieredStoreError):
            held = first.held(name)
            if held is not None:
                held.close()
                where = Located(first.tier, WHOLE, held.marks.folder, held.head)
                tree = self._asking.tree(where)
                return Contents(name, held.head, tree, {first.tier.name: None})
        return None

    def contents(self, name: str) -> Contents | None:
        """The files of an artifact; ``None`` where no tier has it."""
        try:
            located = self._asking.located(name)
        except InvalidName:
            return None
        for where in located:
            if where.state == UNMANAGED:
                return self._unmanaged(name, where)
            if where.present and where.head is not None:
                with suppress(OSError, TieredStoreError):
                    return self._whole(name, where, located)
        return None

    def _whole(self, name: str, where: Located, located: Sequence[Located]) -> Contents:
        assert where.head is not None
        contents = Contents(name, where.head, self._asking.tree(where))
        for other in located:
            if other.head is None or other.head.generation != where.head.generation:
                continue
            if other.state == PARTIAL:
                with suppress(OSError, TieredStoreError):
                    contents.tiers[other.tier.name] = other.holding(contents.tree.files)
            elif other.present:
                contents.tiers[other.tier.name] = None
        return contents

    def _unmanaged(self, name: str, where: Located) -> Contents:
        """Data without a manifest, as its place lists it."""
        backend = where.tier.backend
        begin = f"{where.folder}/" if where.folder else ""
        found = {}
        for each in backend.list(where.folder):
            file = each.path.removeprefix(begin)
            if file in where.files:
                found[file] = FileRecord(file, each.size, each.mode, each.mtime_ns)
        return Contents(name, None, Tree(found), {where.tier.name: None})

    def _written(self, name: str) -> int | None:
        """The folder of an artifact that is being changed file by file, held open."""
        first = self._asking.chain.first
        with suppress(InvalidName):
            return writing(first.backend.mount, first.tier.layout.folder(name))
        return None

    def _artifacts(self, path: str) -> list[Info]:
        """The artifacts, and folders of artifacts, directly below a path that is in none."""
        names = self._asking.names(path)
        begin = f"{path}/" if path else ""
        found: dict[str, Info] = {}
        for name, tiers in sorted(names.items()):
            child = begin + name.removeprefix(begin).partition("/")[0]
            if child not in found:
                found[child] = {"name": child, "size": 0, "type": "directory", "tiers": []}
            own = found[child]["tiers"]
            own += [tier for tier in tiers if tier not in own]
        if path and not found:
            raise FileNotFoundError(path)
        alone = [name for name in found if name in names and self._names.of(name).single]
        for name in alone:
            with suppress(FileNotFoundError):
                found[name] = self.info(name)
        return list(found.values())


def _lying(fd: int, spot: Spot, tier: str) -> Info:
    """A file or folder of an artifact that is changed file by file, as it lies there now."""
    with beneath.opened(fd):
        try:
            found = _stat(fd, spot.file)
        except OSError:
            raise FileNotFoundError(spot.path) from None
    kind = "directory" if stat.S_ISDIR(found.st_mode) else "file"
    size = found.st_size if kind == "file" else 0
    said = {"name": spot.path, "size": size, "type": kind, "tiers": [tier]}
    return {**said, "mtime": found.st_mtime, "mode": found.st_mode}


def _stat(fd: int, path: str) -> os.stat_result:
    """Stat a file or folder below an open folder, without following links."""
    folder, name = beneath.split(path)
    if not name:
        return os.fstat(fd)
    with beneath.opened(beneath.open_folder(fd, folder)) as above:
        return os.stat(name, dir_fd=above, follow_symlinks=False)
