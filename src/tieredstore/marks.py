"""The store's own files beside an artifact's, and an artifact's folder held open.

`Marks` names them, `Pending` is what the pending mark says, `Held` is a reader's view of one
generation on a mounted file system. Nothing here changes anything.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass

from tieredstore import beneath
from tieredstore.artifact import HEAD, MAX_HEAD, RECORDS, RESERVED, Head, check_generation
from tieredstore.errors import ArtifactChanged, ManifestError


@dataclass(frozen=True, slots=True)
class Marks:
    """Names of the store's own files for one artifact, and the folder that they lie in.

    A single file's marks lie beside it and begin with its name, so that many share a folder.
    """

    folder: str
    head: str = HEAD
    records: str = RECORDS
    pending: str = ".tieredstore.pending"
    partial: str = ".tieredstore.partial"

    @classmethod
    def of(cls, folder: str, kind: str) -> Marks:
        """The marks of the artifact at ``folder``."""
        if kind == "folder":
            return cls(folder)
        above, name = beneath.split(folder)
        names = (f"{RESERVED}.{name}.{end}" for end in ("json", "records", "pending", "partial"))
        return cls(above, *names)

    def own(self) -> tuple[str, ...]:
        """All four names."""
        return (self.head, self.records, self.pending, self.partial)


@dataclass(slots=True)
class Held:
    """An artifact's folder held open, so that a reader sees one generation for as long as it wants.

    Attributes
    ----------
    fd : int
        The folder. It stays the same folder when another takes its name.
    """

    fd: int
    marks: Marks
    head: Head
    partial: bool

    def close(self) -> None:
        """Let go of the folder."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        with suppress(OSError):
            self.close()

    def stat(self, file: str) -> os.stat_result:
        """Stat one of its files."""
        return beneath.stat_file(self.fd, self._at(file))

    def records_path(self) -> str:
        """Where its records lie, relative to the held folder."""
        return self._at(self.marks.records)

    def _at(self, file: str) -> str:
        return f"{self.head.data}/{file}" if self.head.data else file

    def open(self, file: str) -> int:
        """Open one of its files for reading.

        Raises
        ------
        ArtifactChanged
            When its files are being, or have been, replaced one by one since it was held.
        """
        found = beneath.open_file(self.fd, self._at(file))
        try:
            data = beneath.read_small(self.fd, self.marks.head, MAX_HEAD)
            same = Head.parse(data, file).generation == self.head.generation
            if same and not beneath.exists(self.fd, self.marks.pending):
                return found
        except (FileNotFoundError, ManifestError):
            pass
        os.close(found)
        raise ArtifactChanged(f"{file}: the artifact was replaced in place; restore it again")


@dataclass(frozen=True, slots=True)
class Pending:
    """What the mark of an artifact that is being put together in place says.

    ``kind`` is ``publishing`` (everything is staged and whoever comes next completes it),
    ``filling`` (files are being put in one by one; absent until the required ones are there) or
    ``removing``.
    """

    kind: str
    generation: str = ""
    area: str = ""
    required: tuple[str, ...] = ()

    def emit(self) -> bytes:
        """The mark as it is written."""
        body = {
            "kind": self.kind,
            "generation": self.generation,
            "area": self.area,
            "required": list(self.required),
        }
        return json.dumps(body).encode()

    @classmethod
    def parse(cls, data: bytes) -> Pending:
        """Read a mark; one that makes no sense still means pending."""
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            body = json.loads(data)
            if body["kind"] == "publishing" and body["area"] in {"stage", "part"}:
                return cls("publishing", check_generation(body["generation"]), body["area"])
            if body["kind"] == "filling":
                return cls("filling", required=tuple(str(f) for f in body["required"]))
        return cls("removing")
