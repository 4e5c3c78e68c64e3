"""Where a preparer's input comes from: a URL, a file, or text that is already on the machine.

Inputs that fit in memory; they are checked against their sha256 before anything is made of them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

from datasets_prep.errors import SourceError, reason

if TYPE_CHECKING:
    import requests

MAX_INPUT: Final = 4 << 30  # bytes
TRIES: Final = 4
TIMEOUTS: Final = (10.0, 60.0)  # seconds to connect, and between two reads
WAIT: Final = 0.25  # seconds before the second try; twice as long before each further one
_CHUNK: Final = 1 << 20
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Source:
    """One input.

    Parameters
    ----------
    shown : str
        How messages and facts call it, without credentials.
    load : callable
        Gives its bytes.
    sha256 : str, optional
        What it must have, in hexadecimal.
    key : str
        Tells one URL from another where the content is not known beforehand.
    """

    def __init__(
        self, shown: str, load: Callable[[], bytes], sha256: str | None = None, key: str = ""
    ) -> None:
        self.shown = shown
        self.sha256 = sha256
        self.key = key
        self._load = load
        self._data: bytes | None = None

    @property
    def is_url(self) -> bool:
        """Whether it is fetched over the network."""
        return is_url(self.shown)

    def read(self) -> bytes:
        """All of it, read once.

        Raises
        ------
        SourceError
            When it cannot be had, or is not what was expected.
        """
        if self._data is None:
            data = self._load()
            found = hashlib.sha256(data).hexdigest()
            if self.sha256 not in {None, found}:
                raise SourceError(
                    f"{self.shown}: sha256 {found}, expected {self.sha256}; it was changed or "
                    f"damaged: give a copy you trust with --source"
                )
            self._data = data
        return self._data

    def digest(self) -> str:
        """Its sha256, read for it where that is not known."""
        return self.sha256 or hashlib.sha256(self.read()).hexdigest()


def is_url(location: str) -> bool:
    """Whether a location is a URL rather than a path."""
    return location.lower().startswith(("http://", "https://"))


def source_at(location: str, sha256: str | None = None) -> Source:
    """The source at a URL or path.

    Parameters
    ----------
    location : str
        ``http://``, ``https://``, or the path of a file.
    sha256 : str, optional
        What it must have.

    Raises
    ------
    SourceError
        For another kind of URL.
    """
    if is_url(location):
        key = "" if sha256 else hashlib.sha256(location.encode()).hexdigest()
        return Source(_without_secrets(location), partial(_fetch, location), sha256, key)
    if "://" in location:
        raise SourceError(f"{location}: expected http://, https://, or the path of a file")
    return Source(location, partial(_read_file, Path(location)), sha256)


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _read_file(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_INPUT:
            raise SourceError(f"{path}: larger than {MAX_INPUT} bytes")
        return path.read_bytes()
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"source {path}: {error.strerror or error}") from None


def _fetch(url: str) -> bytes:
    """Fetch a URL, tried again where that may help."""
    import requests

    problem = ""
    with requests.Session() as session:
        for attempt in range(TRIES):
            if attempt:
                time.sleep(WAIT * 2 ** (attempt - 1))
            try:
                return _fetch_once(session, url)
            except requests.HTTPError as error:
                status = error.response.status_code if error.response is not None else 0
                problem = f"the server answered {status}"
                if status not in _PASSING:
                    break
            except (requests.ConnectionError, requests.Timeout) as error:
                problem = _short(error)
            except requests.RequestException as error:
                problem = _short(error)
                if not isinstance(error, requests.exceptions.ChunkedEncodingError):
                    break
    raise SourceError(
        f"{_without_secrets(url)}: cannot be downloaded ({problem}); "
        f"check the connection, or give a copy with --source PATH"
    )


def _fetch_once(session: requests.Session, url: str) -> bytes:
    data = bytearray()
    with session.get(url, timeout=TIMEOUTS, stream=True) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_content(_CHUNK):
            data += chunk
            if len(data) > MAX_INPUT:
                raise SourceError(f"{_without_secrets(url)}: larger than {MAX_INPUT} bytes")
    return bytes(data)


def _short(error: BaseException) -> str:
    """The innermost cause: what the libraries between have wrapped says little more."""
    text = f"{type(error).__name__}: {reason(error)}"
    for known in (
        "Name or service not known",
        "Temporary failure in name resolution",
        "Connection refused",
        "Network is unreachable",
        "timed out",
        "IncompleteRead",
    ):
        if known in text:
            return known
    return type(error).__name__
