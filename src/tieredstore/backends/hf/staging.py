"""Publication on the Hub: files are sent as they are closed, and one commit shows them all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tieredstore.backend import Expected, FileWriter, Staging
from tieredstore.backends.hf.api import HubApi
from tieredstore.backends.hf.commit import Folder
from tieredstore.backends.hf.large import Spooled
from tieredstore.backends.hf.repo import Limits
from tieredstore.backends.hf.spool import Spool
from tieredstore.backends.hf.upload import PARALLEL, Uploads
from tieredstore.manifest.artifact import HEAD, RECORDS, Head
from tieredstore.manifest.records import FileRecord, Records


class HubStaging(Staging):
    """Large objects that no commit names yet, and ordinary files in memory.

    Nothing is known of an earlier attempt before a file's digest is: every file is read again,
    and the Hub then says which it has.
    """

    any_order = False
    resumes = False
    parallel = PARALLEL
    parallel_small = 8

    def __init__(self, api: HubApi, folder: Folder, path: str, limits: Limits) -> None:
        self._api = api
        self._folder = folder
        self._path = path
        self._limits = limits
        self._uploads = Uploads(api)
        self._begun: set[str] = set()

    def create(self, file: FileRecord) -> FileWriter:
        """See `Staging.create`.

        Raises
        ------
        InvalidName, Unsupported
            For what the Hub cannot keep.
        """
        self._limits.check_file(file.path, file.size)
        self._begun.add(file.path)
        return _HubWriter(self._uploads, self._at(file.path), file.size)

    def publish(self, head: Head, records: Records, expected: Expected) -> None:
        """See `Staging.publish`."""
        for name, data in (
            (RECORDS, records.emit()),
            (HEAD, replace(head, data="").emit()),
        ):
            spool = Spool(len(data))
            spool.write(memoryview(data))
            self._uploads.add(Spooled(self._at(name), spool))
        additions = self._uploads.finish()
        names: Iterable[str] = records.files if head.shards is None else self._begun
        self._folder.publish(head, names, additions, expected)

    def discard(self) -> None:
        """See `Staging.discard`; large objects that no commit names are the Hub's to collect."""
        self._uploads.drop()

    def _at(self, file: str) -> str:
        return self._api.repo.path(f"{self._path}/{file}")


class _HubWriter(FileWriter):
    def __init__(self, uploads: Uploads, path: str, size: int) -> None:
        self._uploads = uploads
        self._path = path
        self._spool = Spool(size)

    def write(self, offset: int, data: memoryview) -> None:
        """See `FileWriter.write`."""
        del offset  # in order
        self._uploads.hold_up(self._spool)
        self._spool.write(data)

    def close(self) -> None:
        """See `FileWriter.close`: the file is sent, a small one with others."""
        self._uploads.add(Spooled(self._path, self._spool))

    def abort(self) -> None:
        """See `FileWriter.abort`."""
        self._spool.close()
