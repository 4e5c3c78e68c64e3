"""The backend: what is read, written, renamed and deleted on an SFTP server.

Keyed publication. Every key is written under a temporary name below ``.tieredstore/part`` and
renamed when it is whole, so neither a partial upload nor a torn head is ever seen.
"""

from __future__ import annotations

import errno
import getpass
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from tieredstore.backend import Expected, FileReader, FileStat, FileWriter
from tieredstore.errors import ConfigError, ManifestError, TierUnavailable
from tieredstore.keyed import KeyedBackend, check_expected
from tieredstore.manifest.names import RESERVED
from tieredstore_sftp import steps
from tieredstore_sftp.connections import Connections, Server

_PARTS: Final = f"{RESERVED}/part"

_PORT: Final = 22

Secret = str | None
"""A text that no message shows, not even the one that says that it is no text."""


class SftpBackend(KeyedBackend):
    """A folder on an SFTP server.

    Parameters
    ----------
    url : str
        ``sftp://user@host:port/folder``; ``/~/folder`` lies below the user's home.
    key : str, optional
        Path of a private key. By default the SSH agent and the keys in ``~/.ssh`` are asked.
    password : str, optional
        The key's passphrase, or without ``key`` the user's password.
    known_hosts : str, optional
        The file that holds the server's host key; ``~/.ssh/known_hosts`` by default.
    accept_new : bool
        Write the host key of a server that is not known to ``known_hosts``. A key that differs
        from the known one is refused all the same.
    timeout : float
        Seconds that connecting, or one answer of the server, may take.

    Raises
    ------
    ConfigError
        When one of these cannot be used.
    """

    parallel = 4  # each is a connection of its own, and servers turn away more than ten newcomers
    parallel_small = 6
    request = 8 << 20

    def __init__(
        self,
        url: str,
        key: str | None = None,
        password: Secret = None,
        known_hosts: str | None = None,
        accept_new: bool = False,
        timeout: float = 15.0,
    ) -> None:
        if password is not None and not isinstance(password, str):
            raise ConfigError("password: expected text")
        if not timeout > 0:
            raise ConfigError(f"timeout is {timeout!r}, expected a positive number of seconds")
        user, host, port, folder = _parts_of(url)
        server = Server(
            host=host,
            port=port,
            user=user or getpass.getuser(),
            key=None if key is None else _absolute(key, "key"),
            password=password,
            known_hosts=_absolute(known_hosts or "~/.ssh/known_hosts", "known_hosts"),
            accept_new=accept_new,
            timeout=timeout,
        )
        where = f"[{host}]" if ":" in host else host
        self.place = f"sftp://{where}{f':{port}' if port != _PORT else ''}/{folder}"
        self._root = f".{folder[1:]}" if folder.split("/")[0] == "~" else f"/{folder}".rstrip("/")
        self._connections = Connections(server, self.place)

    def close(self) -> None:
        """End the connections that nobody uses right now; the next call makes a new one."""
        self._connections.close()

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root or "/"

    # -- Readable -------------------------------------------------------------------------------

    def stat(self, path: str) -> FileStat:
        """See `Readable.stat`."""
        info = self._connections.run(path, lambda sftp: sftp.lstat(self._full(path)))
        if not stat.S_ISREG(info.st_mode or 0):
            raise FileNotFoundError(errno.ENOENT, "No such file", path)
        return _file_stat(path, info)

    def open(self, path: str) -> FileReader:
        """See `Readable.open`."""
        return _Reader(self._connections, path, self._full(path), self.stat(path).size)

    def read(self, path: str, limit: int) -> bytes:
        """See `Readable.read`; from one open file, so that a replaced head is not torn."""
        data = self._connections.run(path, partial(steps.read_small, self._full(path), limit + 1))
        if len(data) > limit:
            raise ManifestError(f"{self.place}/{path}: larger than {limit} bytes")
        return data

    def list(self, folder: str) -> Iterator[FileStat]:
        """See `Readable.list`; links are not followed."""
        left = [folder]
        while left:
            here = left.pop()
            for info in self._entries(here):
                path = f"{here}/{info.filename}" if here else info.filename
                if "/" in info.filename:
                    raise TierUnavailable(f"{self.place}: the server lists a name with '/': {path}")
                if stat.S_ISDIR(info.st_mode or 0) and path != _PARTS:
                    left.append(path)
                elif stat.S_ISREG(info.st_mode or 0):
                    yield _file_stat(path, info)

    def _entries(self, folder: str) -> Any:
        try:
            return self._connections.run(folder, lambda sftp: sftp.listdir_attr(self._full(folder)))
        except FileNotFoundError:
            return []

    # -- keyed ----------------------------------------------------------------------------------

    def writer(self, key: str, size: int) -> FileWriter:
        """See `KeyedBackend.writer`."""
        return self._writer(key, size)

    def put(self, key: str, data: bytes, expected: Expected) -> None:
        """See `KeyedBackend.put`.

        The first head is created exclusively: SFTP's own rename refuses to replace. A replacement
        compares just before it renames over the old head; of two that replace at the same instant
        the last one wins, and either is whole.
        """
        writer = self._writer(key, len(data))
        try:
            writer.write(0, memoryview(data))
            if expected is None:
                writer.close_as_first(data)
                return
            found = None
            with suppress(FileNotFoundError):
                found = self.read(key, 1 << 16)
            check_expected(expected, found, f"{self.place}/{key}")
            writer.close()
        except BaseException:
            writer.abort()
            raise

    def _writer(self, key: str, size: int) -> _Writer:
        part = self._full(f"{_PARTS}/{uuid.uuid4().hex}")
        return _Writer(self._connections, key, (part, self._full(key)), size)

    def delete(self, key: str) -> None:
        """See `KeyedBackend.delete`; folders that become empty go too."""
        self._connections.run(key, partial(steps.delete, self._root, self._full(key)))


def _parts_of(url: str) -> tuple[str, str, int, str]:
    """User, host, port and folder of a URL; the URL itself stands in no message."""
    scheme, found, rest = url.partition("://")
    place, _, folder = rest.partition("/")
    try:
        split = urlsplit(f"//{place}")
        host, port = split.hostname, split.port or _PORT
    except ValueError:
        host, port = None, 0
    if scheme != "sftp" or not found or not host or "\0" in folder:
        raise ConfigError("url: expected sftp://user@host:port/folder")
    if split.password is not None:
        raise ConfigError("url holds a password; expected it under the key password")
    return split.username or "", host, port, folder.strip("/")


def _absolute(path: str, key: str) -> str:
    full = os.path.expanduser(path)
    if not os.path.isabs(full) or "\0" in full:
        raise ConfigError(f"{key} is {path!r}, expected an absolute path or one that begins with ~")
    return full


def _file_stat(path: str, info: Any) -> FileStat:
    size, seconds = int(info.st_size or 0), int(info.st_mtime or 0)
    mode = stat.S_IMODE(info.st_mode or 0)
    return FileStat(path, size, seconds * 1_000_000_000, mode, f"{seconds}-{size}")


class _Reader(FileReader):
    """Reads ranges, each with a connection of its own."""

    def __init__(self, connections: Connections, path: str, full: str, size: int) -> None:
        self._connections = connections
        self._path = path
        self._full = full
        self._size = size

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        wanted = buffer[: max(0, self._size - offset)]
        if not wanted:
            return 0
        return self._connections.run(
            self._path, partial(steps.read_range, self._full, offset, wanted)
        )


class _Writer(FileWriter):
    """A key under a temporary name, until it is whole."""

    def __init__(
        self, connections: Connections, key: str, part_and_full: tuple[str, str], size: int
    ) -> None:
        self._connections = connections
        self._key = key
        self._part, self._full = part_and_full
        self._size = size
        self._written = 0

    def write(self, offset: int, data: memoryview) -> None:
        """See `FileWriter.write`."""
        last = offset + len(data) == self._size
        call = partial(steps.write_range, self._part, offset, data, last)
        self._connections.run(self._key, call)
        self._written = offset + len(data)

    def close(self) -> None:
        """See `FileWriter.close`."""
        if not self._size:
            self.write(0, memoryview(b""))
        if self._written != self._size:
            raise OSError(errno.EIO, f"{self._written} bytes written of {self._size}", self._key)
        self._connections.run(self._key, partial(steps.replace, self._part, self._full, self._size))

    def close_as_first(self, data: bytes) -> None:
        """Like `close`, but only where there is no such key; `HeadConflict` where there is one."""
        self._connections.run(self._key, partial(steps.create, self._part, self._full, data))
        with suppress(OSError):  # a server that died between link and unlink has left it
            self._connections.run(self._key, lambda sftp: sftp.remove(self._part))

    def abort(self) -> None:
        """See `FileWriter.abort`."""
        with suppress(OSError):
            self._connections.run(self._key, lambda sftp: sftp.remove(self._part))
