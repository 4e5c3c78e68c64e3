"""Requests to the Hub: token, redirects, retries, and the words for what goes wrong.

Nothing here knows of files or artifacts. ``huggingface_hub`` says where the Hub is, who its user
is and whether requests may be made at all; its HTTP client is used through connections of our
own, because the shared ones wait for ever, and for as long as a server asks.
"""

from __future__ import annotations

import os
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit, urlunsplit

from tieredstore.backends.attempts import Attempts
from tieredstore.backends.hf.answer import Answer
from tieredstore.backends.hf.repo import same_origin
from tieredstore.backends.http.answer import BrokenAnswer
from tieredstore.errors import ConfigError, TierTimeout, TierUnavailable

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
Body = bytes | Callable[[], Iterator[bytes]]

_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_KEEPS_BODY: Final = frozenset({307, 308})
_REDIRECTS: Final = 10
_LONGEST_PAUSE: Final = 8.0  # seconds
_NOT_INSTALLED: Final = (
    "huggingface_hub is not installed, which backend 'hf' needs; pip install 'tieredstore[hf]'"
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes
    ----------
    method, url : str
        What is asked; a URL that begins with a slash is the endpoint's.
    where : str
        How messages call what is asked for.
    headers : mapping
        Sent wherever a redirect leads, so never the token.
    body : bytes or callable
        What is sent; a callable gives its pieces anew each time it is sent.
    leave : bool
        Whether redirects to another server are followed.
    """

    method: str
    url: str
    where: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = b""
    leave: bool = True


class HubClient:
    """Requests to one endpoint.

    Parameters
    ----------
    place : str
        How messages call the tier.
    token : str, optional
        Sent to the endpoint only; by default what huggingface_hub finds (``HF_TOKEN``, a login).
    timeout : float
        Seconds to wait for a connection, and for the next byte.
    retry_for : float
        Seconds within which one request is tried again.
    """

    def __init__(self, place: str, token: str | None, timeout: float, retry_for: float) -> None:
        if token and not _is_token(token):
            raise ConfigError("token is no access token of the Hub")
        self.place = place
        self._token = token or None
        self.timeout = timeout
        self.retry_for = retry_for
        self._lock = threading.Lock()
        self._http: httpx2.Client | None = None
        self._process = 0

    @property
    def given_token(self) -> str | None:
        """The token that was given, and not one that was found; never to be shown."""
        return self._token

    @property
    def endpoint(self) -> str:
        """Where the Hub is, ``HF_ENDPOINT`` considered."""
        hub()
        from huggingface_hub import constants

        return constants.ENDPOINT

    @property
    def token(self) -> str | None:
        """The token to send, if any."""
        if self._token is not None:
            return self._token
        from huggingface_hub import constants

        found = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else hub().get_token()
        if found and not _is_token(found):
            raise TierUnavailable(f"{self.place}: HF_TOKEN, or the stored one, is no access token")
        return str(found) if found else None

    def hidden(self, text: str) -> str:
        """Text of somebody else's, without the token."""
        token = self.token
        return text.replace(token, "…") if token else text

    def url(self, url: str) -> str:
        """A whole URL; one of the public Hub is asked of the endpoint that stands for it."""
        from huggingface_hub.utils import fix_hf_endpoint_in_url

        if url.startswith("/"):
            return self.endpoint + url
        return fix_hf_endpoint_in_url(url, self.endpoint)

    def ask(
        self, request: Request, use: Callable[[Answer], T], moved: Callable[[], int] | None = None
    ) -> T:
        """Send a request and hand its answer to ``use``; both again where that may help.

        Raises
        ------
        FileNotFoundError
            When the Hub says that there is no such entry.
        TierUnavailable
            When no usable answer came within ``retry_for`` seconds.
        """

        def once(timeout: float) -> T:
            with self.send(request, timeout) as answer:
                answer.check()
                return use(answer)

        return self.again(request.where, once, moved)

    def again(
        self, where: str, once: Callable[[float], T], moved: Callable[[], int] | None = None
    ) -> T:
        """Call ``once`` with a time-out until it succeeds; see `ask`.

        Parameters
        ----------
        where : str
            What messages name.
        once : callable
            One attempt.
        moved : callable, optional
            How far the bytes have come, over all attempts: whenever they have come further, the
            time to try again begins anew.
        """
        self.check_online()
        import httpx2

        attempts, before = Attempts(self.timeout, self.retry_for, _LONGEST_PAUSE), 0
        kind: type[TierUnavailable]
        while True:
            try:
                return once(attempts.begin())
            except BrokenAnswer as broken:
                why, after, kind = str(broken), broken.after, TierUnavailable
            except (httpx2.RequestError, httpx2.InvalidURL, httpx2.StreamError) as error:
                why, after = self._words(error), 0.0
                late = isinstance(error, httpx2.TimeoutException)
                kind = TierTimeout if late else TierUnavailable
                if not _worth_retrying(error):
                    raise TierUnavailable(f"{where}: {why}") from None
            if moved is not None and moved() > before:
                before = moved()
                attempts.renew()
            attempts.wait(kind, f"{where}: {why}", after)

    @contextmanager
    def send(self, request: Request, timeout: float) -> Iterator[Answer]:
        """Send a request once, and follow where it is redirected."""
        url, before = self.url(request.url), None
        for _ in range(_REDIRECTS):
            response = self._send(request, url, timeout)
            answer = Answer(response, request.where, self.token, before)
            try:
                target = self._target(request, url, answer)
                if target is None:
                    yield answer
                    return
            finally:
                answer.close()
            url, before = target, answer
        raise TierUnavailable(f"{request.where}: redirected more than {_REDIRECTS} times")

    def check_online(self) -> None:
        """Refuse to make a request where the user wants none made."""
        if hub().is_offline_mode():
            raise TierUnavailable(
                f"{self.place}: offline (HF_HUB_OFFLINE is set), so the Hub is not asked"
            )

    def _send(self, request: Request, url: str, timeout: float) -> httpx2.Response:
        headers = {"Accept-Encoding": "identity", **request.headers}
        token = self.token
        if token and same_origin(url, self.endpoint):
            headers["Authorization"] = f"Bearer {token}"
        content = request.body if isinstance(request.body, bytes) else request.body()
        http = self._connections()
        built = http.build_request(
            request.method, url, headers=headers, content=content or None, timeout=timeout
        )
        return http.send(built, stream=True, follow_redirects=False)

    def _target(self, request: Request, url: str, answer: Answer) -> str | None:
        """Where an answer sends us; ``None`` where it is the one to use."""
        location = answer.header("Location")
        if answer.status not in _MOVED or not location:
            return None
        target = urljoin(url, location)
        if not request.leave and not same_origin(url, target):
            return None
        after = urlsplit(target)
        keeps = request.method in {"GET", "HEAD"} or answer.status in _KEEPS_BODY
        secure = after.scheme == "https" or not url.startswith("https:")
        if not keeps or not secure or after.scheme not in {"http", "https"} or not after.hostname:
            raise TierUnavailable(
                f"{request.where}: redirected to {after.scheme}://{after.hostname or ''}, "
                "which is not followed"
            )
        return urlunsplit(after._replace(netloc=after.netloc.rpartition("@")[2], fragment=""))

    def _connections(self) -> httpx2.Client:
        import httpx2

        with self._lock:
            # A forked child must not talk on its parent's sockets.
            if self._http is None or self._process != os.getpid():
                agent = f"tieredstore; hf_hub/{hub().__version__}"
                limits = httpx2.Limits(max_connections=None, max_keepalive_connections=32)
                try:
                    self._http = httpx2.Client(limits=limits, headers={"User-Agent": agent})
                except (ValueError, ImportError, OSError) as error:
                    raise TierUnavailable(
                        f"{self.place}: no connections can be made with the proxies and "
                        f"certificates that the environment names ({type(error).__name__})"
                    ) from None
                self._process = os.getpid()
                weakref.finalize(self, self._http.close)
            return self._http

    def _words(self, error: BaseException) -> str:
        """What a connection died of, in words of our own; a client quotes whole URLs."""
        import httpx2

        if isinstance(error, httpx2.TimeoutException):
            return f"no answer within {self.timeout:g} s"
        for found in _causes(error):
            if isinstance(found, OSError) and found.strerror and found.errno:
                return " ".join(found.strerror.split())[:200]
        if isinstance(error, httpx2.ReadError | httpx2.WriteError | httpx2.ProtocolError):
            return "the connection broke"
        return f"no connection ({type(error).__name__})"


def hub() -> Any:
    """The Hub's own library, loaded by the first request."""
    try:
        import huggingface_hub
    except ImportError:
        raise TierUnavailable(_NOT_INSTALLED) from None
    return huggingface_hub


def _is_token(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _causes(error: BaseException) -> Iterator[BaseException]:
    left: list[BaseException | None] = [error]
    for _ in range(20):
        one = left.pop(0) if left else None
        if one is not None:
            yield one
            left += [one.__cause__, one.__context__]


def _worth_retrying(error: BaseException) -> bool:
    import httpx2

    hopeless = (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
    wrong = any(isinstance(e, ssl.SSLCertVerificationError) for e in _causes(error))
    return not isinstance(error, hopeless) and not wrong
