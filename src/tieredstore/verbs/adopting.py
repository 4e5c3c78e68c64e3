"""Data from before this library: files without a manifest, and how they get one.

Their recipe is unknown. Their generation follows from paths, sizes and times, so that two who
adopt the same data at the same time agree on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tieredstore.backend import FileStat, Readable
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import CorruptData
from tieredstore.manifest.artifact import canonical, digest128
from tieredstore.manifest.names import check_files
from tieredstore.manifest.records import FileRecord, Records, head_of
from tieredstore.mounted.filled import put_manifest
from tieredstore.moving.fetching import Copy
from tieredstore.moving.transfer import Transfer
from tieredstore.pinned import tag_of


def unmanaged_records(backend: Readable, folder: str, files: Sequence[str]) -> list[FileRecord]:
    """What can be said of files without reading them: sizes, modes and times, but no blocks."""
    check_files(files)
    found = []
    for file in files:
        stat = backend.stat(f"{folder}/{file}" if folder else file)
        found.append(FileRecord(file, stat.size, stat.mode & 0o777, stat.mtime_ns))
    return found


def adopted_generation(files: Sequence[FileRecord]) -> str:
    """The generation of data that is adopted as it lies."""
    known = sorted([f.path, f.size, f.mtime_ns] for f in files)
    return f"adopted-{digest128(canonical(known))}"


def seen_generation(place: str, seen: Sequence[FileStat], files: Sequence[str]) -> str:
    """The generation of files that lie elsewhere, each in the version that was seen.

    What the place names by its content is the same in every place, and at every commit.
    """
    known: list[list[object]] = []
    for file, stat in zip(files, seen, strict=True):
        named_by_content = bool(stat.digest) and stat.digest.endswith(f":{stat.tag}")
        where = "" if named_by_content else place
        known.append([where, file, stat.size, tag_of(stat)])
    return f"adopted-{digest128(canonical(sorted(known, key=repr)))}"


def seen_records(seen: Sequence[FileStat], files: Sequence[str]) -> list[FileRecord]:
    """The same as records without blocks."""
    check_files(files)
    return [
        FileRecord(file, stat.size, stat.mode & 0o777, stat.mtime_ns, sha256=_sha256(stat))
        for file, stat in zip(files, seen, strict=True)
    ]


def _sha256(stat: FileStat) -> str | None:
    kind, _, digits = stat.digest.partition(":")
    return digits if kind == "sha256" else None


def adopt_in_place(backend: LocalBackend, folder: str, files: Sequence[str]) -> None:
    """Measure files where they lie and put a manifest beside them.

    Raises
    ------
    CorruptData
        When they changed while they were read.
    """
    before = unmanaged_records(backend, folder, files)
    moved = Transfer([Copy("", backend, folder, None)]).move(before)
    if unmanaged_records(backend, folder, files) != before:
        raise CorruptData(f"{backend.place}/{folder}: changed while it was read")
    records = Records.of(moved.files)
    head = head_of(records, None, generation=adopted_generation(before))
    put_manifest(backend.mount, folder, head, records)
