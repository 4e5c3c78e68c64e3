"""Where an S3 bucket is and by whose right it is used: one place for every client of it.

Credentials, region and endpoint come from the configuration, else from the usual AWS chain as
botocore walks it (environment, profile, container, instance).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from tieredstore.backends.s3.environment import Keys, keys, names_no_proxy
from tieredstore.errors import ConfigError, TierUnavailable, reason

CONNECT: Final = 10  # seconds
ANSWER: Final = 60  # seconds
TRIES: Final = 5
_REGION: Final = "us-east-1"
_REFRESHED: Final = timedelta(minutes=5)  # how long a copy of changing credentials is used
_CONNECTIONS: Final = 64
_RUNPOD: Final = ".runpod.io"


@dataclass(frozen=True, slots=True)
class Preset:
    """What a particular S3 server can and cannot do.

    Attributes
    ----------
    bulk_delete : bool
        Many keys are deleted in one request.
    lagging : float
        Seconds for which it may deny what it has just taken.
    answer : float
        Seconds that an answer may take.
    completing : float
        Seconds for which it may go on to put an upload's parts together after it said that it
        could not.
    """

    bulk_delete: bool = True
    lagging: float = 0.0
    answer: float = ANSWER
    completing: float = 0.0


PRESETS: Final[Mapping[str, Preset]] = {
    "": Preset(),
    "runpod": Preset(bulk_delete=False, lagging=60.0, answer=300.0, completing=600.0),
}


def preset_of(name: str | None, endpoint_url: str | None) -> Preset:
    """The preset of that name, or the one that the endpoint's host suggests.

    Raises
    ------
    ConfigError
        When there is none of that name.
    """
    if name is None:
        host = urlsplit(endpoint_url or "").hostname or ""
        name = "runpod" if host.endswith(_RUNPOD) else ""
    if name not in PRESETS:
        known = ", ".join(repr(key) for key in PRESETS if key)
        raise ConfigError(f"preset is {name!r}, expected one of {known}")
    return PRESETS[name]


class Access:
    """The way to one bucket.

    Parameters
    ----------
    bucket : str
        Its name.
    endpoint_url, region, profile : str or None
        From the configuration; what is not given there is asked of the AWS chain.
    anon : bool
        Requests are not signed.
    preset : Preset
        What the server can do.
    """

    def __init__(
        self,
        bucket: str,
        endpoint_url: str | None,
        region: str | None,
        profile: str | None,
        preset: Preset,
    ) -> None:
        self.bucket = bucket
        self.preset = preset
        self.anon = False
        self.environment: Mapping[str, str] = {}
        self._given: Keys | None = None
        self._looked = False
        self._endpoint = endpoint_url
        self._region = region
        self._profile = profile
        self._lock = threading.RLock()
        self._session: Any = None
        self._client: Any = None

    @property
    def endpoint(self) -> str | None:
        """URL of the server; ``None``: Amazon's."""
        if self._endpoint is not None:
            return self._endpoint
        from botocore.configprovider import ConfiguredEndpointProvider

        session = self._opened()
        found: str | None = ConfiguredEndpointProvider(
            session.full_config, session.get_scoped_config(), "s3"
        ).provide()
        return found

    @property
    def certificates(self) -> str | None:
        """The certificates that servers are checked with, where others than usual are named."""
        if (self._endpoint or "").startswith("http://"):
            return None
        found: str | None = self._opened().get_config_variable("ca_bundle")
        return found

    @property
    def region(self) -> str:
        """The region, ``us-east-1`` where nothing names one."""
        named = self._region or getattr(self._keys(), "region", "")
        return named or self._opened().get_config_variable("region") or _REGION

    @property
    def credentials(self) -> Any:
        """Key, secret and token as they are now; ``None`` for unsigned requests.

        Raises
        ------
        TierUnavailable
            When the AWS chain has none.
        """
        if self.anon:
            return None
        given = self._keys()
        if given is not None:
            return given
        try:
            found = self._opened().get_credentials()
            frozen = None if found is None else found.get_frozen_credentials()
        except Exception as error:
            raise TierUnavailable(f"s3://{self.bucket}: credentials: {reason(error)}") from error
        if frozen is None or not frozen.access_key or not frozen.secret_key:
            raise TierUnavailable(
                f"s3://{self.bucket}: no AWS credentials found; set AWS_ACCESS_KEY_ID and "
                f"AWS_SECRET_ACCESS_KEY, name a profile, or set anon = true for a public bucket"
            )
        return frozen

    def provide(self) -> dict[str, Any]:
        """The credentials as obstore asks for them."""
        now = self.credentials
        changes = self._keys() is None and hasattr(
            self._opened().get_credentials(), "refresh_needed"
        )
        until = datetime.now(UTC) + _REFRESHED if changes else None
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": until,
        }

    def is_proxied(self, url: str) -> bool:
        """Whether the environment names a proxy for a URL, as botocore understands it."""
        if names_no_proxy(self.environment):
            return False
        from botocore.utils import get_environ_proxies

        return bool(get_environ_proxies(url))

    def _keys(self) -> Keys | None:
        """Keys that need no session; looked for once, as botocore does."""
        if not self._looked:
            self._given = None if self._profile is not None else keys(self.environment)
            self._looked = True
        return self._given

    def client(self) -> Any:
        """A botocore client, made when first asked for; used by several threads."""
        from botocore import UNSIGNED
        from botocore.config import Config

        session = self._opened()
        if not self.anon:
            _ = self.credentials  # says what is missing in a line of its own
        settings = {
            "max_pool_connections": _CONNECTIONS,
            "connect_timeout": CONNECT,
            "read_timeout": self.preset.answer,
            "retries": {"mode": "standard", "total_max_attempts": TRIES},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        if self.anon:
            settings["signature_version"] = UNSIGNED
        endpoint = self.endpoint
        if endpoint is not None:
            settings["s3"] = {"addressing_style": "path"}
        with self._lock:
            if self._client is None:
                self._client = session.create_client(
                    "s3",
                    region_name=self.region,
                    endpoint_url=endpoint,
                    config=Config(**settings),
                )
        return self._client

    def _opened(self) -> Any:
        """The session, made when first asked for: a hit never loads botocore."""
        with self._lock:
            if self._session is None:
                try:
                    from botocore.session import Session

                    self._session = Session(profile=self._profile)
                    self._session.full_config  # noqa: B018 - reads the files, once
                except Exception as error:
                    raise TierUnavailable(f"s3://{self.bucket}: {reason(error)}") from error
        return self._session
