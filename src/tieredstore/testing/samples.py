"""Small generations made in memory, and the few steps that put one into a backend.

For tests of backends and of the store. Nothing here needs pytest, and nothing here checks: what a
backend did wrong shows in what a reader finds afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tieredstore.backend import ANY_HEAD, Expected, Publishable, Readable, Staging
from tieredstore.manifest.artifact import Head, Recipe, new_generation
from tieredstore.manifest.records import (
    BLOCK,
    FileRecord,
    Records,
    block_digest,
    head_of,
    pack_block,
)

MTIME_NS: Final = 1_600_000_000_123_456_789
MODE: Final = 0o640
ODD_NAMES: Final = (  # valid, and easily taken for something else
    "with space",
    " space at the ends ",
    "ünï/çödé.bin",
    "日本語/データ",
    "😀.txt",
    "hash#1",
    "100%",
    "%2e%2e",
    "a+b",
    "a&b=c;d,e",
    "what?versionId=1",
    "star*",
    "[set]{one,two}",
    "~home",
    "$HOME",
    "quote'\"`",
    "-dash",
    ".hidden/.file",
    "..two dots",
    "end.",
    "a::b",
    "C:",
    "e\u0301 decomposed",
    "x" * 255,
)


def table_of(data: bytes, block: int = BLOCK) -> bytes:
    """The block table of a file's bytes.

    Parameters
    ----------
    data : bytes
        The whole file.
    block : int
        Bytes of each block but the last.
    """
    cuts = range(0, len(data), block)
    views = (data[at : at + block] for at in cuts)
    return b"".join(pack_block(len(view), block_digest(view)) for view in views)


def record_of(path: str, data: bytes, block: int = BLOCK) -> FileRecord:
    """The record of a file that holds ``data``, with `MODE` and `MTIME_NS`."""
    return FileRecord(path, len(data), MODE, MTIME_NS, table_of(data, block))


@dataclass(frozen=True)
class Sample:
    """One generation: its files' bytes, and the head and records that belong to them.

    Attributes
    ----------
    files : mapping
        Each file's bytes by its path.
    recipe : Recipe or None
        What it says it was made from.
    generation : str
        Its identity; another for each sample.
    """

    files: Mapping[str, bytes]
    recipe: Recipe | None
    generation: str

    @classmethod
    def of(cls, files: Mapping[str, bytes], recipe: Recipe | None = None) -> Sample:
        """A sample under a fresh generation."""
        return cls(files, recipe, new_generation())

    @property
    def records(self) -> Records:
        """The records of all files."""
        return Records.of(record_of(path, data) for path, data in self.files.items())

    def head(self, kind: str = "folder") -> Head:
        """The head that belongs to the records."""
        return head_of(self.records, self.recipe, generation=self.generation, kind=kind)


def stage(backend: Readable, folder: str, sample: Sample) -> Staging:
    """Begin a staging and write every file of a sample to it.

    Raises
    ------
    TypeError
        When the backend cannot be published to.
    """
    if not isinstance(backend, Publishable):
        raise TypeError(f"{type(backend).__name__} is not Publishable")
    staging = backend.begin(folder, sample.head())
    for path, record in sample.records.files.items():
        writer = staging.create(record)
        if sample.files[path]:
            writer.write(0, memoryview(sample.files[path]))
        writer.close()
    return staging


def publish(
    backend: Readable, folder: str, sample: Sample, expected: Expected = ANY_HEAD
) -> Sample:
    """Stage a sample and publish it; the sample is returned."""
    stage(backend, folder, sample).publish(sample.head(), sample.records, expected)
    return sample


def read_whole(backend: Readable, path: str) -> bytes:
    """All bytes of one file, read by its size.

    Raises
    ------
    FileNotFoundError
        Where there is none.
    """
    data = bytearray(backend.stat(path).size)
    with backend.open(path) as reader:
        got = reader.readinto(0, memoryview(data))
    return bytes(data[:got])


def read_artifact(backend: Readable, folder: str) -> dict[str, bytes] | None:
    """Every file that the head at ``folder`` promises, or ``None`` where there is no head."""
    found = backend.read_head(folder)
    if found is None:
        return None
    records = backend.read_records(folder, found.head)
    return {
        path: read_whole(backend, backend.data_path(folder, found.head, path))
        for path in records.files
    }
