"""The store's own files beside an artifact's, and an artifact's folder held open.

`Marks` names them, `Pending` is what the pending mark says, `Held` is a reader's view of one
generation on a mounted file system. Nothing here changes anything.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tieredstore.errors import ArtifactChanged, ManifestError
from tieredstore.manifest.artifact import HEAD, MAX_HEAD, RECORDS, Head, check_generation
from tieredstore.manifest.names import RESERVED
from tieredstore.mounted import beneath

WRITING: Final = "writing"
SUMMING: Final = "summing"


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


@dataclass(slots=True, eq=False, weakref_slot=True)
class Held:
    """An artifact's folder held open, so that a reader sees one generation for as long as it wants.

    Attributes
    ----------
    fd : int
        The folder. It stays the same folder when another takes its name.
    since : int
        When the head was put in place, in nanoseconds as the place counts them (``st_ctime_ns``).
        What has changed later is looked at twice.
    """

    fd: int
    marks: Marks
    head: Head
    partial: bool
    since: int

    def close(self) -> None:
        """Let go of the folder."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):  # who makes it may be interrupted
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
            When its files are being, or have been, replaced one by one or removed since it was
            held.
        """
        try:
            found = beneath.open_file(self.fd, self._at(file))
        except FileNotFoundError:
            if self._is_here(file):
                raise
            raise _changed(file) from None
        try:
            changed = os.fstat(found).st_ctime_ns
            if changed > self.since:
                beneath.names(self.fd)  # a network mount may not know of the mark yet; it does now
            if self._is_here(file):
                self.since = max(self.since, changed)
                return found
        except FileNotFoundError:
            pass  # where an open file is known by its path alone
        except BaseException:
            os.close(found)
            raise
        os.close(found)
        raise _changed(file)

    def _is_here(self, file: str) -> bool:
        """Whether the generation is still the one that lies here, and nothing is under way.

        The mark before the head: a publication in place lays the mark before it moves a file, and
        puts its head in place before it lifts the mark.
        """
        with suppress(FileNotFoundError, ManifestError):
            if not pending_entries(self.fd, self.marks):
                data = beneath.read_small(self.fd, self.marks.head, MAX_HEAD)
                return Head.parse(data, file).generation == self.head.generation
        return False


def _changed(file: str) -> ArtifactChanged:
    return ArtifactChanged(f"{file}: the artifact was replaced or removed; restore it again")


@dataclass(frozen=True, slots=True)
class Pending:
    """What the mark of an artifact that is being put together in place says.

    ``kind`` is ``publishing`` (everything is staged and whoever comes next completes it),
    ``filling`` (files are being put in one by one; absent until the required ones are there),
    ``removing`` (files are being taken to ``area``; whoever comes next completes it), ``writing``
    (files are being changed one by one; whoever comes next sums the journal up) or ``summing``
    (that is being done).
    """

    kind: str
    generation: str = ""
    area: str = ""
    required: tuple[str, ...] = ()

    @property
    def entry(self) -> str:
        """The name of its entry in the mark's folder."""
        return f"{self.kind}-{self.generation}"

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
            kind, area = body["kind"], body["area"]
            if kind == "publishing" and area in {"stage", "part"}:
                return cls(kind, check_generation(body["generation"]), area)
            if kind == "removing" and area in {"old", "damaged"}:
                return cls(kind, check_generation(body["generation"]), area)
            if kind == WRITING:
                return cls(kind, check_generation(body["generation"]))
            if kind == "filling":
                required = tuple(str(f) for f in body["required"])
                return cls(kind, check_generation(body["generation"]), str(area), required)
        return cls("filling")

    def named(self, entry: str) -> Pending:
        """What it says under the name of its entry, which decides.

        A filling that comes to its end is renamed to a publication, in one step; a writing first
        to ``summing``, and then to the publication of the generation which it is summed up as.
        """
        if self.entry == entry:
            return self
        kind, _, generation = entry.partition("-")
        if self.kind == WRITING and kind in {SUMMING, "publishing"}:
            with suppress(ManifestError):
                return Pending(kind, check_generation(generation), "stage")
        if (self.kind, self.area, f"publishing-{self.generation}") == ("filling", "stage", entry):
            return Pending("publishing", self.generation, self.area)
        return Pending("filling")


def pending_entries(fd: int, marks: Marks) -> list[str]:
    """The entries of the mark below ``fd``; none where there is no mark, or it has been lifted."""
    if not beneath.exists(fd, marks.pending):
        return []
    try:
        with beneath.opened(beneath.open_folder(fd, marks.pending)) as there:
            return sorted(beneath.names(there))
    except FileNotFoundError:
        # A regular file of that name is no mark of this library: it hides the artifact as well.
        return ["filling-"] if beneath.is_regular(fd, marks.pending) else []


def read_mark(fd: int, marks: Marks) -> Pending | None:
    """What the mark below ``fd`` says, or ``None`` where there is none."""
    for entry in reversed(pending_entries(fd, marks)):  # removing, publishing, filling
        try:
            with beneath.opened(beneath.open_folder(fd, marks.pending)) as there:
                mark = Pending.parse(beneath.read_small(there, entry, MAX_HEAD))
        except FileNotFoundError:
            continue  # lifted meanwhile
        return mark.named(entry)
    return None
