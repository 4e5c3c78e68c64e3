"""Files on a web server, read only: ranges, each checked to be of the version first seen.

What a server serves statically from a local tier's folder or a keyed tier's is a tier to restore
from. HTTP has no listing: such a tier is asked for artifacts by their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime

from tieredstore.backend import FileReader, FileSource, FileStat, FoundHead, Readable
from tieredstore.backends.http.answer import PARTIAL, Answer, Version
from tieredstore.backends.http.client import Client
from tieredstore.backends.http.flow import FlowingHttpReader
from tieredstore.backends.http.reader import (
    HttpReader,
    HttpSource,
    check_length,
    look,
    whole_file,
)
from tieredstore.errors import ConfigError, ManifestError, Unsupported
from tieredstore.manifest.artifact import MAX_HEAD, RECORDS, Head
from tieredstore.mounted.marks import Marks
from tieredstore.pinned import Pinning


class HttpBackend(Readable, Pinning):
    """A folder on a web server.

    Parameters
    ----------
    url : str
        Such as ``https://host/datasets``. User info becomes an ``Authorization`` header; it and
        a query are never shown.
    headers : dict, optional
        Sent to this scheme, host and port only, wherever a redirect leads.
    timeout : float
        Seconds to wait for a connection, and for each next byte.
    retry_for : float
        Seconds within which a request that fails for the moment is tried again.
    """

    listable = False
    request = 4 << 20
    parallel = 8
    parallel_small = 16

    def __init__(
        self,
        url: str,
        headers: dict[str, str] | None = None,
        timeout: float = 20.0,
        retry_for: float = 25.0,
    ) -> None:
        for name, value in (("timeout", timeout), ("retry_for", retry_for)):
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name} is {value!r}, expected a positive number of seconds")
        self._client = Client(url, headers or {}, float(timeout), float(retry_for))
        self.place = self._client.place

    def stat(self, path: str) -> FileStat:
        """See `Readable.stat`; asked by HEAD, or by a range of one byte where that is refused."""
        found = look(self._client, path)
        assert found.size is not None
        mtime_ns = 0
        with suppress(ValueError, TypeError, OverflowError):
            mtime_ns = max(0, int(parsedate_to_datetime(found.modified).timestamp()) * 10**9)
        return FileStat(path, found.size, mtime_ns, 0o644, found.tag, found.digest)

    def open(self, path: str) -> FileReader:
        """See `Readable.open`."""
        return HttpReader(self._client, path, look(self._client, path))

    def open_pinned(self, file: FileStat) -> FileReader:
        """See `Pinning.open_pinned`; without a request, every answer is compared."""
        is_etag = file.tag.startswith(('"', "W/"))
        etag, modified = (file.tag, "") if is_etag else ("", file.tag)
        return FlowingHttpReader(self._client, file.path, Version(file.size, etag, modified))

    def takes_ranges(self, path: str) -> bool:
        """Whether the server answers a range of a file with that range alone."""
        one = {"Range": "bytes=0-0"}
        return self._client.ask("GET", path, one, lambda answer: answer.status == PARTIAL)

    def list(self, folder: str) -> Iterator[FileStat]:
        """See `Readable.list`; HTTP cannot.

        Raises
        ------
        Unsupported
            Always.
        """
        where = f"{self.place}/{folder}".rstrip("/")
        raise Unsupported(f"{where}: HTTP has no listing; ask for an artifact by its name")

    def folders(self, below: str = "") -> Iterator[str]:  # noqa: ARG002
        """See `Readable.folders`; none are found without a listing."""
        return iter(())

    def read(self, path: str, limit: int) -> bytes:
        """See `Readable.read`; one request."""

        def whole(answer: Answer) -> bytes:
            size = whole_file(answer).size
            if (size or 0) > limit:
                raise ManifestError(f"{answer.where}: larger than {limit} bytes")
            data = bytearray(min(limit, limit if size is None else size) + 1)
            got = answer.fill(memoryview(data))
            if got > limit:
                raise ManifestError(f"{answer.where}: larger than {limit} bytes")
            check_length(got, size)
            return bytes(data[:got])

        return self._client.ask("GET", path, {}, whole)

    def read_head(self, folder: str) -> FoundHead | None:
        """See `Readable.read_head`; also finds a single file's, as local tiers lay it."""
        for kind in ("folder", "file"):
            marks = Marks.of(folder, kind)
            path = _joined(marks.folder, marks.head)
            try:
                data = self.read(path, MAX_HEAD)
            except FileNotFoundError:
                continue
            if data.lstrip()[:1] == b"<":
                raise ManifestError(
                    f"{self.place}/{path}: a web page where a head was expected; "
                    "the server answers 200 for files that it does not have"
                )
            head = Head.parse(data, f"{self.place}/{path}")
            return FoundHead(head, head.generation, self._partial(marks, head))
        return None

    def _partial(self, marks: Marks, head: Head) -> bool:
        """Whether a local tier that is served has only some files; its mark is an empty file."""
        if head.data:
            return False
        try:
            return self.stat(_joined(marks.folder, marks.partial)).size == 0
        except FileNotFoundError:
            return False

    def data_path(self, folder: str, head: Head, file: str) -> str:
        """See `Readable.data_path`; a local tier's single file lies where its name says."""
        if head.kind == "folder" or head.data:
            return super().data_path(folder, head, file)
        marks = Marks.of(folder, "file")
        return _joined(marks.folder, marks.records if file == RECORDS else file)

    def source(self, folder: str, head: Head | None) -> FileSource:
        """See `Readable.source`: one version of each file, for as long as the source is used."""
        path_of = super().source(folder, head)._path_of  # noqa: SLF001
        return HttpSource(self, self._client, path_of)


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part)
