"""Uploads that were begun in a bucket and never ended: found, and ended without an object.

The server keeps their parts, and nobody sees them in a listing of objects. An upload counts as old
by its newest part, so that one which has been under way for days is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tieredstore.backends.s3.upload import UploadGone, Uploads
from tieredstore.keyed_litter import generation_of
from tieredstore.litter import Litter

UPLOAD = "upload"


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload that has not been ended.

    Attributes
    ----------
    path, upload : str
        Of what, and the server's name for it.
    size : int
        Bytes of its parts.
    since : float
        When it was begun, or its newest part was sent, seconds since 1970 by the server's clock.
    """

    path: str
    upload: str
    size: int
    since: float

    @property
    def litter(self) -> Litter:
        """The same, as something that may be dropped."""
        return Litter(UPLOAD, self.path, self.size, self.since, f"{self.since} {self.upload}")


def begun(uploads: Uploads, before: float) -> Iterator[Begun]:
    """All uploads of generations; those begun since ``before`` are not asked for their parts."""
    for found in uploads.below(""):
        path = uploads.objects.path(found["Key"])
        if generation_of(path) is None:
            continue  # of somebody else, or of nobody that is known
        since = found["Initiated"].timestamp()
        if since >= before:
            yield Begun(path, found["UploadId"], 0, since)
        else:
            yield from _with_parts(uploads, found, since)


def _with_parts(uploads: Uploads, found: dict[str, Any], since: float) -> Iterator[Begun]:
    """One upload and what its parts say; nothing where it has been ended meanwhile."""
    path, upload = uploads.objects.path(found["Key"]), found["UploadId"]
    try:
        size, newest = uploads.sent(path, upload)
    except UploadGone:
        return
    yield Begun(path, upload, size, max(since, newest))


def end(uploads: Uploads, litter: Litter) -> int | None:
    """End an upload and give the bytes freed, unless a part was sent to it since it was found."""
    since, _, upload = litter.token.partition(" ")
    try:
        size, newest = uploads.sent(litter.path, upload)
        if newest > float(since):
            return None
        uploads.ask("abort_multipart_upload", litter.path, UploadId=upload)
    except UploadGone:
        return None
    return size
