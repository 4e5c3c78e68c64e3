"""Files written to a bucket in parts: in any order, from several threads, gone on with later.

Parts go straight from the caller's memory to the server (botocore would hold each twice), signed
together with their digest. What a killed upload has left is found again by its key: a part whose
size and MD5 (S3's ETag of an unencrypted part) are those of the bytes at hand is not sent again.
Limits are those of the S3 API reference: 10,000 parts of 5 MiB to 5 GiB.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from tieredstore.backend import FileStat, FileWriter
from tieredstore.backends.s3.access import Access
from tieredstore.backends.s3.botocore import boto
from tieredstore.backends.s3.bucket import Bucket
from tieredstore.backends.s3.listing import xml
from tieredstore.backends.s3.objects import Objects, one_line
from tieredstore.backends.s3.wire import NoAnswer
from tieredstore.errors import TieredStoreError, TierUnavailable, reason
from tieredstore.manifest.records import FileRecord, groups

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

PIECE: Final = 16 << 20  # bytes of a part
MOST_PARTS: Final = 9_000
_MIB: Final = 1 << 20
_TRIES: Final = 7  # of a part; pauses of 16 s in all, in which a server may be started again
_RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})
_GONE: Final = 404
_OK: Final = 200
_SAID: Final = 1 << 14  # bytes of an error's text that are read
_POLL: Final = 0.5  # seconds between two looks at a server that is late


def piece(size: int) -> int:
    """Bytes of the parts of a file of ``size`` bytes."""
    return max(PIECE, -(-size // MOST_PARTS // _MIB) * _MIB)


class UploadGone(TierUnavailable):
    """The upload has been ended by somebody else, whole or not."""


class Uploads:
    """The multipart uploads below one prefix of a bucket."""

    def __init__(self, access: Access, objects: Objects) -> None:
        self._access = access
        self.objects = objects
        self.patience = access.preset.completing

    def ask(self, operation: str, path: str, **parameters: Any) -> Any:
        """One request about the object at ``path``, by botocore."""
        call = getattr(self._access.client(), operation)
        where = f"{self.objects.place}/{path}"
        key = {"Key": self.objects.key(path)}
        try:
            return boto(call, where, Bucket=self._access.bucket, **key, **parameters)
        except FileNotFoundError:
            raise UploadGone(f"{where}: its upload has been ended by somebody else") from None

    def begun(self, path: str) -> str | None:
        """The last upload to ``path`` that was begun and never ended."""
        key = self.objects.key(path)
        query = f"prefix={quote(key, safe='')}&uploads="
        root = self._root("GET", "", query, "ListMultipartUploadsResult")
        if root is not None and _shows_none(root):
            return None  # as nearly always; what botocore takes to load is spared
        found = [u for u in self.below(path) if u["Key"] == key]
        newest = max(found, key=lambda u: u["Initiated"], default=None)
        return None if newest is None else str(newest["UploadId"])

    def create(self, path: str) -> str:
        """Begin an upload and give its name."""
        root = self._root(
            "POST", self.objects.key(path), "uploads=", "InitiateMultipartUploadResult"
        )
        found = "" if root is None else root.findtext("{*}UploadId", "")
        return found or str(self.ask("create_multipart_upload", path)["UploadId"])

    def below(self, path: str) -> Iterator[dict[str, Any]]:
        """All uploads to keys that begin so, as the server lists them."""
        call = self._access.client().list_multipart_uploads
        asked = {"Bucket": self._access.bucket, "Prefix": self.objects.key(path)}
        while True:
            found = boto(call, f"{self.objects.place}/{path}", **asked)
            yield from found.get("Uploads", [])
            if not found.get("IsTruncated"):
                return
            asked["KeyMarker"] = found["NextKeyMarker"]
            asked["UploadIdMarker"] = found.get("NextUploadIdMarker", "")

    def parts(self, path: str, upload: str) -> dict[int, tuple[int, str]]:
        """Size and ETag of each part that the server has, by number."""
        return {
            part["PartNumber"]: (part["Size"], part["ETag"]) for part in self._parts(path, upload)
        }

    def sent(self, path: str, upload: str) -> tuple[int, float]:
        """Bytes of all parts that the server has, and when it got the last one (0: none)."""
        parts = list(self._parts(path, upload))
        newest = max((part["LastModified"].timestamp() for part in parts), default=0.0)
        return sum(part["Size"] for part in parts), newest

    def _parts(self, path: str, upload: str) -> Iterator[dict[str, Any]]:
        asked: dict[str, Any] = {"UploadId": upload}
        while True:
            found = self.ask("list_parts", path, **asked)
            yield from found.get("Parts", [])
            if not found.get("IsTruncated"):
                return
            asked["PartNumberMarker"] = found["NextPartNumberMarker"]

    def send(self, path: str, upload: str, number: int, data: memoryview) -> str:
        """Send one part and give its ETag; a server that fails is tried again, with a pause."""
        where = f"{self.objects.place}/{path}, part {number}"
        for attempt in range(1, _TRIES + 1):
            problem = ""
            try:
                status, etag, said = self._put(path, upload, number, data)
            except UploadGone:
                raise
            except Exception as error:  # noqa: BLE001 - of many kinds
                problem = reason(error)
            else:
                if status == _OK or (status // 100 == _OK // 100 and etag):
                    return etag
                if status == _GONE:
                    raise UploadGone(f"{where}: its upload has been ended by somebody else")
                problem = f"{status} {one_line(said)}"
                if status not in _RETRIED:
                    break
            time.sleep(min(0.2 * 2**attempt, 5.0) if attempt < _TRIES else 0)
        raise TierUnavailable(f"{where}: {one_line(problem)}")

    def complete(self, path: str, upload: str, tags: Mapping[int, str]) -> None:
        """Put the parts together, given by their numbers and ETags."""
        rows = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(tags[number])}</ETag></Part>"
            for number in sorted(tags)
        )
        body = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()
        query = f"uploadId={quote(upload, safe='')}"
        key = self.objects.key(path)
        if self._root("POST", key, query, "CompleteMultipartUploadResult", body) is not None:
            return
        parts = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
        self.ask(
            "complete_multipart_upload", path, UploadId=upload, MultipartUpload={"Parts": parts}
        )

    def now(self, path: str) -> FileStat:
        """What the server shows of an object; nothing while it cannot say."""
        try:
            return self.objects.stat(path)
        except (OSError, TieredStoreError):
            return FileStat(path, -1)

    def landed(self, path: str, size: int, before: str) -> bool:
        """Whether an object of this size is there, although its completion was answered otherwise.

        The server may have put the parts together without an answer in time, or another that
        moves the same file has had it do so. What had the ETag ``before`` was there before.
        """
        until = time.monotonic() + self.patience
        while True:
            found = self.now(path)
            if found.size == size and found.tag != before:
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL)

    def _put(self, path: str, upload: str, number: int, data: memoryview) -> tuple[int, str, str]:
        """Status, ETag and what the server said."""
        bucket = self._bucket
        if bucket is None:  # behind a proxy
            found = self.ask(
                "upload_part", path, UploadId=upload, PartNumber=number, Body=bytes(data)
            )
            return _OK, str(found["ETag"]), ""
        query = f"partNumber={number}&uploadId={quote(upload, safe='')}"
        with bucket.ask("PUT", self.objects.key(path), {}, data, query) as answer:
            said = "" if answer.status == _OK else answer.read(_SAID).decode(errors="replace")
            return answer.status, answer.fields.get("etag", ""), said

    def _root(
        self, method: str, key: str, query: str, tag: str, body: bytes = b""
    ) -> Element | None:
        """The XML that a request of our own is answered with; ``None``: botocore has to ask."""
        if self._bucket is None:
            return None
        with (
            suppress(NoAnswer, ValueError),
            self._bucket.ask(method, key, {}, body, query) as answer,
        ):
            if answer.status == _OK:
                return xml(answer.read(_SAID), tag)
        return None

    @cached_property
    def _bucket(self) -> Bucket | None:
        return Bucket.anywhere(self._access)


def _shows_none(root: Element) -> bool:
    whole = root.findtext("{*}IsTruncated", "") == "false"
    return whole and root.find("{*}Upload") is None


class SmallWriter(FileWriter):
    """A file of one part, put in one request when it is whole."""

    def __init__(self, objects: Objects, path: str, size: int) -> None:
        self._objects = objects
        self._path = path
        self._size = size
        self._waiting = bytearray()
        self._put = False

    def write(self, offset: int, data: memoryview) -> None:
        """See `FileWriter.write`; in order, or all of it."""
        if offset == 0 and len(data) == self._size:
            self._objects.put(self._path, data)
            self._put = True
        else:
            self._waiting += data

    def close(self) -> None:
        """See `FileWriter.close`."""
        if not self._put:
            self._objects.put(self._path, bytes(self._waiting))

    def abort(self) -> None:
        """See `FileWriter.abort`: nothing has been sent."""
        self._waiting.clear()


class PartsWriter(FileWriter):
    """A file of several parts."""

    def __init__(self, uploads: Uploads, path: str, file: FileRecord) -> None:
        self._uploads = uploads
        self._path = path
        self._size = file.size
        self._planned: dict[int, tuple[int, int]] = {}
        cut = groups(list(file.blocks()), piece(file.size))
        for number, run in enumerate(cut, 1):
            self._planned[run[0].offset] = (number, sum(b.length for b in run))
        self._lock = threading.Lock()
        self._upload = ""
        self._there: dict[int, tuple[int, str]] = {}
        self._tags: dict[int, str] = {}
        self._waiting = bytearray()
        self._next = 0
        self._before = ""
        self._broken = False

    def write(self, offset: int, data: memoryview) -> None:
        """See `FileWriter.write`; whole parts in any order, anything else in order."""
        number, size = self._planned.get(offset, (0, 0))
        if size == len(data) and not self._waiting:
            self._part(number, data)
        else:
            self._gather(data)

    def _gather(self, data: memoryview) -> None:
        self._waiting += data
        number, size = self._planned[self._next]
        while size and len(self._waiting) >= size:
            self._part(number, memoryview(bytes(self._waiting[:size])))
            del self._waiting[:size]
            self._next += size
            number, size = self._planned.get(self._next, (0, 0))

    def _part(self, number: int, data: memoryview) -> None:
        self._begin()
        size, tag = self._there.get(number, (0, ""))
        if (
            size == len(data)
            and tag.strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()
        ):
            self._tags[number] = tag
            return
        try:
            self._tags[number] = self._uploads.send(self._path, self._upload, number, data)
        except UploadGone:
            raise
        except OSError:
            self._broken = True  # the place failed, not the caller: what it has may be gone on with
            raise

    def _begin(self) -> None:
        with self._lock:
            if self._upload:
                return
            self._before = self._uploads.now(self._path).tag
            upload = self._uploads.begun(self._path)
            if upload is not None:
                self._there = self._uploads.parts(self._path, upload)
            else:
                upload = self._uploads.create(self._path)
            self._upload = upload

    def close(self) -> None:
        """See `FileWriter.close`.

        Raises
        ------
        TierUnavailable
            When the parts do not make up the file, or the server does not put them together.
        """
        parts, expected = len(self._tags), len(self._planned)
        if parts != expected:
            self._broken = True
            place = f"{self._uploads.objects.place}/{self._path}"
            raise TierUnavailable(f"{place}: {parts} parts, expected {expected}")
        try:
            self._uploads.complete(self._path, self._upload, self._tags)
        except OSError as error:
            if not self._uploads.landed(self._path, self._size, self._before):
                self._broken = not isinstance(error, UploadGone)
                raise

    def abort(self) -> None:
        """See `FileWriter.abort`: parts stay only where the server failed, to be gone on with."""
        if self._upload and not self._broken:
            self._uploads.ask("abort_multipart_upload", self._path, UploadId=self._upload)
