"""The contract between the store and a kind of place: small capabilities, most of it derived.

A backend subclasses :class:`Readable` (three abstract methods) and, as its place allows,
:class:`Publishable` and :class:`Leasable`. Paths are relative POSIX strings below the backend's
root; methods are synchronous and may be called from several threads. Names have been validated
before they arrive here. No method knows of tiers, layouts or chains.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, Self

from tieredstore.errors import CorruptData, ManifestError
from tieredstore.leasable import Leasable as Leasable  # noqa: PLC0414 - part of the contract
from tieredstore.leasable import OnWait as OnWait  # noqa: PLC0414 - likewise
from tieredstore.manifest.artifact import HEAD, MAX_HEAD, RECORDS, Head
from tieredstore.manifest.records import MAX_RECORDS, FileRecord, Records


@dataclass(frozen=True, slots=True)
class FileStat:
    """What a place says of one file: path below the root, bytes, times, a version tag, a digest.

    ``digest``, where one is known: ``sha256:…``, ``md5:…``, or ``git:…`` as git has it of a blob.
    """

    path: str
    size: int
    mtime_ns: int = 0
    mode: int = 0o644
    tag: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class FoundHead:
    """A head as it lies in a place.

    Attributes
    ----------
    head : Head
        The validated head.
    tag : str
        Changes whenever the head does; what `Staging.publish` compares.
    partial : bool
        Only some of the generation's files are here.
    """

    head: Head
    tag: str
    partial: bool = False


class FileReader(ABC):
    """An open file that is read by position, from several threads at once."""

    @abstractmethod
    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset`` on; fewer bytes are returned only at the file's end."""

    def close(self) -> None:  # noqa: B027 - many readers hold nothing
        """Let go of what the reader holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FileSource:
    """The files of one copy, opened by their names in the artifact; used by several threads."""

    def __init__(self, backend: Readable, path_of: Callable[[str], str]) -> None:
        self._backend = backend
        self._path_of = path_of

    def open(self, file: str) -> FileReader:
        """Open one file; `FileNotFoundError` where it is gone."""
        return self._backend.open(self._path_of(file))

    def expect(self, file: str, offset: int, size: int) -> bool:  # noqa: ARG002
        """Be told what this thread reads next of a file, in order; true where small pieces do."""
        return False

    def close(self) -> None:
        """Let go of what is held for further reads; files may be opened again."""


class Readable(ABC):
    """A place that files can be read from.

    Attributes
    ----------
    place : str
        How messages call it: a path or a URL without credentials.
    keeps_case : bool
        Whether ``A`` and ``a`` are two files there.
    request : int
        Bytes that are best asked for at once.
    parallel : int
        How many requests at once the place serves best.
    parallel_small : int
        Likewise for small files. One on a local disk, where a second thread only contends for
        the interpreter's lock; more where each file costs a round trip.
    listable : bool
        Whether the place can say what it has; where not, `list` raises `Unsupported` and
        `folders` yields nothing.
    remote : bool
        Whether asking it goes over a network by this process, so that offline it is left out.
        A place that says nothing is taken to be remote; a mounted one is not.
    """

    place: str
    keeps_case: bool = True
    request: int = 16 << 20
    parallel: int = 16
    parallel_small: int = 16
    listable: bool = True
    remote: bool = True

    @abstractmethod
    def stat(self, path: str) -> FileStat:
        """Size, times and tag of one file; `FileNotFoundError` where there is none."""

    @abstractmethod
    def open(self, path: str) -> FileReader:
        """Open one file; `FileNotFoundError` where there is none."""

    @abstractmethod
    def list(self, folder: str) -> Iterator[FileStat]:
        """Every file below ``folder`` (all of them for ``""``); nothing where it is missing.

        Raises
        ------
        OSError
            Rather than end early: an incomplete listing must never look whole.
        """

    # Derived; a backend overrides what its place does better.

    def read(self, path: str, limit: int) -> bytes:
        """All of a small file.

        Raises
        ------
        ManifestError
            When it is larger than ``limit`` bytes.
        """
        with self.open(path) as reader:
            data = bytearray(limit + 1)
            got = reader.readinto(0, memoryview(data))
        if got > limit:
            raise ManifestError(f"{self.place}/{path}: larger than {limit} bytes")
        return bytes(data[:got])

    def read_head(self, folder: str) -> FoundHead | None:
        """The head of the artifact at ``folder``, or ``None`` where there is no whole one.

        Raises
        ------
        ManifestError
            When there is one that cannot be believed.
        """
        path = f"{folder}/{HEAD}"
        try:
            data = self.read(path, MAX_HEAD)
        except FileNotFoundError:
            return None
        head = Head.parse(data, f"{self.place}/{path}")
        return FoundHead(head, head.generation)

    def read_records(self, folder: str, head: Head) -> Records:
        """The records that belong to ``head``.

        Raises
        ------
        CorruptData
            When they are missing.
        ManifestError
            When they do not match the head.
        """
        path = self.data_path(folder, head, RECORDS)
        if head.records_size > MAX_RECORDS:
            raise ManifestError(f"{self.place}/{path}: records of more than {MAX_RECORDS} bytes")
        try:
            data = self.read(path, head.records_size)
        except FileNotFoundError:
            raise CorruptData(f"{self.place}/{path}: the records are missing") from None
        records = Records.parse(data, head.records_digest, f"{self.place}/{path}")
        if len(records.files) != head.files or records.size != head.size:
            raise ManifestError(f"{self.place}/{path}: records and head disagree on the totals")
        return records

    def data_path(self, folder: str, head: Head, file: str) -> str:
        """Where a file of this generation lies below the root."""
        return "/".join(part for part in (folder, head.data, file) if part)

    def size_of(self, folder: str, head: Head, file: str) -> int:
        """Bytes of a file of this generation, as the place has it."""
        return self.stat(self.data_path(folder, head, file)).size

    def source(self, folder: str, head: Head | None) -> FileSource:
        """The files of one generation, or (without a head) of unmanaged data, to read many of."""
        if head is None:
            return FileSource(self, lambda file: f"{folder}/{file}" if folder else file)
        return FileSource(self, lambda file: self.data_path(folder, head, file))

    def folders(self, below: str = "") -> Iterator[str]:
        """Folders of all artifacts that have a head at or below a folder."""
        ending = f"/{HEAD}"
        for found in self.list(below):
            if found.path.endswith(ending):
                yield found.path.removesuffix(ending)


class Surrounded:
    """A backend that the configuration gives the process's variables."""

    environment: Mapping[str, str] = MappingProxyType({})


class FileWriter(ABC):
    """One file of a staging while it is written."""

    @abstractmethod
    def write(self, offset: int, data: memoryview) -> None:
        """Write verified bytes at ``offset``; in order unless the staging allows any order."""

    def continues(self, begun: FileReader) -> bool:  # noqa: ARG002
        """Whether what `Staging.staged` gave is this very file, so that it need not be written.

        Another that moves the same generation may have taken the one away in between.
        """
        return False

    @abstractmethod
    def close(self) -> None:
        """The file is whole."""

    @abstractmethod
    def abort(self) -> None:
        """The file will not be completed now; what can be resumed may stay."""


class AnyHead(Enum):
    """The type of `ANY_HEAD` and `DAMAGED_HEAD`."""

    ANY = "any"
    DAMAGED = "damaged"


ANY_HEAD: Final = AnyHead.ANY
"""Publish whatever is there now: the last to publish wins."""
DAMAGED_HEAD: Final = AnyHead.DAMAGED
"""Publish where a head lies that cannot be read, and over no other."""

Expected = str | None | AnyHead
"""Tag of the head that is to be replaced; ``None``: there is none."""


class Staging(ABC):
    """Where one generation is put together, unseen by readers, until it is published.

    Attributes
    ----------
    any_order : bool
        Blocks of one file may be written in any order and from several threads.
    resumes : bool
        An earlier attempt may have left something; otherwise `holds` and `staged` are not asked.
    parallel : int
        How many pieces of large files at once the place takes best.
    parallel_small : int
        How many small files at once the place takes best.
    """

    any_order: bool = False
    resumes: bool = True
    parallel: int = 1
    parallel_small: int = 16

    def piece(self, size: int) -> int:  # noqa: ARG002
        """Bytes of the pieces in which a file of ``size`` bytes is best written; 0: in order.

        What `records.groups` cuts the file's blocks into with this length may be written in any
        order and from several threads. Everything else is written in order.
        """
        return 0

    @abstractmethod
    def create(self, file: FileRecord) -> FileWriter:
        """Begin or go on with one file; of a shard's blocks only the lengths are known."""

    def holds(self, file: FileRecord) -> bool:  # noqa: ARG002
        """Whether an earlier, interrupted attempt has left this file whole and verified."""
        return False

    def staged(self, file: FileRecord) -> FileReader | None:  # noqa: ARG002
        """What an earlier attempt left of this file, and `create` would go on with.

        The caller verifies it block by block and writes what differs.
        """
        return None

    @abstractmethod
    def publish(self, head: Head, records: Records, expected: Expected) -> None:
        """Make the generation visible as a whole, head last.

        Parameters
        ----------
        head, records
            What to publish. ``head.data`` is set by the staging.
        expected : str, None or ANY_HEAD
            Tag of the head that is to be replaced; ``None``: there is none.

        Raises
        ------
        HeadConflict
            When another head is there, as far as the place can tell.
        """

    @abstractmethod
    def discard(self) -> None:
        """Drop what was staged."""

    def mend(self, head: Head, records: Records, expected: Expected) -> None:
        """Put what was staged in the stead of damaged files of the generation that lies there.

        Each file is seen as it was or whole. By default a publication of the same generation.

        Parameters
        ----------
        head, records, expected
            See `publish`.

        Raises
        ------
        HeadConflict
            When another generation is there by now: it stays as it is.
        """
        self.publish(head, records, expected)


class Publishable(ABC):
    """A place that artifacts can be published to."""

    @abstractmethod
    def begin(self, folder: str, head: Head) -> Staging:
        """A staging for this generation of the artifact at ``folder``, resumed where possible."""

    @abstractmethod
    def remove(self, folder: str, head: Head) -> None:
        """Drop the copy of this generation: unseen at once, its space freed."""

    @abstractmethod
    def set_aside(self, folder: str, head: Head) -> str:
        """Keep a damaged copy where no reader of the store finds it; say where."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of bytes of a file that lies in the place: the file as it is now, from where, how many.

    The file's tag says which version of it is meant.
    """

    file: FileStat
    offset: int
    length: int

    @property
    def whole(self) -> bool:
        """Whether it is all of the file."""
        return self.offset == 0 and self.length == self.file.size


class Composable(ABC):
    """A staging that puts a file together from files which lie in its place already."""

    @abstractmethod
    def compose(self, file: FileRecord, segments: Sequence[Segment]) -> None:
        """Make ``file`` of these segments, one after the other; their bytes stay in the place.

        Where it returns, the file is staged and has the right length. What the place copies by
        itself is not compared with the blocks of ``file``; what passes this machine is.

        Raises
        ------
        Unsupported
            When the place cannot put these together; nothing has been staged.
        ArtifactChanged
            When a file is another version now, as far as the place can tell.
        CorruptData
            When bytes that passed this machine differ from the blocks.
        """
