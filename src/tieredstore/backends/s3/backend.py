"""S3 and whatever speaks its protocol: fresh keys for each generation, a head put conditionally.

Objects go by requests of our own (``direct.py``), and where those do not do by obstore, or botocore
where that is missing; large files in parts that several threads send. See ``access.py`` for
credentials, ``heads.py`` for conditions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import ClassVar, Final
from urllib.parse import urlsplit

from tieredstore.backend import (
    ANY_HEAD,
    Composable,
    Expected,
    FileReader,
    FileSource,
    FileStat,
    FileWriter,
    Leasable,
    OnWait,
    Segment,
    Staging,
    Surrounded,
)
from tieredstore.backends.s3 import litter as s3_litter
from tieredstore.backends.s3.access import Access, preset_of
from tieredstore.backends.s3.bucket import Bucket
from tieredstore.backends.s3.compose import Composition
from tieredstore.backends.s3.direct import Direct
from tieredstore.backends.s3.heads import NEVER, Heads
from tieredstore.backends.s3.lease import LeaseObject, S3Lease, note_path
from tieredstore.backends.s3.objects import Lost, ObjectReader, Objects, ObjectSource, PinnedObject
from tieredstore.backends.s3.upload import PartsWriter, SmallWriter, Uploads, piece
from tieredstore.errors import ConfigError, HeadConflict, TierUnavailable
from tieredstore.keyed import KeyedBackend, KeyedStaging, check_expected
from tieredstore.leases import LEASE_LENGTH
from tieredstore.litter import Litter
from tieredstore.manifest.artifact import MAX_HEAD, Head
from tieredstore.manifest.records import FileRecord
from tieredstore.notes import MAX_NOTE
from tieredstore.pinned import Pinning
from tieredstore.recordable import MAX_VALUE, Versioned
from tieredstore.workers import together

_POLL: Final = 0.5  # seconds between two looks at a server whose answers lag behind


class S3Backend(KeyedBackend, Leasable, Pinning, Surrounded):
    """A prefix of an S3 bucket.

    Parameters
    ----------
    url : str
        ``s3://bucket`` or ``s3://bucket/prefix``.
    endpoint_url : str, optional
        Of a server other than Amazon's.
    region, profile : str, optional
        By default what the AWS chain says.
    anon : bool
        Requests are not signed: for public buckets.
    preset : str, optional
        ``runpod`` for RunPod's door to a network volume; known by its endpoint otherwise.
    """

    request = 8 << 20
    parallel = 8
    parallel_small = 128
    lease_length: ClassVar[float] = LEASE_LENGTH

    def __init__(
        self,
        url: str,
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        anon: bool = False,
        preset: str | None = None,
    ) -> None:
        bucket, prefix = _parse(url)
        if endpoint_url is not None and urlsplit(endpoint_url).scheme not in {"http", "https"}:
            raise ConfigError(f"endpoint_url is {endpoint_url!r}, expected http(s)://host[:port]")
        self.access = Access(bucket, endpoint_url, region, profile, preset_of(preset, endpoint_url))
        self.access.anon = anon
        self.lagging = self.access.preset.lagging
        self.prefix = prefix
        self._opened: tuple[Objects, Heads, Uploads] | None = None
        self._opening = threading.Lock()
        self.place = f"s3://{bucket}" + (f"/{prefix}" if prefix else "")

    def _open(self) -> tuple[Objects, Heads, Uploads]:
        """The clients, made when first asked for: a hit loads none of them."""
        with self._opening:  # several threads may ask at first
            if self._opened is None:
                self.access.environment = self.environment
                objects = self.client()
                self._opened = objects, Heads(objects), Uploads(self.access, objects)
            return self._opened

    def client(self) -> Objects:
        """A client of the bucket: requests of our own where they do, and `other` behind them.

        Raises
        ------
        TierUnavailable
            When botocore is not installed.
        """
        from importlib.util import find_spec

        if find_spec("botocore") is None:
            raise TierUnavailable(
                f"{self.place}: botocore is not installed; pip install 'tieredstore[s3]'"
            )
        bucket = Bucket.direct(self.access)
        if bucket is None:
            return self.other()
        return Direct(self.access, self.prefix, bucket, self.other)

    def other(self) -> Objects:
        """Whole clients: obstore where it is installed, else botocore."""
        from importlib.util import find_spec

        if find_spec("obstore") is None:
            from tieredstore.backends.s3.botocore import Botocore

            return Botocore(self.access, self.prefix)
        from tieredstore.backends.s3.obstore import Obstore

        return Obstore(self.access, self.prefix)

    @property
    def objects(self) -> Objects:
        """Its objects, one by one."""
        return self._open()[0]

    @property
    def heads(self) -> Heads:
        """Its small objects that change."""
        return self._open()[1]

    @property
    def uploads(self) -> Uploads:
        """Its multipart uploads."""
        return self._open()[2]

    # -- Readable -------------------------------------------------------------------------------

    def stat(self, path: str) -> FileStat:
        """See `Readable.stat`."""
        return self.objects.stat(path)

    def open(self, path: str) -> FileReader:
        """See `Readable.open`."""
        return ObjectReader(self.objects, path, {path: self.objects.stat(path).tag})

    def open_pinned(self, file: FileStat) -> FileReader:
        """See `Pinning.open_pinned`."""
        return PinnedObject(self.objects, file)

    def list(self, folder: str) -> Iterator[FileStat]:
        """See `Readable.list`."""
        return self.objects.list(folder)

    def read(self, path: str, limit: int) -> bytes:
        """See `Readable.read`."""
        return self.objects.get(path, limit)[0]

    def source(self, folder: str, head: Head | None) -> FileSource:
        """See `Readable.source`."""
        data = "" if head is None else head.data
        return ObjectSource(self.objects, "/".join(part for part in (folder, data) if part))

    def lease(
        self, key: str, timeout: float | None, on_wait: OnWait
    ) -> AbstractContextManager[None]:
        """See `Leasable.lease`."""
        lease = LeaseObject(self.objects, self.heads, key)
        return S3Lease(lease, self.lease_length, timeout, on_wait)

    def read_note(self, key: str) -> bytes:
        """See `Leasable.read_note`."""
        found = self.heads.now(note_path(key), MAX_NOTE)
        return b"" if found is None else found[0]

    def write_note(self, key: str, note: bytes) -> None:
        """See `Leasable.write_note`."""
        if note:
            self.objects.put(note_path(key), note)
        else:
            self.objects.delete([note_path(key)])

    # -- keyed ----------------------------------------------------------------------------------

    def begin(self, folder: str, head: Head) -> Staging:
        """See `Publishable.begin`."""
        return S3Staging(self, folder, head.generation)

    def writer(self, key: str, size: int) -> FileWriter:
        """See `KeyedBackend.writer`."""
        return SmallWriter(self.objects, key, size)

    def put(self, key: str, data: bytes, expected: Expected) -> None:
        """See `KeyedBackend.put`."""
        if expected is ANY_HEAD:
            self.objects.put(key, data)
        else:
            where = f"{self.place}/{key}"
            try:
                found = self.objects.get(key, MAX_HEAD)
            except FileNotFoundError:
                found = None
            check_expected(expected, None if found is None else found[0], where)
            try:
                self.heads.put(key, data, found)
            except Lost:
                raise HeadConflict(f"{where}: was published meanwhile") from None
        self._wait_until_seen(key, data)

    def read_record(self, path: str) -> Versioned | None:
        """See `Recordable.read_record`; the version is the ETag."""
        try:
            return Versioned(*self.objects.get(path, MAX_VALUE))
        except FileNotFoundError:
            return None

    def swap_record(self, path: str, data: bytes, version: str | None) -> None:
        """See `Recordable.swap_record`."""
        if version is not None and self.heads.conditions().replace == NEVER:
            there = self.read_record(path)
            if there is None or there.version != version:
                raise HeadConflict(f"{self.place}/{path}: was changed meanwhile")
        try:
            self.heads.put(path, data, None if version is None else (b"", version))
        except Lost:
            raise HeadConflict(f"{self.place}/{path}: was changed meanwhile") from None
        self._wait_until_seen(path, data)

    def _wait_until_seen(self, key: str, data: bytes) -> None:
        """Some servers deny for a while what they have just taken."""
        until = time.monotonic() + self.lagging
        while time.monotonic() < until and not self._holds(key, data):
            time.sleep(_POLL)

    def _holds(self, key: str, data: bytes) -> bool:
        found = self.heads.now(key, MAX_VALUE)
        return found is not None and found[0] == data

    def wait_until_shown(self, key: str, until: float) -> None:
        """Wait for a key that has been written, at most until then by the monotonic clock.

        Raises
        ------
        TierUnavailable
            When it is still not shown then.
        """
        while not self.has(key):
            if time.monotonic() >= until:
                raise TierUnavailable(
                    f"{self.place}/{key}: was written, and is not shown after {self.lagging:g} s"
                )
            time.sleep(_POLL)

    def litter(self, grace: float) -> Iterator[Litter]:
        """See `Collectable.litter`: what was never published, and uploads that were never ended.

        Nothing of a generation that a large file is still being sent to.
        """
        before = self.clock() - grace
        begun = list(s3_litter.begun(self.uploads, before))
        busy = tuple(upload.path for upload in begun if upload.since >= before)
        for found in super().litter(grace):
            if not any(path.startswith(f"{found.path}/") for path in busy):
                yield found
        yield from (upload.litter for upload in begun if upload.since < before)

    def drop(self, litter: Litter) -> int | None:
        """See `Collectable.drop`."""
        if litter.what == s3_litter.UPLOAD:
            return s3_litter.end(self.uploads, litter)
        return super().drop(litter)

    def delete(self, key: str) -> None:
        """See `KeyedBackend.delete`."""
        self.objects.delete([key])

    def delete_all(self, keys: Sequence[str]) -> None:
        """See `KeyedBackend.delete_all`."""
        self.objects.delete(keys)


class S3Staging(KeyedStaging, Composable):
    """Keys below the generation, large ones in parts."""

    parallel = 8
    parallel_small = 64

    def __init__(self, backend: S3Backend, folder: str, generation: str) -> None:
        super().__init__(backend, folder, generation)
        self._s3 = backend

    def piece(self, size: int) -> int:
        """See `Staging.piece`."""
        return piece(size)

    def create(self, file: FileRecord) -> FileWriter:
        """See `Staging.create`."""
        key = self.rely(file)
        if file.size <= piece(file.size):
            return SmallWriter(self._s3.objects, key, file.size)
        return PartsWriter(self._s3.uploads, key, file)

    def compose(self, file: FileRecord, segments: Sequence[Segment]) -> None:
        """See `Composable.compose`."""
        key = self.rely(file)
        Composition(self._s3.access, self._s3.uploads, key, file).run(segments)

    def settle(self, keys: Sequence[str]) -> None:
        """See `KeyedStaging.settle`.

        Raises
        ------
        TierUnavailable
            When one is not shown in time.
        """
        if self._s3.lagging:
            until = time.monotonic() + self._s3.lagging
            together([partial(self._s3.wait_until_shown, key, until) for key in keys], 32)

    def discard(self) -> None:
        """See `Staging.discard`; unfinished uploads too."""
        super().discard()
        for upload in list(self._s3.uploads.below(self._key(""))):
            path = self._s3.objects.path(upload["Key"])
            self._s3.uploads.ask("abort_multipart_upload", path, UploadId=upload["UploadId"])


def _parse(url: str) -> tuple[str, str]:
    scheme, found, rest = url.partition("://")
    bucket, _, prefix = rest.strip("/").partition("/")
    if not found or scheme not in {"s3", "s3a"} or not bucket:
        raise ConfigError(f"url is {url!r}, expected s3://bucket or s3://bucket/prefix")
    return bucket, prefix.strip("/")
