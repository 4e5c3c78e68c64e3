"""Single objects of a bucket: what a client has to do, and how files are read by it.

``obstore.py`` moves bytes at the speed of compiled code; ``botocore.py`` does the same where
obstore is not installed.
"""

from __future__ import annotations

import errno
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tieredstore.backend import FileReader, FileSource, FileStat
from tieredstore.backends.s3.access import Access
from tieredstore.errors import ArtifactChanged, InvalidName
from tieredstore.pinned import FlowingReader

MAX_KEY: Final = 1024  # bytes of UTF-8, says the S3 API reference
_LONGEST: Final = 300  # characters of a server's words that a message repeats


class Lost(Exception):
    """The condition of a write did not hold: somebody else has written."""


class Objects(ABC):
    """The objects below one prefix of a bucket; paths are relative to it.

    Attributes
    ----------
    flows : bool
        Whether `flow` gives anything.
    """

    flows = False

    def __init__(self, access: Access, prefix: str) -> None:
        self._access = access
        self._prefix = prefix
        self.place = f"s3://{access.bucket}" + (f"/{prefix}" if prefix else "")

    def key(self, path: str) -> str:
        """The whole key.

        Raises
        ------
        InvalidName
            When it is longer than S3 allows.
        """
        key = f"{self._prefix}/{path}" if self._prefix else path
        if len(key.encode()) > MAX_KEY:
            raise InvalidName(f"{key[:60]!r}…: {len(key.encode())} bytes, S3 takes {MAX_KEY}")
        return key

    def path(self, key: str) -> str:
        """The path of a whole key."""
        return key[len(self._prefix) + 1 :] if self._prefix else key

    @abstractmethod
    def stat(self, path: str) -> FileStat:
        """Size, time and ETag; `FileNotFoundError` where there is none."""

    @abstractmethod
    def get(self, path: str, limit: int) -> tuple[bytes, str]:
        """All of a small object and its ETag; `ManifestError` above ``limit`` bytes."""

    @abstractmethod
    def range(self, path: str, offset: int, buffer: memoryview, tag: str) -> tuple[int, str]:
        """Fill a buffer from ``offset`` on, of the version ``tag`` where one is given.

        Returns
        -------
        tuple of int and str
            Bytes, fewer than asked for only at the object's end, and the object's ETag.

        Raises
        ------
        ArtifactChanged
            When the object is another version now.
        """

    def flow(self, path: str, offset: int, size: int, tag: str) -> Flow | None:  # noqa: ARG002
        """Bytes of an object, of the version ``tag`` where one is given, to be read in pieces.

        Returns
        -------
        Flow or None
            ``None`` where each piece is better asked for by itself.
        """
        return None

    @abstractmethod
    def put(self, path: str, data: bytes | memoryview) -> str:
        """Write a whole object and give its ETag, as `create` and `replace` do."""

    @abstractmethod
    def create(self, path: str, data: bytes) -> str:
        """Write an object where there is none; `Lost` where there is one."""

    @abstractmethod
    def replace(self, path: str, data: bytes, tag: str) -> str:
        """Write an object over the version ``tag``; `Lost` where another one is there."""

    @abstractmethod
    def list(self, folder: str) -> Iterator[FileStat]:
        """Every object below a folder; raises rather than end early."""

    @abstractmethod
    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects; nothing happens where there are none."""

    def delete_version(self, path: str, tag: str) -> None:  # noqa: ARG002
        """Delete an object, where client and server know that condition only the version ``tag``.

        Raises
        ------
        Lost, FileNotFoundError
            When another version is there, or none.
        """
        self.delete([path])


class Flow(ABC):
    """Bytes of one object on their way.

    Attributes
    ----------
    tag : str
        The object's ETag.
    """

    tag: str

    @abstractmethod
    def readinto(self, view: memoryview) -> bool:
        """Fill memory with the next bytes; false where they have stopped coming."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it; what has not been read does not come."""


class _Coming(threading.local):
    """What a thread reads next of an object, and the answer that brings it."""

    path = ""
    at = end = 0
    flow: Flow | None = None


class ObjectReader(FileReader):
    """Reads ranges of one version of an object: the one that the first answer shows."""

    def __init__(
        self,
        objects: Objects,
        path: str,
        tags: dict[str, str],
        flowing: Callable[[str, int, memoryview], Flow | None] | None = None,
    ) -> None:
        self._objects = objects
        self._path = path
        self._tags = tags
        self._flowing = flowing

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        if not len(buffer):
            return 0
        flow = self._flowing and self._flowing(self._path, offset, buffer)
        if flow:
            size, tag = len(buffer), flow.tag
        else:
            expected = self._tags.get(self._path, "")
            size, tag = self._objects.range(self._path, offset, buffer, expected)
        if tag and self._tags.setdefault(self._path, tag) != tag:
            raise ArtifactChanged(f"{self._objects.place}/{self._path}: changed while it was read")
        return size


class ObjectSource(FileSource):
    """The files of one copy; each is read in one version, however many ranges it takes."""

    def __init__(self, objects: Objects, folder: str, tags: dict[str, str] | None = None) -> None:
        self._objects = objects
        self._folder = folder
        self._tags = dict(tags or {})
        self._coming = _Coming()

    def open(self, file: str) -> FileReader:
        """See `FileSource.open`."""
        return ObjectReader(self._objects, self._path(file), self._tags, self._flowing)

    def expect(self, file: str, offset: int, size: int) -> bool:
        """See `FileSource.expect`."""
        self._drop()
        if not self._objects.flows:
            return False
        coming = self._coming
        coming.path, coming.at, coming.end = self._path(file), offset, offset + size
        return True

    def _path(self, file: str) -> str:
        return f"{self._folder}/{file}" if self._folder else file

    def _flowing(self, path: str, offset: int, buffer: memoryview) -> Flow | None:
        """The answer that has filled the buffer; ``None`` where that has to be asked for."""
        coming, end = self._coming, offset + len(buffer)
        if path != coming.path or offset != coming.at or end > coming.end:
            return None
        coming.at = end
        flow = coming.flow
        if flow is None:
            tag = self._tags.get(path, "")
            flow = coming.flow = self._objects.flow(path, offset, coming.end - offset, tag)
            if flow is None:
                return None
        if flow.readinto(buffer):
            return flow
        self._drop()  # and what follows is asked for anew
        return None

    def _drop(self) -> None:
        flow, self._coming.flow = self._coming.flow, None
        if flow is not None:
            flow.close()


class PinnedObject(FlowingReader):
    """One version of an object; a long run of it comes by one request where the client can."""

    def __init__(self, objects: Objects, file: FileStat) -> None:
        self._source = ObjectSource(objects, "", {file.path: file.tag})
        self._path = file.path

    def expect(self, offset: int, size: int) -> bool:
        """See `FlowingReader.expect`."""
        return self._source.expect(self._path, offset, size)

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        return self._source.open(self._path).readinto(offset, buffer)


def missing(path: str) -> FileNotFoundError:
    """The error of an object that is not there."""
    return FileNotFoundError(errno.ENOENT, "No such file", path)


def one_line(text: str) -> str:
    """A server's or client's words without its XML, its debugging output and its line breaks."""
    text = text.partition("\n\nDebug source")[0]
    code = re.search(r"<Code>([^<]*)</Code>", text)
    message = re.search(r"<Message>([^<]*)</Message>", text)
    text = re.sub(r"<\?xml.*", "", text, flags=re.DOTALL) if code else text
    said = [found.group(1) for found in (code, message) if found and found.group(1)]
    return " ".join(f"{text} {': '.join(said)}".split())[:_LONGEST]
