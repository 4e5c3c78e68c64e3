"""Signed requests to one bucket by connections of our own, and when they are not the way to go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlsplit

from tieredstore.backends.s3.access import Access
from tieredstore.backends.s3.signing import Signer
from tieredstore.backends.s3.wire import Incoming, Wire

_NONE: Final[Mapping[str, str]] = {}


class Bucket:
    """One bucket below the URL ``base``, which has no slash at its end."""

    def __init__(self, access: Access, base: str) -> None:
        self._wire = Wire(base, access.preset.answer, access.certificates)
        self._path = urlsplit(base).path
        self._signer = Signer(access)

    @classmethod
    def direct(cls, access: Access) -> Bucket | None:
        """The bucket on a server of its own; ``None`` on Amazon's many hosts and behind a proxy."""
        endpoint = access.endpoint
        if endpoint is None or access.is_proxied(endpoint):
            return None
        return cls(access, f"{endpoint.rstrip('/')}/{access.bucket}")

    @classmethod
    def anywhere(cls, access: Access) -> Bucket | None:
        """The bucket also on Amazon's hosts, which botocore knows; ``None`` behind a proxy."""
        if access.endpoint is not None:
            return cls.direct(access)
        names = {"Bucket": access.bucket, "Key": "k"}
        url = urlsplit(access.client().generate_presigned_url("put_object", Params=names))
        base = f"{url.scheme}://{url.netloc}{url.path.removesuffix('/k')}"
        return None if access.is_proxied(base) else cls(access, base)

    def ask(
        self,
        method: str,
        key: str,
        fields: Mapping[str, str] = _NONE,
        body: bytes | memoryview = b"",
        query: str = "",
    ) -> Incoming:
        """Send a request about an object; ``query`` is encoded and in order.

        Raises
        ------
        NoAnswer
            When none came that could be read.
        OSError
            When the credentials cannot be had.
        """
        target = f"{self._path}/{quote(key, safe='/~')}" + (f"?{query}" if query else "")
        signed = self._signer.signed(method, self._wire.host, target, fields, body)
        return self._wire.ask(method, target, signed, body)
