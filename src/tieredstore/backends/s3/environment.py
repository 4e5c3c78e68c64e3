"""The first step of the AWS chain without botocore: keys and region that the environment holds.

Loading botocore takes a tenth of a second, which small artifacts show. Whatever says that another
step may count (a profile, keys that expire, a missing region) leaves everything to botocore. The
variables and what they mean are botocore's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_OTHERWISE: Final = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_SECURITY_TOKEN",
)


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials that stay as they are; botocore's have the same attributes."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)
    region: str


def keys(variables: Mapping[str, str]) -> Keys | None:
    """What the environment says; ``None`` where it is for botocore to find out."""
    if any(name in variables for name in _OTHERWISE):
        return None
    found = [
        variables.get(name, "")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    ]
    if not all(found):
        return None
    key, secret, region = found
    return Keys(key, secret, variables.get("AWS_SESSION_TOKEN") or None, region)


def names_no_proxy(variables: Mapping[str, str]) -> bool:
    """Whether no request can go by a proxy; elsewhere than on Linux the system may name one."""
    named = any(name.lower().endswith("_proxy") for name in variables)
    return bool(variables) and not named and sys.platform == "linux"
