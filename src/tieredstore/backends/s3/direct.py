"""Single objects by requests of our own where the answer is as expected, else by another client.

That one tries again, waits, follows redirects and says what is wrong: nothing here does. A write
whose answer got lost is written again, as by every client that tries again.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from typing import Final, TypeVar
from urllib.parse import quote

from tieredstore.backend import FileStat
from tieredstore.backends.s3.access import Access
from tieredstore.backends.s3.bucket import Bucket
from tieredstore.backends.s3.listing import Page, parsed
from tieredstore.backends.s3.objects import Flow, Lost, Objects, missing
from tieredstore.backends.s3.wire import Incoming, NoAnswer

T = TypeVar("T")
Body = bytes | memoryview

_OK, _PARTIAL, _MISSING, _CHANGED = 200, 206, 404, 412
_DELETED: Final = frozenset({200, 204})
_LISTED: Final = 16 << 20  # bytes of a page of a listing, of 1000 keys
_SAID: Final = 1 << 14  # bytes of an error's text that are read
_NO_SUCH_KEY: Final = b"<Code>NoSuchKey</Code>"
_DATE: Final = "%a, %d %b %Y %H:%M:%S GMT"
_NONE: Final[Mapping[str, str]] = {}


class _Answered(Flow):
    def __init__(self, answer: Incoming) -> None:
        self._answer = answer
        self.tag = answer.fields.get("etag", "")

    def readinto(self, view: memoryview) -> bool:
        """See `Flow.readinto`; the last bytes give the connection back."""
        try:
            self._answer.readinto(view)
        except NoAnswer:
            return False
        if not self._answer.left:
            self._answer.close()
        return True

    def close(self) -> None:
        """See `Flow.close`."""
        self._answer.close()


class Direct(Objects):
    """Requests of our own to ``bucket``, and those of ``other`` where they do not do."""

    flows = True

    def __init__(
        self, access: Access, prefix: str, bucket: Bucket, other: Callable[[], Objects]
    ) -> None:
        super().__init__(access, prefix)
        self._bucket = bucket
        self._make = other

    @cached_property
    def _other(self) -> Objects:
        return self._make()

    def _ask(
        self,
        use: Callable[[Incoming], T | None],
        method: str,
        path: str,
        fields: Mapping[str, str] = _NONE,
        body: Body = b"",
    ) -> T | None:
        """What ``use`` makes of the answer; ``None`` where the other client has to see to it."""
        try:
            with self._bucket.ask(method, self.key(path), fields, body) as answer:
                return use(answer)
        except (NoAnswer, ValueError):
            return None

    def stat(self, path: str) -> FileStat:
        """See `Objects.stat`."""
        found = self._ask(partial(_stat, path), "HEAD", path)
        return self._other.stat(path) if found is None else found

    def get(self, path: str, limit: int) -> tuple[bytes, str]:
        """See `Objects.get`."""
        found = self._ask(partial(_small, path, limit), "GET", path)
        return self._other.get(path, limit) if found is None else found

    def range(self, path: str, offset: int, buffer: memoryview, tag: str) -> tuple[int, str]:
        """See `Objects.range`."""
        fields = _asked(offset, len(buffer), tag)
        found = self._ask(partial(_range, offset, buffer), "GET", path, fields)
        if found is None or (tag and found != tag):
            return self._other.range(path, offset, buffer, tag)
        return len(buffer), found

    def flow(self, path: str, offset: int, size: int, tag: str) -> Flow | None:
        """See `Objects.flow`."""
        fields = _asked(offset, size, tag)
        with suppress(NoAnswer):
            answer = self._bucket.ask("GET", self.key(path), fields)
            if _holds(answer, offset, size) and tag in {"", answer.fields.get("etag", "")}:
                return _Answered(answer)
            answer.close()
        return None

    def put(self, path: str, data: Body) -> str:
        """See `Objects.put`."""
        found = self._ask(_written, "PUT", path, body=data)
        return self._other.put(path, data) if found is None else found

    def create(self, path: str, data: bytes) -> str:
        """See `Objects.create`."""
        found = self._ask(_written, "PUT", path, {"if-none-match": "*"}, data)
        return self._other.create(path, data) if found is None else found

    def replace(self, path: str, data: bytes, tag: str) -> str:
        """See `Objects.replace`."""
        found = self._ask(_written, "PUT", path, {"if-match": tag}, data)
        return self._other.replace(path, data, tag) if found is None else found

    def list(self, folder: str) -> Iterator[FileStat]:
        """See `Objects.list`; where a page does not come, the other client lists all the rest."""
        below = f"{self._prefix}/{folder}".strip("/")
        seen: set[str] = set()
        token: str | None = ""
        while token is not None:
            page = self._page(f"{below}/" if below else "", token)
            if page is None:
                yield from (found for found in self._other.list(folder) if found.path not in seen)
                return
            for found in page.found:
                path = self.path(found.path)
                seen.add(path)
                yield replace(found, path=path)
            token = page.token

    def _page(self, prefix: str, token: str) -> Page | None:
        asked = f"continuation-token={quote(token, safe='')}&" if token else ""
        query = f"{asked}list-type=2&prefix={quote(prefix, safe='')}"
        try:
            with self._bucket.ask("GET", "", query=query) as answer:
                return parsed(answer.read(_LISTED)) if answer.status == _OK else None
        except (NoAnswer, ValueError):
            return None

    def delete(self, paths: Sequence[str]) -> None:
        """See `Objects.delete`."""
        if len(paths) != 1 or not self._ask(_deleted, "DELETE", paths[0]):
            self._other.delete(paths)

    def delete_version(self, path: str, tag: str) -> None:
        """See `Objects.delete_version`."""
        if not self._ask(_deleted, "DELETE", path, {"if-match": tag}):
            self._other.delete_version(path, tag)


def _stat(path: str, answer: Incoming) -> FileStat | None:
    if answer.status == _MISSING:
        raise missing(path)
    if answer.status != _OK:
        return None
    when = time.strptime(answer.fields.get("last-modified", ""), _DATE)
    size = int(answer.fields.get("content-length", ""))
    mtime_ns = calendar.timegm(when) * 10**9
    return FileStat(path, size, mtime_ns, 0o644, answer.fields.get("etag", ""))


def _small(path: str, limit: int, answer: Incoming) -> tuple[bytes, str] | None:
    if answer.status == _MISSING and _NO_SUCH_KEY in answer.read(_SAID):
        raise missing(path)
    if answer.status != _OK or answer.left > limit:
        return None
    return answer.read(limit), answer.fields.get("etag", "")


def _range(offset: int, buffer: memoryview, answer: Incoming) -> str | None:
    if not _holds(answer, offset, len(buffer)):
        return None
    answer.readinto(buffer)
    return answer.fields.get("etag", "")


def _asked(offset: int, size: int, tag: str) -> dict[str, str]:
    """The fields that ask for a range."""
    fields = {"range": f"bytes={offset}-{offset + size - 1}"}
    return {**fields, "if-match": tag} if tag else fields


def _holds(answer: Incoming, offset: int, size: int) -> bool:
    """Whether an answer brings the very range."""
    found = answer.fields.get("content-range", "").partition("/")[0]
    right = answer.status == _PARTIAL and found == f"bytes {offset}-{offset + size - 1}"
    return right and answer.left == size


def _written(answer: Incoming) -> str | None:
    if answer.status == _CHANGED:
        raise Lost(answer.status)
    if answer.status // 100 != _OK // 100:
        return None
    return answer.fields.get("etag") or None


def _deleted(answer: Incoming) -> bool:
    if answer.status == _CHANGED:
        raise Lost(answer.status)
    return answer.status in _DELETED
