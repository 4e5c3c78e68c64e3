"""Requests whose bytes go straight between a socket and the caller's memory: parts and ranges.

A client that hands each range over in memory of its own has the kernel clear that memory first,
which costs as much again as receiving it. Sent by botocore's own HTTP session, which knows of
proxies and certificates. One attempt each: what to do about a failure is for the caller to say.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote

from tieredstore.backends.s3.access import CONNECT, Access

_CHUNK: Final = 1 << 20  # bytes handed to the socket at once, so that a stall is noticed
_SAID: Final = 2000  # bytes of an answer that are looked at
_PARTIAL: Final = 206
_CONNECTIONS: Final = 64


class Wire:
    """Signed requests to one bucket."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._session: Any = None

    def put(self, url: str, data: memoryview) -> tuple[int, str, str]:
        """Send bytes; gives the status, the ETag and the beginning of what the server says."""
        headers = self._access.signed("PUT", url, data)
        headers["Content-Length"] = str(len(data))
        chunks = (data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK))
        answer = self._send("PUT", url, headers, chunks)
        said = bytes(answer.content[:_SAID]).decode(errors="replace")
        return answer.status_code, answer.headers.get("ETag", ""), said

    def url(self, key: str) -> str | None:
        """Where a key lies on a server that is not Amazon's; ``None`` on Amazon's many hosts."""
        endpoint = self._access.endpoint
        if endpoint is None:
            return None
        return f"{endpoint.rstrip('/')}/{self._access.bucket}/{quote(key, safe='/~')}"

    def get(self, url: str, offset: int, view: memoryview, tag: str) -> str | None:
        """Fill a buffer with the bytes from ``offset`` on.

        Returns
        -------
        str or None
            The ETag of the object; ``None`` where the answer was anything but these bytes, of the
            version ``tag`` where one is given.
        """
        headers = self._access.signed("GET", url, memoryview(b""))
        headers["Range"] = f"bytes={offset}-{offset + len(view) - 1}"
        headers["Accept-Encoding"] = "identity"
        if tag:
            headers["If-Match"] = tag
        answer = self._send("GET", url, headers, None)
        whole = False
        try:
            whole = _is_asked(answer, offset, len(view)) and _fill(answer.raw, view)
        finally:
            if whole:
                answer.raw.release_conn()
            else:
                answer.raw.close()
        found: str = answer.headers.get("ETag", "")
        return found if whole and (not tag or found == tag) else None

    def _send(self, method: str, url: str, headers: dict[str, str], body: Any) -> Any:
        from botocore.awsrequest import AWSPreparedRequest, HeadersDict

        stream = body is None
        request = AWSPreparedRequest(method, url, HeadersDict(headers), body, stream)
        return self._opened(url).send(request)

    def _opened(self, url: str) -> Any:
        with self._lock:
            if self._session is None:
                from botocore.httpsession import URLLib3Session
                from botocore.utils import get_environ_proxies

                self._session = URLLib3Session(
                    verify=self._access.certificates or True,
                    proxies=get_environ_proxies(url),
                    timeout=(CONNECT, self._access.preset.answer),
                    max_pool_connections=_CONNECTIONS,
                )
        return self._session


def _is_asked(answer: Any, offset: int, size: int) -> bool:
    begin = answer.headers.get("Content-Range", "").partition("/")[0]
    if answer.status_code != _PARTIAL or begin != f"bytes {offset}-{offset + size - 1}":
        return False
    return str(answer.headers.get("Content-Length", "")) == str(size)


def _fill(raw: Any, view: memoryview) -> bool:
    """Receive into the caller's memory: http.client does, where urllib3 would copy twice."""
    source = getattr(raw, "_fp", None)
    if source is None or not hasattr(source, "readinto"):
        return False
    got = 0
    with suppress(OSError):
        while got < len(view):
            size = source.readinto(view[got : got + _CHUNK])
            if not size:
                break
            got += size
    return got == len(view)
