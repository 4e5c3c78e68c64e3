"""Requests to one web server: sessions, redirects, retries, and the words for what goes wrong.

Nothing here knows of files or artifacts; ``http.py`` does. ``requests`` is loaded by the first
request. What a client library says of a failure is never passed on: it quotes whole URLs.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit, urlunsplit

from tieredstore.backends.attempts import Attempts
from tieredstore.backends.http.answer import Answer, BrokenAnswer
from tieredstore.errors import ConfigError, TieredStoreError, TierTimeout, TierUnavailable

if TYPE_CHECKING:
    import requests

T = TypeVar("T")

_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_REDIRECTS: Final = 10
_LONGEST_PAUSE: Final = 5.0  # seconds
_OURS: Final = frozenset({"range", "if-range", "accept-encoding", "host", "connection"})


class Client:
    """Requests below one URL.

    Parameters
    ----------
    url : str
        The root; user info and query are sent along and never shown.
    headers : mapping
        Sent to the root's own scheme, host and port, and nowhere else.
    timeout : float
        Seconds to wait for a connection, and for the next byte.
    retry_for : float
        Seconds within which one request is tried again.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], timeout: float, retry_for: float
    ) -> None:
        parts = _parsed(url)
        self._root = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")
        self._origin = _origin(self._root)
        self._headers = {**_basic(parts), **_checked(headers)}
        self.timeout = timeout
        self._retry_for = retry_for
        self._idle: list[requests.Session] = []
        self._process = os.getpid()
        self.place = urlunsplit(self._root._replace(query="")).rstrip("/")

    def where(self, path: str) -> str:
        """How messages call a file."""
        return f"{self.place}/{path}"

    def ask(
        self, method: str, path: str, headers: Mapping[str, str], use: Callable[[Answer], T]
    ) -> T:
        """Send a request and hand its answer to ``use``; both again where a connection breaks.

        Raises
        ------
        FileNotFoundError
            When the path is a folder.
        TierUnavailable
            When no usable answer came within ``retry_for`` seconds.
        """

        def once(timeout: float) -> T:
            exchange = Exchange(self, timeout)
            try:
                return use(exchange.send(method, path, headers))
            finally:
                exchange.close()

        return self.again(path, once)

    def again(self, path: str, once: Callable[[float], T]) -> T:
        """Call ``once`` with a time-out until it succeeds; see `ask`."""
        import_requests()
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        attempts = Attempts(self.timeout, self._retry_for, _LONGEST_PAUSE)
        kind: type[TierUnavailable]
        while True:
            try:
                return once(attempts.begin())
            except BrokenAnswer as broken:
                why, after, kind = str(broken), broken.after, TierUnavailable
            except (RequestException, HTTPError, ConnectionError, TimeoutError) as error:
                if isinstance(error, TieredStoreError):
                    raise
                why, after = failure(error, self.timeout), 0.0
                kind = TierTimeout if _is_timeout(error) else TierUnavailable
                if not _worth_retrying(error):
                    raise TierUnavailable(f"{self.where(path)}: {why}") from None
            attempts.wait(kind, f"{self.where(path)}: {why}", after)

    # -- used by an exchange --------------------------------------------------------------------

    def take_session(self) -> requests.Session:
        """A session that no other thread uses until it is given back."""
        if self._process != os.getpid():  # a forked child must not talk on its parent's sockets
            self._idle, self._process = [], os.getpid()
        with suppress(IndexError):
            return self._idle.pop()
        from http.cookiejar import DefaultCookiePolicy

        session: requests.Session = import_requests().Session()
        session.headers["User-Agent"] = "tieredstore"
        session.auth = _as_it_is
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        return session

    def give_back(self, session: requests.Session) -> None:
        """Let another thread use a session."""
        self._idle.append(session)

    def url(self, path: str) -> str:
        """Where a file is asked for."""
        below = f"{self._root.path.rstrip('/')}/{quote(path, safe='/')}"
        return urlunsplit(self._root._replace(path=below))

    def own_headers(self, url: str) -> dict[str, str]:
        """The configured headers, where the URL is of the root's own server."""
        return self._headers if _origin(urlsplit(url)) == self._origin else {}


class Exchange:
    """One request and its answer, with redirects followed; holds a session until it is closed."""

    def __init__(self, client: Client, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._session = client.take_session()
        self._answer: Answer | None = None

    def send(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        """Send the request; the answer's status is not a temporary one."""
        url, where = self._client.url(path), self._client.where(path)
        for _ in range(_REDIRECTS):
            response = self._session.request(
                method,
                url,
                headers={**self._client.own_headers(url), **headers, "Accept-Encoding": "identity"},
                timeout=(self._timeout, self._timeout),
                stream=True,
                allow_redirects=False,
            )
            self._answer = Answer(response, where)
            target = self._session.get_redirect_target(response)
            if response.status_code not in _MOVED or not target:
                self._answer.check_temporary()
                return self._answer
            self._answer.close()
            url = _redirected(url, target, where)
        raise TierUnavailable(f"{where}: redirected more than {_REDIRECTS} times")

    def close(self) -> None:
        """Let go of the answer, and hand the session on."""
        if self._answer is not None:
            self._answer.close()
        self._client.give_back(self._session)


def _redirected(url: str, target: str, where: str) -> str:
    before = urlsplit(url)
    try:
        after = urlsplit(urljoin(url, target))
        host, same = after.hostname, _origin(before) == _origin(after)
    except ValueError:
        raise TierUnavailable(f"{where}: redirected to what is no URL") from None
    if same and unquote(after.path) == unquote(before.path) + "/":
        raise FileNotFoundError(errno.ENOENT, "A folder, not a file", where)
    if (
        after.scheme not in {"http", "https"}
        or not host
        or (before.scheme, after.scheme) == ("https", "http")
    ):
        raise TierUnavailable(
            f"{where}: redirected from {before.scheme} to {after.scheme}://{host or ''}, "
            "which is not followed"
        )
    return urlunsplit(after._replace(netloc=after.netloc.rpartition("@")[2], fragment=""))


def import_requests() -> Any:
    """The client library, loaded by the first request."""
    try:
        import requests
    except ImportError:
        raise TierUnavailable(
            "requests is not installed, which backend 'http' needs; pip install 'tieredstore[http]'"
        ) from None
    return requests


def failure(error: BaseException, timeout: float) -> str:
    """What a connection died of, in words of our own."""
    if _is_timeout(error):
        return f"no answer within {timeout:g} s"
    for found in _causes(error):
        if isinstance(found, OSError) and found.strerror and not _of_client(found):
            return " ".join(found.strerror.split())[:200]
    kinds = {type(found).__name__ for found in _causes(error)}
    if kinds & {"IncompleteRead", "ProtocolError", "InvalidChunkLength", "ChunkedEncodingError"}:
        return "the connection broke"
    return f"no connection ({type(error).__name__})"


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    left = [error]
    while left and len(found) < 20:  # noqa: PLR2004 - chains are short
        one = left.pop(0)
        found.append(one)
        inner = [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
        left += [e for e in inner if isinstance(e, BaseException) and e not in found]
    return found


def _of_client(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in {"requests", "urllib3"}


def _is_timeout(error: BaseException) -> bool:
    return isinstance(error, TimeoutError) or any(
        _of_client(e) and "Timeout" in type(e).__name__ for e in _causes(error)
    )


def _worth_retrying(error: BaseException) -> bool:
    kinds = {type(e).__name__ for e in _causes(error)}
    return not kinds & {"SSLError", "SSLCertVerificationError", "InvalidURL", "InvalidHeader"}


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    usual = 443 if parts.scheme == "https" else 80
    return parts.scheme, (parts.hostname or "").lower(), parts.port or usual


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and _origin(parts)
    except ValueError:
        good = ""
    if not good or not url.isprintable() or " " in url:
        raise ConfigError("url is no HTTP address; expected such as 'https://host/folder'")
    return parts


def _basic(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    from base64 import b64encode

    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or name.lower() in _OURS:
            raise ConfigError(f"headers: {name!r} cannot be set")
        if not isinstance(value, str) or not value.isprintable() or not value.isascii():
            raise ConfigError(f"headers: {name} is no line of plain text")
        if value != value.strip():
            raise ConfigError(f"headers: {name} begins or ends with a space")
    return dict(headers)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep the library from looking for credentials in ``~/.netrc``."""
    return request
