"""The smallest backend that passes the contract: artifacts in one SQLite file.

A template to copy. It says how bytes under a key are read, written, put on a condition and
deleted; generations, heads, staging and verification are `KeyedBackend`'s.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

from tieredstore.backend import Expected, FileReader, FileStat, FileWriter
from tieredstore.errors import TierUnavailable, reason
from tieredstore.keyed import KeyedBackend, check_expected

__all__ = ["SqliteBackend"]

# A key names a blob by its token; the blob's parts are there before any key names it.
_TABLES = """
CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, size INTEGER, token TEXT) STRICT;
CREATE TABLE IF NOT EXISTS parts
    (token TEXT, start INTEGER, data BLOB, PRIMARY KEY (token, start)) STRICT;
"""
_BELOW = "SELECT key, size, token FROM keys WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key"
_PARTS = (
    "SELECT start, data FROM parts"
    " WHERE token = ? AND start < ? AND start + length(data) > ? ORDER BY start"
)


class SqliteBackend(KeyedBackend):
    """Artifacts in one file.

    Parameters
    ----------
    path : str
        The file; made when something is first published. Each parameter is a key of the tier's
        table in the configuration, and ``path`` is taken relative to that file.
    """

    remote = False
    parallel = 4
    parallel_small = 1
    request = 4 << 20

    def __init__(self, path: str) -> None:
        self.place = path

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """A transaction of this thread's own; what SQLite raises becomes an `OSError`."""
        try:
            with closing(sqlite3.connect(self.place, timeout=10, isolation_level=None)) as database:
                database.executescript(_TABLES)
                database.execute("BEGIN IMMEDIATE")
                with database:
                    yield database
        except sqlite3.Error as error:
            raise TierUnavailable(f"{self.place}: {reason(error)}") from error

    def rows(self, query: str, *values: object) -> list[tuple[str, int, str]]:
        """What a query gives; nothing where there is no file yet, and none is made."""
        if not os.path.lexists(self.place):
            return []
        with self.connected() as database:
            return database.execute(query, values).fetchall()

    # -- Readable -------------------------------------------------------------------------------

    def stat(self, path: str) -> FileStat:
        """See `Readable.stat`."""
        for key, size, token in self.rows("SELECT key, size, token FROM keys WHERE key = ?", path):
            return FileStat(key, size, tag=token)
        raise FileNotFoundError(2, "No such key", f"{self.place}/{path}")

    def open(self, path: str) -> FileReader:
        """See `Readable.open`."""
        return _Reader(self, self.stat(path))

    def list(self, folder: str) -> Iterator[FileStat]:
        """See `Readable.list`."""
        for key, size, token in self.rows(_BELOW, f"{folder}/" if folder else ""):
            yield FileStat(key, size, tag=token)

    # -- keyed ----------------------------------------------------------------------------------

    def writer(self, key: str, size: int) -> FileWriter:
        """See `KeyedBackend.writer`."""
        return _Writer(self, key, size)

    def put(self, key: str, data: bytes, expected: Expected) -> None:
        """See `KeyedBackend.put`: compared and put in one transaction, so that one wins."""
        token = uuid.uuid4().hex
        with self.connected() as database:
            found = database.execute(
                "SELECT data FROM keys JOIN parts USING (token) WHERE key = ?", (key,)
            ).fetchone()
            check_expected(expected, found[0] if found else None, f"{self.place}/{key}")
            database.execute("INSERT INTO parts VALUES (?, 0, ?)", (token, data))
            point(database, key, len(data), token)

    def delete(self, key: str) -> None:
        """See `KeyedBackend.delete`."""
        with self.connected() as database:
            forget(database, key)


def point(database: sqlite3.Connection, key: str, size: int, token: str) -> None:
    """Let a key name another blob."""
    forget(database, key)
    database.execute("INSERT INTO keys VALUES (?, ?, ?)", (key, size, token))


def forget(database: sqlite3.Connection, key: str) -> None:
    """Drop a key and its blob."""
    for row in database.execute(
        "DELETE FROM keys WHERE key = ? RETURNING token", (key,)
    ).fetchall():
        database.execute("DELETE FROM parts WHERE token = ?", row)


class _Reader(FileReader):
    """One blob, read by position."""

    def __init__(self, backend: SqliteBackend, blob: FileStat) -> None:
        self._backend = backend
        self._blob = blob

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        end = min(offset + len(buffer), self._blob.size)
        got = 0
        with self._backend.connected() as database:
            for start, data in database.execute(_PARTS, (self._blob.tag, end, offset)):
                piece = data[max(0, offset - start) : end - start]
                buffer[got : got + len(piece)] = piece
                got += len(piece)
        return got


class _Writer(FileWriter):
    """A blob that no key names before it is whole."""

    def __init__(self, backend: SqliteBackend, key: str, size: int) -> None:
        self._backend = backend
        self._key = key
        self._size = size
        self._token = uuid.uuid4().hex

    def write(self, offset: int, data: memoryview) -> None:
        """See `FileWriter.write`."""
        with self._backend.connected() as database:
            row = (self._token, offset, bytes(data))
            database.execute("INSERT INTO parts VALUES (?, ?, ?)", row)

    def close(self) -> None:
        """See `FileWriter.close`."""
        with self._backend.connected() as database:
            point(database, self._key, self._size, self._token)

    def abort(self) -> None:
        """See `FileWriter.abort`."""
        with self._backend.connected() as database:
            database.execute("DELETE FROM parts WHERE token = ?", (self._token,))
