"""Reading files of one revision: whole, or by ranges that go on where they broke off."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tieredstore.backend import FileReader, FileSource, Readable
from tieredstore.backends.hf.answer import Answer
from tieredstore.backends.hf.client import HubClient, Request
from tieredstore.backends.hf.repo import Repo
from tieredstore.backends.http.answer import BrokenAnswer
from tieredstore.errors import ArtifactChanged, CorruptData, ManifestError, TierUnavailable

_SHA256: Final = 64  # hexadecimal digits
_SHA1: Final = 40


@dataclass(frozen=True, slots=True)
class Found:
    """What the Hub says of one file: its size, its digest, the commit it was found at."""

    size: int
    etag: str
    commit: str


class Files:
    """The files of a repository.

    Parameters
    ----------
    client : HubClient
        Sends the requests.
    repo : Repo
        The repository; paths are below its folder.
    """

    def __init__(self, client: HubClient, repo: Repo) -> None:
        self.client = client
        self.repo = repo

    def request(self, method: str, path: str, revision: str, **headers: str) -> Request:
        """A request for a file's bytes."""
        where = f"{self.repo.place}/{path}"
        leave = method != "HEAD"
        return Request(method, self.repo.resolve(revision, path), where, headers, leave=leave)

    def look(self, path: str, revision: str) -> Found:
        """Size, digest and commit of a file; `FileNotFoundError` where there is none."""

        def found(answer: Answer) -> Found:
            if answer.size is None:
                raise TierUnavailable(f"{answer.where}: the Hub does not say how long it is")
            return Found(answer.size, answer.etag, answer.commit)

        return self.client.ask(self.request("HEAD", path, revision), found)

    def read(self, path: str, revision: str, limit: int) -> tuple[bytes, str]:
        """All of a small file, compared with the digest that the Hub has, and its commit.

        Raises
        ------
        ManifestError
            When it is larger than ``limit`` bytes.
        CorruptData
            When the bytes are not those that were committed.
        """

        def whole(answer: Answer) -> tuple[bytes, str]:
            data = _all(answer, limit)
            InOrder(len(data), answer.etag, answer.where).add(0, memoryview(data))
            return data, answer.commit

        return self.client.ask(self.request("GET", path, revision), whole)

    def raw(self, path: str, revision: str, limit: int) -> bytes:
        """All of a small file as it is served, damaged or not; see `read`."""
        request = self.request("GET", path, revision)
        return self.client.ask(request, lambda answer: _all(answer, limit))


def _all(answer: Answer, limit: int) -> bytes:
    data = bytearray()
    if (answer.size or 0) <= limit:
        for piece in answer.pieces():
            data += piece
            if len(data) > limit:
                break
    if (answer.size or 0) > limit or len(data) > limit:
        raise ManifestError(f"{answer.where}: larger than {limit} bytes")
    if answer.size is not None and len(data) < answer.size:
        raise BrokenAnswer(f"the answer ended after {len(data)} of {answer.size} bytes")
    return bytes(data)


def digest_of(etag: str) -> str:
    """The digest that the Hub names a file by, see `FileStat`."""
    kind = {_SHA256: "sha256", _SHA1: "git"}.get(len(etag), "")
    return f"{kind}:{etag}" if kind and all(c in "0123456789abcdef" for c in etag) else ""


class InOrder:
    """Compares a file with its digest when it is read from its beginning to its end.

    Ranges that come in another order end the comparison: whoever reads so has digests of blocks.
    """

    def __init__(self, size: int, etag: str, where: str) -> None:
        self._size, self._etag, self._where = size, etag, where
        self._at = 0
        self._lock = threading.Lock()
        self._sum = None
        if len(etag) == _SHA256:
            self._sum = hashlib.sha256()
        elif len(etag) == _SHA1:  # git's blob id
            self._sum = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    def add(self, offset: int, data: memoryview) -> None:
        """Take the next bytes.

        Raises
        ------
        CorruptData
            When the file has come to its end and is another.
        """
        with self._lock:
            if self._sum is None or offset != self._at:
                self._sum = None
                return
            self._sum.update(data)
            self._at += len(data)
            if self._at == self._size and self._sum.hexdigest() != self._etag:
                raise CorruptData(f"{self._where}: differs from the digest that the Hub has of it")


class HubReader(FileReader):
    """Reads ranges of one file at one revision.

    Without `Found` the first answer says the size, and only blocks vouch for the bytes.
    """

    def __init__(self, files: Files, path: str, revision: str, found: Found | None = None) -> None:
        self._files = files
        self._path = path
        self._revision = revision
        self._size = None if found is None else found.size
        self._check: InOrder | None = None
        if found is not None:
            where = f"{files.repo.place}/{path}"
            self._check = InOrder(found.size, found.etag, where)

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        view = buffer if self._size is None else buffer[: max(0, self._size - offset)]
        if not len(view):
            return 0
        fetch = _Range(self._files, self._path, self._revision, offset, view)
        got = fetch.run()
        if self._size is not None and fetch.size != self._size:
            raise ArtifactChanged(
                f"{self._files.repo.place}/{self._path}: {self._size} bytes before, "
                f"{fetch.size} now"
            )
        if self._check is not None:
            self._check.add(offset, view[:got])
        return got


class _Range:
    """One range being read; what has come stays when the connection breaks.

    Attributes
    ----------
    size : int
        Bytes of the whole file, as the answers say.
    """

    def __init__(
        self, files: Files, path: str, revision: str, offset: int, view: memoryview
    ) -> None:
        self._files, self._path, self._revision = files, path, revision
        self._offset, self._view = offset, view
        self._at = 0
        self.size = -1

    def run(self) -> int:
        client = self._files.client
        where = f"{self._files.repo.place}/{self._path}"
        return client.again(where, self._once, lambda: self._at)

    def _once(self, timeout: float) -> int:
        start, end = self._offset + self._at, self._offset + len(self._view)
        if start == end:
            return self._at  # the connection broke after the last byte
        headers = {"Range": f"bytes={start}-{end - 1}"}
        request = self._files.request("GET", self._path, self._revision, **headers)
        with self._files.client.send(request, timeout) as answer:
            answer.check()
            end = min(end, self._begin(answer, start, end))
            for piece in answer.pieces():
                if self._at + len(piece) > end - self._offset:
                    raise TierUnavailable(f"{answer.where}: more bytes than were asked for")
                self._view[self._at : self._at + len(piece)] = piece
                self._at += len(piece)
        if self._offset + self._at < end:
            raise BrokenAnswer(f"the answer ended {end - self._offset - self._at} bytes early")
        return self._at

    def _begin(self, answer: Answer, start: int, end: int) -> int:
        """Check that an answer is the range asked for; the byte after its last."""
        given = answer.range()
        if answer.status == 416 and given is not None and given[2] <= start:  # noqa: PLR2004
            self.size = given[2]
            for _ in answer.pieces():
                pass
            return start
        if answer.status == 200 and start == 0:  # noqa: PLR2004 - the whole file
            size = answer.size
            if size is not None and size <= end:
                self.size = size
                return size
        wanted = None if given is None else (start, min(end, given[2]), given[2])
        if answer.status != 206 or given != wanted:  # noqa: PLR2004 - partial content
            said = answer.header("Content-Range")[:60] or f"{answer.status} without a range"
            raise TierUnavailable(
                f"{answer.where}: bytes {start} to {end} were asked for, the answer says {said!r}"
            )
        assert given is not None
        self.size = given[2]
        return given[1]


class HubSource(FileSource):
    """The files of one generation, all read at one revision, without a look at each first."""

    def __init__(
        self, backend: Readable, files: Files, revision: str, path_of: Callable[[str], str]
    ) -> None:
        super().__init__(backend, path_of)
        self._files = files
        self._revision = revision

    def open(self, file: str) -> FileReader:
        """See `FileSource.open`; a file that is gone is noticed by the first read."""
        return HubReader(self._files, self._path_of(file), self._revision)
