"""Signatures of requests: AWS Signature Version 4 for S3, in the header of each request.

As the Amazon S3 API reference says under "Authenticating Requests (AWS Signature Version 4)":
S3 signs the path as it is sent, encoded once. botocore signs too, and takes ten times as long,
which many small objects show.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any, Final

from tieredstore.backends.s3.access import Access

_EMPTY: Final = hashlib.sha256().hexdigest()
_KEYS: Final = 8  # signing keys that are remembered: one for each day and secret


class Signer:
    """Signs requests by the right of one `Access`; used by several threads."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._keys: dict[tuple[str, str], bytes] = {}

    def signed(
        self,
        method: str,
        host: str,
        target: str,
        fields: Mapping[str, str],
        body: bytes | memoryview = b"",
    ) -> dict[str, str]:
        """The header fields of a request, and those that sign all of them and its body.

        Parameters
        ----------
        method, host, target : str
            Of the request; in ``target`` the path and, encoded and in order, the query.
        fields : mapping
            Header fields that are to be signed.
        body : bytes-like
            What is sent.
        """
        found = {name.lower(): value for name, value in fields.items()}
        now = self._access.credentials
        if now is None:
            return found
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        digest = hashlib.sha256(body).hexdigest() if len(body) else _EMPTY
        found |= {"x-amz-content-sha256": digest, "x-amz-date": stamp}
        if now.token:
            found["x-amz-security-token"] = now.token
        named = sorted({**found, "host": host}.items())
        names = ";".join(name for name, _ in named)
        path, _, query = target.partition("?")
        lines = "".join(f"{name}:{value.strip()}\n" for name, value in named)
        request = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{digest}"
        scope = f"{stamp[:8]}/{self._access.region}/s3/aws4_request"
        said = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._key(now, scope), said.encode(), "sha256").hex()
        found["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={now.access_key}/{scope}, SignedHeaders={names}, "
            f"Signature={signature}"
        )
        return found

    def _key(self, now: Any, scope: str) -> bytes:
        """The key of a day, derived from the secret."""
        known = (now.secret_key, scope)
        key = self._keys.get(known)
        if key is None:
            key = f"AWS4{now.secret_key}".encode()
            for part in scope.split("/"):
                key = hmac.digest(key, part.encode(), "sha256")
            if len(self._keys) >= _KEYS:
                self._keys.clear()
            self._keys[known] = key
        return key
