"""Publications that were interrupted below a mounted root: completed, or known to be needed.

Who finds one brings it to its end, as every reader does. What cannot be completed now keeps what
it is made from: the stage that a pending mark or a note on a replacement names, and the ledger of
a filling that somebody may go on with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator
from contextlib import suppress

from tieredstore.errors import TieredStoreError
from tieredstore.manifest.artifact import HEAD, MAX_HEAD
from tieredstore.manifest.names import RESERVED, check_path
from tieredstore.mounted import beneath
from tieredstore.mounted.marks import Marks, pending_entries
from tieredstore.mounted.stage import Mount
from tieredstore.mounted.staged import AREA, Staged

_BEGIN, _END = f"{RESERVED}.", ".pending"
_LONGEST = 4096  # bytes of a folder's path
_TWICE = 2  # a replacement in two steps is placed by the first look, and noted by the second


class Pendings:
    """What is pending below a root, after everything that can be completed has been.

    Parameters
    ----------
    mount : Mount
        The root.
    """

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self._entries: set[str] = set()
        self._notes: dict[str, str] = {}  # needed ones, and the generation that they place
        for folder, marks in list(_pending(mount)):
            with suppress(OSError, ValueError, TieredStoreError):
                mount.complete(folder)
            with suppress(FileNotFoundError), beneath.opened(mount.root()) as root:
                with beneath.opened(beneath.open_folder(root, marks.folder)) as fd:
                    self._entries.update(pending_entries(fd, marks))
        with suppress(FileNotFoundError):
            for note in os.listdir(mount.area_path("swap")):
                self._read_note(note)

    def needs(self, generation: str) -> bool:
        """Whether a publication that is under way is made from this stage."""
        publishing = f"publishing-{generation}" in self._entries
        return publishing or generation in self._notes.values()

    def fills(self, generation: str) -> bool:
        """Whether files are being put in one by one under this generation."""
        return f"filling-{generation}" in self._entries

    def writes(self, generation: str) -> bool:
        """Whether files are being changed under a mark that names this journal."""
        return not self._entries.isdisjoint({f"writing-{generation}", f"summing-{generation}"})

    def notes(self, note: str, living: Container[str]) -> bool:
        """Whether a note on a replacement is needed: its author lives, or its stage waits."""
        return note in self._notes or self._generation(note) in living

    def _read_note(self, note: str) -> None:
        body = self._note(note)
        if body is None:
            return
        folder, staged = body
        for _ in range(_TWICE):
            with suppress(OSError, ValueError, TieredStoreError):
                self._mount.complete(folder)
        if staged.exists() and not self._holds(folder):
            self._notes[note] = staged.generation

    def _note(self, note: str) -> tuple[str, Staged] | None:
        with suppress(OSError, ValueError, KeyError, TypeError, TieredStoreError):
            with beneath.opened(self._mount.root()) as root:
                body = json.loads(beneath.read_small(root, f"{AREA}/swap/{note}", MAX_HEAD))
            folder = check_path(str(body["folder"]), what="folder", limit=_LONGEST)
            staged = Staged.of_path(self._mount.path, str(body["staged"]))
            return None if staged is None else (folder, staged)
        return None

    def _generation(self, note: str) -> str:
        body = self._note(note)
        return "" if body is None else body[1].generation

    def _holds(self, folder: str) -> bool:
        with suppress(OSError, ValueError, TieredStoreError):
            held = self._mount.hold(folder)
            if held is not None:
                held.close()
                return True
            mark = self._mount.pending(
                folder
            )  # files are put in there: no folder can take its place
            return mark is not None and mark.kind == "filling"
        return False


def _pending(mount: Mount) -> Iterator[tuple[str, Marks]]:
    """Folders of artifacts below a root that have a pending mark; inside artifacts are none."""
    with beneath.opened(mount.root()) as root:
        queue = [""]
        while queue:
            folder = queue.pop()
            with suppress(FileNotFoundError, TieredStoreError):
                names, inner = _entries(root, folder)
                for name in names:
                    if name == f"{RESERVED}{_END}":
                        yield folder, Marks.of(folder, "folder")
                    elif name.startswith(_BEGIN) and name.endswith(_END):
                        single = f"{folder}/{name[len(_BEGIN) : -len(_END)]}".lstrip("/")
                        yield single, Marks.of(single, "file")
                if HEAD not in names:
                    queue.extend(f"{folder}/{name}".lstrip("/") for name in inner)


def _entries(root: int, folder: str) -> tuple[list[str], list[str]]:
    """The store's own names in a folder, and the folders in it."""
    with beneath.opened(beneath.open_folder(root, folder)) as fd, os.scandir(fd) as entries:
        found = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries]
    own = [name for name, _ in found if name.startswith(RESERVED)]
    return own, [name for name, is_folder in found if is_folder and not name.startswith(RESERVED)]
