"""Objects of a bucket through botocore, which comes with s3fs: used where obstore is missing.

Also how botocore's errors are told, for everything else that is asked of it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from tieredstore.backend import FileStat
from tieredstore.backends.s3.objects import Lost, Objects, missing, one_line
from tieredstore.errors import (
    ArtifactChanged,
    ManifestError,
    TierUnavailable,
    Unsupported,
    reason,
)

_REFUSED: Final = frozenset({401, 403})
_FOUND_ANOTHER: Final = frozenset({409, 412})
_MISSING: Final = 404
_PAST_END: Final = 416
_UNKNOWN: Final = frozenset({405, 501})


class Botocore(Objects):
    """Through botocore, which comes with s3fs."""

    def _call(self, operation: str, path: str, **parameters: Any) -> Any:
        call = getattr(self._access.client(), operation)
        return boto(call, f"{self.place}/{path}", Bucket=self._access.bucket, **parameters)

    def stat(self, path: str) -> FileStat:
        """See `Objects.stat`."""
        found = self._call("head_object", path, Key=self.key(path))
        return _boto_stat(path, found["ContentLength"], found)

    def get(self, path: str, limit: int) -> tuple[bytes, str]:
        """See `Objects.get`."""
        found = self._call("get_object", path, Key=self.key(path))
        with found["Body"] as body:
            if found["ContentLength"] > limit:
                raise ManifestError(f"{self.place}/{path}: larger than {limit} bytes")
            return boto(body.read, f"{self.place}/{path}"), found["ETag"]

    def range(self, path: str, offset: int, buffer: memoryview, tag: str) -> tuple[int, str]:
        """See `Objects.range`."""
        asked = {"Range": f"bytes={offset}-{offset + len(buffer) - 1}"}
        if tag:
            asked["IfMatch"] = tag
        try:
            found = self._call("get_object", path, Key=self.key(path), **asked)
        except Lost:
            raise ArtifactChanged(f"{self.place}/{path}: changed while it was read") from None
        except EOFError:
            return 0, tag
        with found["Body"] as body:
            data = boto(body.read, f"{self.place}/{path}")
        if len(data) > len(buffer):
            raise OSError(errno.EIO, f"{len(data)} bytes for a range of {len(buffer)}", path)
        buffer[: len(data)] = data
        return len(data), found["ETag"]

    def put(self, path: str, data: bytes | memoryview) -> str:
        """See `Objects.put`."""
        return self._put(path, bytes(data))

    def create(self, path: str, data: bytes) -> str:
        """See `Objects.create`."""
        return self._put(path, data, IfNoneMatch="*")

    def replace(self, path: str, data: bytes, tag: str) -> str:
        """See `Objects.replace`."""
        return self._put(path, data, IfMatch=tag)

    def _put(self, path: str, data: bytes, **condition: str) -> str:
        done = self._call("put_object", path, Key=self.key(path), Body=data, **condition)
        return str(done.get("ETag", ""))

    def list(self, folder: str) -> Iterator[FileStat]:
        """See `Objects.list`."""
        below = f"{self._prefix}/{folder}".strip("/")
        asked = {"Prefix": f"{below}/" if below else ""}
        while True:
            found = self._call("list_objects_v2", folder, **asked)
            for entry in found.get("Contents", []):
                yield _boto_stat(self.path(entry["Key"]), entry["Size"], entry)
            if not found.get("IsTruncated"):
                return
            asked["ContinuationToken"] = found["NextContinuationToken"]

    def delete(self, paths: Sequence[str]) -> None:
        """See `Objects.delete`."""
        for path in paths:
            self._call("delete_object", path, Key=self.key(path))

    def delete_version(self, path: str, tag: str) -> None:
        """See `Objects.delete_version`."""
        self._call("delete_object", path, Key=self.key(path), IfMatch=tag)


def _boto_stat(path: str, size: int, found: Any) -> FileStat:
    when: datetime = found["LastModified"]
    return FileStat(path, size, int(when.timestamp() * 1e9), 0o644, found.get("ETag", ""))


def boto(call: Any, where: str, **parameters: Any) -> Any:
    """Call botocore; what it raises becomes what `Objects` promises, in one line.

    Raises
    ------
    EOFError
        When a range begins behind the object's end.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return call(**parameters)
    except ClientError as error:
        raise _refusal(error, where) from None
    except (BotoCoreError, OSError) as error:
        raise TierUnavailable(f"{where}: {one_line(reason(error))}") from None


def _refusal(error: Any, where: str) -> Exception:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = error.response.get("Error", {}).get("Code", "")
    if code == "NoSuchBucket":
        return TierUnavailable(f"{where}: there is no such bucket")
    if status == _MISSING:
        return missing(where)
    if status in _FOUND_ANOTHER:
        return Lost(where)
    if status == _PAST_END:
        return EOFError(where)
    said = one_line(str(error))
    if status in _UNKNOWN:
        return Unsupported(f"{where}: {said}")
    if status in _REFUSED:
        return PermissionError(errno.EACCES, f"access denied ({said})", where)
    return TierUnavailable(f"{where}: {said}")
