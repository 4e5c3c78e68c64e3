"""Which artifact a path of ``tiered://`` means, and which file in it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from tieredstore.errors import InvalidName
from tieredstore.filesystem.asking import Asking
from tieredstore.manifest.names import MAX_FILE, MAX_NAME, check_name, check_path, parents
from tieredstore.mounted import beneath
from tieredstore.mounted.marks import Marks
from tieredstore.tiers.tier import DAMAGED, PARTIAL, WHOLE, Located


@dataclass(frozen=True, slots=True)
class Spot:
    """A place below ``tiered://``.

    Attributes
    ----------
    path : str
        The whole of it.
    name : str
        The artifact.
    file : str
        The file or folder in it; empty for the artifact itself.
    known : bool
        Some tier has the artifact; else this is where a new file would go.
    single : bool
        The artifact is a single file, or would be.
    below : tuple of Located
        What the lower tiers have of it, where they were asked just now, because the first tier
        has nothing of that name.
    """

    path: str
    name: str
    file: str
    known: bool
    single: bool = False
    below: tuple[Located, ...] = ()


class Names:
    """Paths to artifacts: the shallowest prefix that has a head, in the first tier or below.

    Parameters
    ----------
    asking : Asking
        The tiers.
    declared : str
        The artifact that new files belong to, where it is not the first part of their path.
    """

    def __init__(self, asking: Asking, declared: str = "") -> None:
        self._asking = asking
        self._declared = check_name(declared) if declared else ""
        self._below: dict[str, bool] = {}  # artifacts that lower tiers had: whether a single file

    def of(self, path: str) -> Spot:
        """What a path means; nothing is asked of a lower tier for what the first one has.

        Raises
        ------
        InvalidName
            For a path that escapes, or names what is the store's own.
        """
        prefixes = [*parents(path), path] if path else []
        if path:
            check_path(path, what="path", limit=MAX_NAME + MAX_FILE)
        for prefix in prefixes:
            single = self._here(prefix)
            if single is not None and (not single or prefix == path):
                return _spot(path, prefix, known=True, single=single)
        for prefix in prefixes:
            if prefix in self._below:
                return _spot(path, prefix, known=True, single=self._below[prefix])
        return self._elsewhere(path, prefixes) or self._new(path)

    def forget(self, name: str) -> None:
        """An artifact that a lower tier had is gone."""
        self._below.pop(name, None)

    def _here(self, prefix: str) -> bool | None:
        """Whether the first tier has an artifact of that name: a single file, a folder, none."""
        tier, mount = self._asking.chain.tiers[0], self._asking.chain.first.backend.mount
        with suppress(OSError, InvalidName), beneath.opened(mount.root()) as root:
            for folder in (tier.layout.folder(prefix), *tier.layout.old_folders(prefix)):
                for kind in ("folder", "file"):
                    marks = Marks.of(folder, kind)
                    with suppress(OSError):
                        with beneath.opened(beneath.open_folder(root, marks.folder)) as fd:
                            if beneath.exists(fd, marks.head) or beneath.exists(fd, marks.pending):
                                return kind == "file"
                if mount.swap_notes(folder):
                    return False  # it is being replaced, in two steps
        return None

    def _elsewhere(self, path: str, prefixes: list[str]) -> Spot | None:
        lower = self._asking.chain.tiers[1:]
        if not lower:
            return None
        for prefix in prefixes:
            with suppress(InvalidName):
                located = self._asking.located(check_name(prefix), lower)
                for where in located:
                    if where.state in {WHOLE, PARTIAL, DAMAGED}:
                        single = where.head is not None and where.head.kind == "file"
                        self._below[prefix] = single
                        found = _spot(path, prefix, known=True, single=single)
                        return replace(found, below=tuple(located))
        return None

    def _new(self, path: str) -> Spot:
        own = self._declared
        if own and (path == own or path.startswith(f"{own}/")):
            return _spot(path, own, known=False, single=False)
        name, _, file = path.partition("/")
        return Spot(path, name, file or name, known=False, single=not file)


def _spot(path: str, name: str, *, known: bool, single: bool) -> Spot:
    file = name.rpartition("/")[2] if single else path[len(name) + 1 :]
    return Spot(path, name, file, known, single)
