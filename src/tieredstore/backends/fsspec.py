"""Any place that fsspec has a protocol for, used like an object store.

Needs no rename: immutable generations and a small head. The first head of an artifact is created
exclusively where the file system can (``pipe_file(mode="create")``); a replacement compares the
head just before it is put, because fsspec has no conditional replace: of two that replace at the
same instant the last one wins, and either is whole.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from tieredstore.backend import ANY_HEAD, Expected, FileReader, FileStat, FileWriter
from tieredstore.errors import ConfigError, HeadConflict, InvalidName, TierUnavailable, reason
from tieredstore.keyed import KeyedBackend, check_expected
from tieredstore.manifest.artifact import MAX_HEAD

_SMALL = 8 << 20  # bytes; up to here a key is put in one call
_WHEN = ("LastModified", "last_modified", "mtime", "modified", "created")  # as file systems call it


class FsspecBackend(KeyedBackend):
    """A URL of any fsspec protocol.

    Parameters
    ----------
    url : str
        Such as ``memory://datasets`` or ``s3://bucket/prefix``.
    options : dict, optional
        Passed to the fsspec file system as keyword arguments (``endpoint_url``, ``key`` …).
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        protocol, found, rest = url.partition("://")
        if not found or protocol in {"", "file", "local"}:
            raise ConfigError(f'url {url!r}: use backend = "local" with path for a folder')
        self._url = url
        self._options = dict(options or {})
        self._opened: tuple[Any, str] | None = None
        host, slash, path = rest.partition("?")[0].rstrip("/").partition("/")
        self.place = f"{protocol}://{host.rpartition('@')[2]}{slash}{path}"
        self.remote = protocol != "memory"

    def _open_fs(self) -> tuple[Any, str]:
        """The file system and the root in it, made when first asked for.

        A hit never asks, so it loads no fsspec; and a place that cannot be reached, or whose
        client is not installed, is a tier that fails and not a store that cannot be opened.
        """
        if self._opened is None:
            import fsspec

            try:
                arguments = {"use_listings_cache": False, **self._options}
                fs, root = fsspec.core.url_to_fs(self._url, **arguments)
            except Exception as error:
                raise TierUnavailable(f"{self.place}: {reason(error)}") from error
            self._opened = fs, root.rstrip("/")
        return self._opened

    @property
    def _fs(self) -> Any:
        return self._open_fs()[0]

    @property
    def _root(self) -> str:
        return self._open_fs()[1]

    def _full(self, path: str) -> str:
        if "?versionId=" in path and self._url.startswith(("s3://", "s3a://")):
            raise InvalidName(f"{path!r}: s3fs takes '?versionId=' for the version of another key")
        return f"{self._root}/{path}" if path else self._root

    # -- Readable -------------------------------------------------------------------------------

    def stat(self, path: str) -> FileStat:
        """See `Readable.stat`."""
        info = self._call("info", self._full(path))
        if info.get("type") != "file":
            raise FileNotFoundError(errno.ENOENT, "No such file", path)
        return self._file_stat(path, info)

    def open(self, path: str) -> FileReader:
        """See `Readable.open`."""
        return _RangeReader(self, path)

    def list(self, folder: str) -> Iterator[FileStat]:
        """See `Readable.list`."""
        start = self._fs._strip_protocol(self._full(folder))  # noqa: SLF001
        try:
            found = self._call("find", start, detail=True)
        except FileNotFoundError:
            return
        cut = len(self._fs._strip_protocol(self._root).rstrip("/")) + 1  # noqa: SLF001
        for path, info in found.items():
            if path != start:  # a file of that name, where a folder was asked for
                yield self._file_stat(path[cut:], info)

    def _file_stat(self, path: str, info: dict[str, Any]) -> FileStat:
        tag = next((_text(info[k]) for k in ("ETag", "etag", "created", "mtime") if k in info), "")
        when = next((info[key] for key in _WHEN if info.get(key)), None)
        if isinstance(when, datetime):
            when = when.timestamp()
        mtime_ns = int(when * 1e9) if isinstance(when, int | float) else 0
        return FileStat(path, int(info["size"]), mtime_ns, 0o644, tag)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self.guarded(partial(getattr(self._fs, method), *args, **kwargs))

    def guarded(self, call: Callable[[], Any]) -> Any:
        """Call the client; whatever it raises becomes an `OSError` with one line."""
        try:
            return call()
        except (OSError, NotImplementedError):
            raise
        except Exception as error:
            raise TierUnavailable(f"{self.place}: {reason(error)}") from error

    # -- keyed ----------------------------------------------------------------------------------

    def writer(self, key: str, size: int) -> FileWriter:
        """See `KeyedBackend.writer`."""
        return _KeyWriter(self, key, size)

    def put(self, key: str, data: bytes, expected: Expected) -> None:
        """See `KeyedBackend.put`."""
        if expected is None:
            self._create(key, data)
            return
        if expected is not ANY_HEAD:
            check_expected(expected, self._there(key), f"{self.place}/{key}")
        self._write_small(key, data)

    def _create(self, key: str, data: bytes) -> None:
        if self._call("exists", self._full(key)):
            raise HeadConflict(f"{self.place}/{key}: was published meanwhile")
        try:
            self._call("pipe_file", self._full(key), data, mode="create")
        except FileExistsError:
            raise HeadConflict(f"{self.place}/{key}: was published meanwhile") from None
        except (NotImplementedError, FileNotFoundError):
            self._write_small(key, data)

    def _there(self, key: str) -> bytes | None:
        try:
            return self.read(key, MAX_HEAD)
        except FileNotFoundError:
            return None

    def _write_small(self, key: str, data: bytes) -> None:
        try:
            self._call("pipe_file", self._full(key), data)
        except FileNotFoundError:  # a place with real folders
            self._call("makedirs", self._full(key).rpartition("/")[0], exist_ok=True)
            self._call("pipe_file", self._full(key), data)

    def delete(self, key: str) -> None:
        """See `KeyedBackend.delete`."""
        with suppress(FileNotFoundError):
            self._call("rm_file", self._full(key))


def _text(value: object) -> str:
    """A tag as text: some file systems list a time as a number and tell it as a date."""
    return str(value.timestamp() if isinstance(value, datetime) else value)


class _RangeReader(FileReader):
    """Reads ranges, each a request of its own."""

    def __init__(self, backend: FsspecBackend, path: str) -> None:
        self._backend = backend
        self._path = path
        self._size = backend.stat(path).size

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        end = min(offset + len(buffer), self._size)
        if end <= offset:
            return 0
        full = self._backend._full(self._path)  # noqa: SLF001
        data = self._backend._call("cat_file", full, start=offset, end=end)  # noqa: SLF001
        if len(data) > end - offset:
            raise OSError(errno.EIO, f"{len(data)} bytes for a range of {end - offset}", self._path)
        buffer[: len(data)] = data
        return len(data)


class _KeyWriter(FileWriter):
    """A small key in one call, a large one through the file system's own buffered file."""

    def __init__(self, backend: FsspecBackend, key: str, size: int) -> None:
        self._backend = backend
        self._key = key
        self._parts: list[bytes] = []
        self._file: Any = None
        self._large = size > _SMALL

    def write(self, offset: int, data: memoryview) -> None:
        """See `FileWriter.write`."""
        del offset  # in order
        if not self._large:
            self._parts.append(bytes(data))
            return
        if self._file is None:
            full = self._backend._full(self._key)  # noqa: SLF001
            self._file = self._backend._call("open", full, "wb")  # noqa: SLF001
        self._backend.guarded(partial(self._file.write, data))

    def close(self) -> None:
        """See `FileWriter.close`."""
        if self._large and self._file is not None:
            self._backend.guarded(self._file.close)
        else:
            self._backend._write_small(self._key, b"".join(self._parts))  # noqa: SLF001

    def abort(self) -> None:
        """See `FileWriter.abort`."""
        if self._file is not None and not self._file.closed:
            with suppress(Exception):
                self._file.discard()
            self._file.closed = True
