"""Objects of a bucket through obstore, whose compiled code moves bytes without the interpreter."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from tieredstore.backend import FileStat
from tieredstore.backends.s3.access import CONNECT, TRIES, Access
from tieredstore.backends.s3.objects import Lost, Objects, missing, one_line
from tieredstore.errors import ArtifactChanged, ManifestError, TierUnavailable

_DELETED_AT_ONCE: Final = 1000


class Obstore(Objects):
    """Through obstore."""

    def __init__(self, access: Access, prefix: str) -> None:
        super().__init__(access, prefix)
        import obstore
        from obstore.store import S3Store

        _ = access.credentials  # what is missing is said in a line of its own
        endpoint = access.endpoint
        config: dict[str, Any] = {"region": access.region, "skip_signature": access.anon}
        if endpoint is not None:
            config["endpoint"] = endpoint.rstrip("/")
            config["virtual_hosted_style_request"] = False
        if not access.preset.bulk_delete:
            config["disable_bulk_delete"] = True
        plain = endpoint is not None and endpoint.startswith("http://")
        self._obstore = obstore
        self._store = S3Store(
            access.bucket,
            config=config,  # type: ignore[arg-type]
            client_options={
                "allow_http": plain,
                "connect_timeout": timedelta(seconds=CONNECT),
                "timeout": timedelta(seconds=access.preset.answer),
            },
            retry_config={
                "max_retries": TRIES,
                "retry_timeout": timedelta(seconds=access.preset.answer),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=5),
                    "base": 2,
                },
            },
            credential_provider=None if access.anon else access.provide,  # type: ignore[arg-type]
        )

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        """Turn what obstore raises into the errors that `Objects` promises, in one line each."""
        from obstore import exceptions

        where = f"{self.place}/{path}"
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise TierUnavailable(f"{self.place}: there is no such bucket") from None
            raise missing(path) from None
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            raise Lost(where) from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            said = one_line(str(error))
            raise PermissionError(errno.EACCES, f"access denied ({said})", where) from None
        except exceptions.BaseError as error:
            raise TierUnavailable(f"{where}: {one_line(str(error))}") from None

    def stat(self, path: str) -> FileStat:
        """See `Objects.stat`."""
        with self._told(path):
            return self._stat(path, self._obstore.head(self._store, self.key(path)))

    @staticmethod
    def _stat(path: str, meta: Any) -> FileStat:
        mtime_ns = int(meta["last_modified"].timestamp() * 1e9)
        return FileStat(path, meta["size"], mtime_ns, 0o644, meta["e_tag"] or "")

    def get(self, path: str, limit: int) -> tuple[bytes, str]:
        """See `Objects.get`."""
        with self._told(path):
            found = self._obstore.get(self._store, self.key(path))
            if found.meta["size"] > limit:
                raise ManifestError(f"{self.place}/{path}: larger than {limit} bytes")
            return bytes(found.bytes()), found.meta["e_tag"] or ""

    def range(self, path: str, offset: int, buffer: memoryview, tag: str) -> tuple[int, str]:
        """See `Objects.range`."""
        options: dict[str, Any] = {"range": (offset, offset + len(buffer))}
        if tag:
            options["if_match"] = tag
        try:
            with self._told(path):
                found = self._obstore.get(
                    self._store,
                    self.key(path),
                    options=options,  # type: ignore[arg-type]
                )
                data = memoryview(found.bytes())
        except Lost:
            raise ArtifactChanged(f"{self.place}/{path}: changed while it was read") from None
        except TierUnavailable:
            if offset < self.stat(path).size:
                raise
            return 0, tag  # the server refuses a range that begins at the end or behind it
        if len(data) > len(buffer):
            raise OSError(errno.EIO, f"{len(data)} bytes for a range of {len(buffer)}", path)
        buffer[: len(data)] = data
        return len(data), found.meta["e_tag"] or ""

    def put(self, path: str, data: bytes | memoryview) -> str:
        """See `Objects.put`."""
        return self._put(path, data, "overwrite")

    def create(self, path: str, data: bytes) -> str:
        """See `Objects.create`."""
        return self._put(path, data, "create")

    def replace(self, path: str, data: bytes, tag: str) -> str:
        """See `Objects.replace`."""
        return self._put(path, data, {"e_tag": tag})

    def _put(self, path: str, data: bytes | memoryview, mode: Any) -> str:
        with self._told(path):
            key = self.key(path)
            done = self._obstore.put(self._store, key, data, mode=mode, use_multipart=False)
            return done["e_tag"] or ""

    def list(self, folder: str) -> Iterator[FileStat]:
        """See `Objects.list`."""
        below = f"{self._prefix}/{folder}".strip("/") or None
        with self._told(folder):
            for chunk in self._obstore.list(self._store, prefix=below):
                for meta in chunk:
                    yield self._stat(self.path(meta["path"]), meta)

    def delete(self, paths: Sequence[str]) -> None:
        """See `Objects.delete`."""
        keys = [self.key(path) for path in paths]
        for at in range(0, len(keys), _DELETED_AT_ONCE):
            with self._told(paths[at]):
                self._obstore.delete(self._store, keys[at : at + _DELETED_AT_ONCE])

    def delete_version(self, path: str, tag: str) -> None:
        """See `Objects.delete_version`: obstore has no such condition."""
        from tieredstore.backends.s3.botocore import Botocore

        Botocore(self._access, self._prefix).delete_version(path, tag)
