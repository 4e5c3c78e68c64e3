"""What a web server answers: status, headers, version and body of one response, checked.

Nothing here sends a request; ``client.py`` does.
"""

from __future__ import annotations

import errno
import re
import time
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Final

from tieredstore.errors import TierUnavailable, reason

if TYPE_CHECKING:
    import requests

PIECE: Final = 1 << 20  # bytes read from a connection at once
OK, PARTIAL, UNSATISFIABLE = 200, 206, 416
_AGAIN: Final = frozenset({429, 500, 502, 503, 504})
_DIGESTS: Final = {"sha-256": 64, "sha-512": 128, "md5": 32}  # hexadecimal digits; best first
_DRAINED: Final = 64 << 10  # bytes of an error's page that are read to keep the connection
_RANGE: Final = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)")


class BrokenAnswer(Exception):
    """An answer that may be right when it is asked for again.

    Attributes
    ----------
    after : float
        Seconds that the server asks to wait.
    """

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


@dataclass(frozen=True, slots=True)
class Version:
    """What tells one state of a file from another; ``None`` and empty where it is not said."""

    size: int | None
    etag: str
    modified: str
    digest: str = ""  # of all of it, see `FileStat`; not every answer tells it

    @property
    def tag(self) -> str:
        """The shortest text that tells it from another; empty where nothing is said."""
        return self.etag or self.modified

    @property
    def strong(self) -> bool:
        """Whether the ETag promises equal bytes."""
        return self.etag.startswith('"')

    def change(self, now: Version) -> str:
        """What is different now, in a few words; empty where nothing is known to be."""
        if None not in {self.size, now.size} and self.size != now.size:
            return f"{self.size} bytes before, {now.size} now"
        for what, old, new in (
            ("ETag", self.etag.removeprefix("W/"), now.etag.removeprefix("W/")),
            ("Last-Modified", self.modified, now.modified),
        ):
            if old and new and old != new:
                return f"{what} {old} before, {new} now"
        return ""


class Answer:
    """The answer to one request, before its body is read.

    Attributes
    ----------
    where : str
        What was asked for, as messages call it.
    status : int
        The HTTP status.
    """

    def __init__(self, response: requests.Response, where: str) -> None:
        self._response = response
        self.where = where
        self.status = response.status_code

    def header(self, name: str) -> str:
        """One header, empty where it is missing."""
        return (self._response.headers.get(name) or "").strip()

    def length(self) -> int | None:
        """How long the body is said to be."""
        text = self.header("Content-Length")
        return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None

    def range(self) -> tuple[int, int, int | None] | None:
        """First byte, the one after the last, and the whole size; both 0 of a range refused."""
        found = _RANGE.fullmatch(self.header("Content-Range"))
        if found is None:
            return None
        first, last, total = found.groups()
        size = None if total == "*" else int(total)
        return (0, 0, size) if first is None else (int(first), int(last) + 1, size)

    def version(self) -> Version:
        """The version of the file that this answer is of."""
        size, digest = self.length(), ""
        if self.status == OK:
            digest = whole_digest(self.header)
        else:  # the length is the range's then
            found = self.range()
            size = found[2] if found is not None else None
        return Version(size, self.header("ETag"), self.header("Last-Modified"), digest)

    def refused(self) -> Exception:
        """The error for a status that is not what was asked for."""
        if self.status in {404, 410}:
            return FileNotFoundError(errno.ENOENT, "No such file", self.where)
        said = f"{self.where}: {self._said()}"
        if self.status in {401, 403}:
            text = f"{said}: the server denies access; give credentials it accepts in 'headers'"
            return TierUnavailable(text, errno.EACCES)
        return TierUnavailable(f"{said}, which is no answer to what was asked")

    def check_plain(self) -> None:
        """Refuse a body that is not the file's own bytes."""
        encoding = self.header("Content-Encoding")
        if encoding not in {"", "identity"}:
            raise TierUnavailable(
                f"{self.where}: is sent encoded ({encoding[:40]!r}), though plain bytes were asked "
                "for; switch this off in the server"
            )

    def check_temporary(self) -> None:
        """Raise `BrokenAnswer` where the server may say something else soon."""
        if self.status in _AGAIN:
            raise BrokenAnswer(self._said(), _seconds(self.header("Retry-After")))

    def _said(self) -> str:
        return " ".join(f"{self.status} {(self._response.reason or '')[:60]}".split())

    def read(self, size: int) -> bytes:
        """The next bytes of the body, at most ``size``; none at its end."""
        data: bytes = self._response.raw.read(min(size, PIECE), decode_content=False)
        return data

    def fill(self, buffer: memoryview) -> int:
        """Read into all of ``buffer``; fewer bytes only at the body's end."""
        at = 0
        while at < len(buffer):
            data = self.read(len(buffer) - at)
            if not data:
                break
            buffer[at : at + len(data)] = data
            at += len(data)
        return at

    def fill_whole(self, buffer: memoryview) -> int:
        """Like `fill`; of a body as long as the buffer it costs no copy.

        Raises
        ------
        BrokenAnswer
            When the connection breaks in a way that its library has no name for.
        """
        if self.length() != len(buffer):
            return self.fill(buffer)
        try:
            got = self.pour(buffer)
        except (TimeoutError, ConnectionError):
            raise
        except (OSError, HTTPException, ValueError) as error:
            raise BrokenAnswer(f"the connection broke: {reason(error)}") from error
        if got == len(buffer):
            self.end()
        return got

    def pour(self, buffer: memoryview) -> int:
        """Like `fill`, straight from the connection where that can be had.

        What goes wrong there is raised as it is, by the connection and not by the client library.
        """
        straight = getattr(self._response.raw, "_fp", None)
        if not isinstance(straight, HTTPResponse):
            return self.fill(buffer)
        at = 0
        while at < len(buffer) and (got := straight.readinto(buffer[at:])):
            at += got
        return at

    def end(self) -> None:
        """Say that `pour` has read all, so that the connection is used again."""
        if getattr(self._response.raw, "_fp", None) is not None:
            self._response.raw.release_conn()

    def skip(self, size: int) -> int:
        """Read past ``size`` bytes; say how many there were."""
        at = 0
        while at < size:
            data = self.read(size - at)
            if not data:
                break
            at += len(data)
        return at

    def close(self) -> None:
        """Let go of the body; a short page of an error is read so that the connection lives on."""
        bare = self._response.request.method == "HEAD"
        if bare or (self.status not in {OK, PARTIAL} and (self.length() or 0) <= _DRAINED):
            with suppress(Exception):
                self.read(_DRAINED)
        self._response.close()


def whole_digest(header: Callable[[str], str]) -> str:
    """The digest that an answer with the whole file gives of it, see `FileStat`.

    ``Repr-Digest`` is of RFC 9530, ``Digest`` of RFC 3230, ``Content-MD5`` of RFC 1864.
    """
    said = [("md5", header("Content-MD5"))]
    for text in (header("Digest"), header("Repr-Digest")):
        for item in text.split(","):
            name, _, value = item.strip().partition("=")
            said.append((name.lower(), value.strip().strip(":")))
    found = {name: _hexadecimal(value) for name, value in said if name in _DIGESTS}
    best = next((name for name in _DIGESTS if len(found.get(name, "")) == _DIGESTS[name]), None)
    return f"{best.replace('-', '')}:{found[best]}" if best else ""


def _hexadecimal(text: str) -> str:
    try:
        return b64decode(text, validate=True).hex()
    except ValueError:
        return ""


def _seconds(text: str) -> float:
    """What ``Retry-After`` says: seconds, or a date."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
