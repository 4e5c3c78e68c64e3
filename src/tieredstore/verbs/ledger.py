"""What a filling knows of the files it has put in, kept beside the first tier's stages.

So that another process may go on with a filling, and old and new files are never taken together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tieredstore.manifest.artifact import Recipe, digest128
from tieredstore.manifest.names import check_file
from tieredstore.manifest.records import FileRecord
from tieredstore.mounted import beneath
from tieredstore.mounted.alive import temporary
from tieredstore.mounted.stage import Mount

_AREA: Final = "fill"
_MAX_LEDGER: Final = 64 << 20  # bytes

Seen = tuple[int, int]  # size in bytes, modification time in nanoseconds


@dataclass(slots=True)
class Ledger:
    """What one filling knows of the files in the first tier's folder.

    Attributes
    ----------
    generation : str
        What the artifact will be published as.
    put : dict
        Files that this filling has put in, as they were then.
    stale : dict
        Required files of an older generation, as they were when the filling began.
    digests : dict
        Digests of the block tables of files in ``put``: clocks tick too slowly to tell a file
        from one that another put in its place at once.
    """

    generation: str
    put: dict[str, Seen] = field(default_factory=dict)
    stale: dict[str, Seen] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def add(self, file: FileRecord) -> None:
        """Count a file that is about to be put in."""
        self.put[file.path] = (file.size, file.mtime_ns)
        self.digests[file.path] = digest128(file.table)

    def counts(self, file: FileRecord) -> bool:
        """Whether a file has the bytes that were put in, as far as that is known."""
        return self.digests.get(file.path, digest128(file.table)) == digest128(file.table)

    @classmethod
    def read(cls, mount: Mount, generation: str, recipe: Recipe | None) -> Ledger | None:
        """The ledger of a filling that another began, or ``None`` where there is no such one."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            with beneath.opened(mount.area(_AREA)) as area:
                body = json.loads(beneath.read_small(area, f"{generation}.json", _MAX_LEDGER))
            if body["recipe"] == _identity(recipe):
                put, stale = _seen(body["put"]), _seen(body["stale"])
                return cls(generation, put, stale, {f: str(body["digests"][f]) for f in put})
        return None

    def write(self, mount: Mount, recipe: Recipe | None) -> None:
        """Keep the ledger for whoever goes on."""
        body = {"recipe": _identity(recipe), "put": self.put, "stale": self.stale}
        body["digests"] = self.digests
        with beneath.opened(mount.area(_AREA)) as area:
            name = temporary(f"{self.generation}.")
            beneath.write_small(area, name, json.dumps(body).encode())
            os.rename(name, f"{self.generation}.json", src_dir_fd=area, dst_dir_fd=area)

    def delete(self, mount: Mount) -> None:
        """The filling is over."""
        with suppress(OSError), beneath.opened(mount.area(_AREA)) as area:
            os.unlink(f"{self.generation}.json", dir_fd=area)


def stats(mount: Mount, folder: str, files: Iterable[str]) -> dict[str, os.stat_result]:
    """Stat those of the files that lie in a folder."""
    found: dict[str, os.stat_result] = {}
    with suppress(FileNotFoundError), beneath.opened(mount.root()) as root:
        with beneath.opened(beneath.open_folder(root, folder)) as fd:
            for file in files:
                with suppress(FileNotFoundError):
                    found[file] = beneath.stat_file(fd, check_file(file))
    return found


def _identity(recipe: Recipe | None) -> object:
    return None if recipe is None else json.loads(json.dumps(recipe.identity()))


def _seen(table: dict[str, list[int]]) -> dict[str, Seen]:
    return {check_file(f): (int(size), int(mtime)) for f, (size, mtime) in table.items()}
