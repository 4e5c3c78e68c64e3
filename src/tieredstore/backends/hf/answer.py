"""What the Hub answers: status, headers and body of one response, and the error it stands for.

Nothing here sends a request; ``client.py`` does.
"""

from __future__ import annotations

import errno
import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from tieredstore.backends.http.answer import BrokenAnswer
from tieredstore.errors import TierUnavailable

if TYPE_CHECKING:
    import httpx2

MAX_JSON: Final = 256 << 20  # bytes of an API answer
_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
_DRAINED: Final = 64 << 10  # bytes of an error's body that are read
_KEPT: Final = ("X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size")
_RANGE: Final = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})")


class NoRepository(TierUnavailable):
    """The Hub says that there is none, or none that this user may see."""


class ParentMoved(BrokenAnswer):
    """Somebody else has committed since the parent was looked up."""


class Answer:
    """The answer to one request, before its body is read.

    Attributes
    ----------
    where : str
        What was asked for, as messages call it.
    status : int
        The HTTP status.
    """

    def __init__(
        self,
        response: httpx2.Response,
        where: str,
        token: str | None = None,
        before: Answer | None = None,
    ) -> None:
        self._response = response
        self._token = token
        self.where = where
        self.status = response.status_code
        # The Hub says what a file is where it redirects to its bytes, not where they are.
        first: dict[str, str] = {} if before is None else before.first
        self.first: dict[str, str] = {name: first.get(name) or self.header(name) for name in _KEPT}

    def header(self, name: str) -> str:
        """One header, empty where it is missing."""
        return (self._response.headers.get(name) or "").strip()

    @property
    def commit(self) -> str:
        """The commit that a file was served from; empty where it is not said."""
        return self.first["X-Repo-Commit"]

    @property
    def etag(self) -> str:
        """A file's digest: SHA-256 of a large file, git's blob id of another."""
        tag = self.first["X-Linked-Etag"] or self.header("ETag")
        return tag.removeprefix("W/").strip('"')

    @property
    def size(self) -> int | None:
        """Bytes of the whole file, as far as it is said."""
        found = self.range()
        if found is not None:
            return found[2]
        text = self.first["X-Linked-Size"]
        if not text and self.status == 200:  # noqa: PLR2004 - else it is another body's length
            text = self.header("Content-Length")
        return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None

    def range(self) -> tuple[int, int, int] | None:
        """First byte, the one after the last, and the whole size; both 0 of a range refused."""
        found = _RANGE.fullmatch(self.header("Content-Range"))
        if found is None:
            return None
        first, last, total = found.groups()
        return (0, 0, int(total)) if first is None else (int(first), int(last) + 1, int(total))

    @property
    def following(self) -> str:
        """The URL of a listing's next page; empty on its last."""
        return str(self._response.links.get("next", {}).get("url") or "")

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes: nothing is held back that a broken connection would lose."""
        return self._response.iter_raw()

    def json(self) -> Any:
        """The body of an API answer."""
        data = bytearray()
        for piece in self.pieces():
            data += piece
            if len(data) > MAX_JSON:
                raise TierUnavailable(f"{self.where}: the Hub's answer is endless")
        said = self.header("Content-Length")
        if said.isdigit() and len(data) < int(said):
            raise BrokenAnswer("the answer ended early")
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise BrokenAnswer("the answer is no JSON") from None

    def close(self) -> None:
        """Let go of the connection; a short rest is read, so that it can be used again."""
        with suppress(Exception):
            if self.status >= 300 and int(self.header("Content-Length")) <= _DRAINED:  # noqa: PLR2004
                for _ in self.pieces():
                    pass
        with suppress(Exception):
            self._response.close()

    # -- what it means --------------------------------------------------------------------------

    def check(self) -> None:
        """Raise the error that the status stands for, if it is one.

        Raises
        ------
        BrokenAnswer
            Where the Hub may say something else soon.
        FileNotFoundError
            Where the repository is there and the entry is not.
        TierUnavailable
            Everything else.
        """
        if self.status < 400 or self.status == 416:  # noqa: PLR2004 - a range is not an error
            if self.header("Content-Encoding") not in {"", "identity"}:
                raise TierUnavailable(f"{self.where}: is sent encoded, plain bytes were asked for")
            return
        if self.status in _AGAIN:
            raise BrokenAnswer(self.said(), self._after())
        if self.status == 412:  # noqa: PLR2004 - precondition failed
            raise ParentMoved("others keep committing to the repository")
        raise self._error()

    def _error(self) -> Exception:
        code, message = self.header("X-Error-Code"), self.header("X-Error-Message")
        if code == "EntryNotFound":
            return FileNotFoundError(errno.ENOENT, "No such file", self.where)
        if code == "RevisionNotFound":
            return TierUnavailable(f"{self.where}: the repository has no such branch or revision")
        if code == "GatedRepo":
            text = "the repository is gated; ask for access on its page, and give a token"
            return TierUnavailable(f"{self.where}: {text}", errno.EACCES)
        if self.status == 401 and "credentials" in message.lower():  # noqa: PLR2004
            return TierUnavailable(f"{self.where}: the Hub does not know the token", errno.EACCES)
        if code == "RepoNotFound" or self.status == 401:  # noqa: PLR2004
            return NoRepository(
                f"{self.where}: no such dataset repository, or it is private and "
                f"{'this token may not see it' if self._token else 'no token is given'}",
                errno.EACCES,
            )
        if self.status == 403:  # noqa: PLR2004
            text = "give a token that may do this (HF_TOKEN, or hf auth login)"
            return TierUnavailable(f"{self.where}: {self.said()}; {text}", errno.EACCES)
        return TierUnavailable(f"{self.where}: {self.said()}")

    def said(self) -> str:
        """Status and the Hub's own words, in one line without the token."""
        words = self.header("X-Error-Message") or self._body_error()
        text = f"{self.status} {self._response.reason_phrase}"
        text = f"{text} ({words[:300]})" if words else text
        if self._token:
            text = text.replace(self._token, "…")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())

    def _body_error(self) -> str:
        data = b""
        with suppress(Exception):
            for piece in self.pieces():
                data += piece
                if len(data) > _DRAINED:
                    return ""
            found = json.loads(data)["error"]
            return found if isinstance(found, str) else ""
        return ""

    def _after(self) -> float:
        """Seconds that the Hub asks to wait: ``RateLimit`` or ``Retry-After``."""
        from huggingface_hub.utils import parse_ratelimit_headers

        limit = parse_ratelimit_headers(self._response.headers)
        if self.status == 429 and limit is not None and not limit.remaining:  # noqa: PLR2004
            return float(limit.reset_in_seconds)
        text = self.header("Retry-After")
        if re.fullmatch(r"[0-9]{1,9}", text):
            return float(text)
        with suppress(ValueError, TypeError, OverflowError):
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        return 0.0
