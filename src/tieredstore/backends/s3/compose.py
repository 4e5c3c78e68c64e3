"""One file put together of others inside a bucket, part by part, in several threads.

What the server copies (``plan.py``) does not pass this machine. Every request names the ETag
that its source had; because Ceph's gateway 16.2 and moto ignore that, the ETags are compared again
when all is copied.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from tieredstore.backend import FileStat, Segment
from tieredstore.backends.s3.access import ANSWER, Access
from tieredstore.backends.s3.botocore import boto
from tieredstore.backends.s3.objects import Lost
from tieredstore.backends.s3.plan import MOST_PARTS, BlockTable, PlannedPart, plan
from tieredstore.backends.s3.upload import Uploads
from tieredstore.errors import (
    ArtifactChanged,
    CorruptData,
    TieredStoreError,
    TierUnavailable,
    Unsupported,
)
from tieredstore.manifest.records import Block, FileRecord, block_digest
from tieredstore.workers import Watch, Workers, together

_COPIED_WHOLE: Final = 5 << 30  # bytes that CopyObject takes at most
_AT_ONCE: Final = 16  # parts
_READS: Final = 8  # small segments that are read at once for one part
_POLL: Final = 0.5  # seconds between two looks at a server whose answers lag behind


class Composition:
    """One object of a bucket made of others.

    Parameters
    ----------
    access : Access
        The way to the bucket.
    uploads : Uploads
        Its multipart uploads.
    path : str
        Of the object to be made.
    file : FileRecord
        What it has to be.
    """

    def __init__(self, access: Access, uploads: Uploads, path: str, file: FileRecord) -> None:
        self._access = access
        self._uploads = uploads
        self._objects = uploads.objects
        self._path = path
        self._file = file
        self._where = f"{self._objects.place}/{path}"
        self._blocks = BlockTable(file)
        self._upload = ""
        self._tags: dict[int, str] = {}

    def run(self, segments: Sequence[Segment]) -> None:
        """Make it; see `Composable.compose`."""
        segments = [segment for segment in segments if segment.length]
        if not segments:
            self._objects.put(self._path, b"")
        elif len(segments) == 1 and segments[0].whole and segments[0].length <= _COPIED_WHOLE:
            self._copy("copy_object", segments[0])
            self._check_unchanged(segments)
        else:
            self._put_together(segments, self._planned(segments))
        found = self._size()
        if found != self._file.size:
            raise TierUnavailable(f"{self._where}: {found} bytes, expected {self._file.size}")

    def _planned(self, segments: Sequence[Segment]) -> list[PlannedPart]:
        """The parts, where the server can copy them.

        Raises
        ------
        Unsupported
            When it cannot.
        """
        parts = plan(segments, self._blocks)
        if len(parts) > MOST_PARTS:
            raise Unsupported(f"{self._where}: {len(parts)} parts, S3 takes {MOST_PARTS}")
        for part in parts:
            # Ceph's gateway 16.2 decodes the key twice: it copies another object, or crashes.
            if part.copied and "%" in self._objects.key(part.segments[0].file.path):
                raise Unsupported(f"{self._where}: not every server can copy a key with '%' in it")
        return parts

    def _put_together(self, segments: Sequence[Segment], parts: Sequence[PlannedPart]) -> None:
        self._upload = self._uploads.create(self._path)
        tasks = [partial(self._part, number, part) for number, part in enumerate(parts, 1)]
        workers = Workers(_AT_ONCE, Watch(), ANSWER, lambda _: False)
        try:
            workers.run(tasks)
            self._check_unchanged(segments)
            self._uploads.complete(self._path, self._upload, self._tags)
        except BaseException:
            workers.settle(ANSWER)  # a part that arrives after the upload was ended would stay
            with suppress(OSError, TieredStoreError):
                self._uploads.ask("abort_multipart_upload", self._path, UploadId=self._upload)
            raise

    def _part(self, number: int, part: PlannedPart) -> None:
        if part.copied:
            self._tags[number] = self._copy_part(number, part.segments[0])
        else:
            data = self._read(part)
            self._tags[number] = self._uploads.send(self._path, self._upload, number, data)

    # -- copied by the server -------------------------------------------------------------------

    def _copy_part(self, number: int, segment: Segment) -> str:
        asked: dict[str, Any] = {"UploadId": self._upload, "PartNumber": number}
        if not segment.whole:
            last = segment.offset + segment.length - 1
            asked["CopySourceRange"] = f"bytes={segment.offset}-{last}"
        found = self._copy("upload_part_copy", segment, **asked)
        return str(found["CopyPartResult"]["ETag"])

    def _copy(self, operation: str, segment: Segment, **asked: Any) -> Any:
        source = {"Bucket": self._access.bucket, "Key": self._objects.key(segment.file.path)}
        if segment.file.tag:
            asked["CopySourceIfMatch"] = segment.file.tag
        call = getattr(self._access.client(), operation)
        target = {"Bucket": self._access.bucket, "Key": self._objects.key(self._path)}
        try:
            return boto(call, self._where, CopySource=source, **target, **asked)
        except (FileNotFoundError, Lost):
            raise self._changed(segment.file) from None

    def _check_unchanged(self, segments: Sequence[Segment]) -> None:
        files = {segment.file.path: segment.file for segment in segments}
        together([partial(self._check_version, file) for file in files.values()])

    def _check_version(self, file: FileStat) -> None:
        try:
            now = self._objects.stat(file.path)
        except FileNotFoundError:
            raise self._changed(file) from None
        if (now.tag, now.size) != (file.tag, file.size):
            raise self._changed(file)

    def _changed(self, file: FileStat) -> ArtifactChanged:
        return ArtifactChanged(
            f"{self._objects.place}/{file.path}: was replaced or removed while it was copied"
        )

    # -- read and sent --------------------------------------------------------------------------

    def _read(self, part: PlannedPart) -> memoryview:
        """The bytes of a part, compared with their blocks."""
        data = memoryview(bytearray(part.length))
        reads = []
        at = 0
        for segment in part.segments:
            view = data[at : at + segment.length]
            blocks = self._blocks.within(part.offset + at, segment.length)
            reads.append(partial(self._read_segment, segment, view, list(blocks)))
            at += segment.length
        together(reads, _READS)
        return data

    def _read_segment(self, segment: Segment, view: memoryview, blocks: Sequence[Block]) -> None:
        path, tag = segment.file.path, segment.file.tag
        where = f"{self._objects.place}/{path}"
        try:
            got, _ = self._objects.range(path, segment.offset, view, tag)
        except FileNotFoundError:
            raise self._changed(segment.file) from None
        if got != segment.length:
            raise CorruptData(f"{where}: ends at byte {segment.offset + got}")
        for block in blocks:
            end = block.offset + block.length
            if block_digest(view[block.offset : end]) != block.digest:
                begin = segment.offset + block.offset
                raise CorruptData(f"{where}: byte {begin} on differs from the manifest")

    def _size(self) -> int:
        """Bytes of what was made, as the server says; some deny it for a while."""
        until = time.monotonic() + self._access.preset.lagging
        while True:
            try:
                return self._objects.stat(self._path).size
            except FileNotFoundError:
                if time.monotonic() >= until:
                    raise TierUnavailable(f"{self._where}: is not there") from None
            time.sleep(_POLL)
