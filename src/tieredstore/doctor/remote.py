"""What a place that is reached over a network does: S3, the Hub, a web server, whatever has keys.

Objects that are written lie below ``.tieredstore/doctor/`` (and ``.tieredstore/probe/``), and are
deleted again.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, Final
from urllib.parse import urlsplit

from tieredstore.backend import ANY_HEAD
from tieredstore.backends.hf import HubBackend
from tieredstore.backends.hf.answer import NoRepository
from tieredstore.backends.http import HttpBackend
from tieredstore.backends.s3 import S3Backend
from tieredstore.backends.s3.heads import NEVER, Heads
from tieredstore.doctor.finding import BAD, GOOD, NOTE, Check, Finding, median_of, milliseconds
from tieredstore.errors import TieredStoreError, Unsupported, reason
from tieredstore.keyed import KeyedBackend
from tieredstore.manifest.artifact import HEAD, random_hex
from tieredstore.manifest.names import RESERVED
from tieredstore.tiers.tier import Tier

_CONNECT: Final = 5.0  # seconds
_SKEWED: Final = 60.0  # seconds
_REFUSED: Final = {
    "InvalidAccessKeyId": "the server does not know this access key",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "ExpiredToken": "the session's credentials have expired; log in again",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
    "NoSuchBucket": "make the bucket, or correct the url",
    "AccessDenied": "these credentials may not list this bucket",
}


def checks(tier: Tier, names: Sequence[str]) -> list[Check]:
    """What can be tried on a tier.

    Parameters
    ----------
    tier : Tier
        The tier.
    names : sequence of str
        Artifacts that may be there, for places that cannot be listed.
    """
    backend = tier.backend
    if isinstance(backend, S3Backend):
        return _s3(backend, writable=tier.writable)
    if isinstance(backend, HubBackend):
        return _hub(backend, writable=tier.writable)
    if isinstance(backend, HttpBackend):
        return _http(backend, [tier.layout.folder(name) for name in names])
    found = [Check("reachable", lambda: _listed(tier))]
    if isinstance(backend, KeyedBackend) and tier.writable:
        found.append(Check("write", lambda: _keyed_write(backend)))
    return found


def _path() -> str:
    return f"{RESERVED}/doctor/{random_hex(8)}"


def _connect(url: str) -> Finding:
    """Whether somebody listens; not asked where a proxy stands between."""
    from urllib.request import getproxies

    parts = urlsplit(url)
    if getproxies().get(parts.scheme):
        return Finding("reachable", "by a proxy", "", GOOD, True)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    begun = time.perf_counter()
    try:
        socket.create_connection((parts.hostname or "", port), timeout=_CONNECT).close()
    except OSError as error:
        meaning = "look at the address, at the network, and whether the server runs"
        return Finding(
            "reachable", f"no: {reason(error)}", f"{parts.hostname}: {meaning}", BAD, False
        )
    taken = time.perf_counter() - begun
    return Finding("reachable", milliseconds(taken), "to connect", GOOD, taken)


def _skew(date: str) -> list[Finding]:
    """A server's clock, as the header ``Date`` tells it."""
    with suppress(ValueError, TypeError):
        off = (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
        if abs(off) >= _SKEWED:
            meaning = "signed requests are refused from some minutes on; set this machine's clock"
            return [Finding("clock", f"{off:+.0f} s", meaning, NOTE, off)]
        return [Finding("clock", f"{off:+.1f} s", "the server's against this one", GOOD, off)]
    return []


# -- S3 -----------------------------------------------------------------------------------------


def _s3(backend: S3Backend, *, writable: bool) -> list[Check]:
    found = [
        Check("credentials", lambda: _credentials(backend)),
        Check("reachable", lambda: _connect(backend.access.endpoint or "https://s3.amazonaws.com")),
        Check("bucket", lambda: _bucket(backend)),
    ]
    if writable:
        found += [
            Check("write", lambda: _s3_write(backend)),
            Check("conditional writes", lambda: _conditions(backend)),
            Check("multipart", lambda: _multipart(backend)),
        ]
    return found


def _credentials(backend: S3Backend) -> Finding:
    try:
        known = backend.access.credentials
    except TieredStoreError as error:
        return Finding("credentials", "none", reason(error), BAD, False)
    if known is None:
        return Finding("credentials", "not used", "requests are not signed", GOOD, True)
    how = getattr(known, "method", None) or "found"
    return Finding("credentials", str(how), "by the usual AWS chain", GOOD, True)


def _bucket(backend: S3Backend) -> list[Finding]:
    from botocore.exceptions import BotoCoreError, ClientError

    asked = {"Bucket": backend.access.bucket, "Prefix": backend.prefix, "MaxKeys": 1}
    begun = time.perf_counter()
    try:
        answer = backend.access.client().list_objects_v2(**asked)
    except ClientError as error:
        return [_refused(error)]
    except (BotoCoreError, OSError, TieredStoreError) as error:
        return [Finding("bucket", "no answer", reason(error), BAD, False)]
    taken = time.perf_counter() - begun
    found = Finding("bucket", f"listed in {milliseconds(taken)}", "", GOOD, True)
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return [found, *_skew(headers.get("date", ""))]


def _refused(error: Any) -> Finding:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    meaning = _REFUSED.get(code, "look at the url, the endpoint and the credentials")
    return Finding("bucket", f"refused: {code or status}", meaning, BAD, False)


def _s3_write(backend: S3Backend) -> list[Finding]:
    objects, path = backend.objects, _path()
    try:
        objects.put(path, b"x")
    except (OSError, TieredStoreError) as error:
        meaning = f"{reason(error)}: nothing can be published here"
        return [Finding("write", "refused", meaning, BAD, False)]
    try:
        put = median_of(lambda: _timed(lambda: objects.put(path, b"x")), 5)
        got = median_of(lambda: _timed(lambda: objects.get(path, 16)), 5)
    finally:
        gone = _deleted(lambda: objects.delete([path]))
    result = f"put {milliseconds(put)}, get {milliseconds(got)}"
    return [Finding("write", "works", "", GOOD, True), _latency(result, put), *gone]


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _latency(result: str, taken: float) -> Finding:
    return Finding("latency", result, "small objects", GOOD, taken)


def _deleted(delete: Callable[[], object]) -> list[Finding]:
    try:
        delete()
    except (OSError, TieredStoreError) as error:
        meaning = "replaced generations and leases stay; gc cannot drop them"
        return [Finding("delete", f"refused: {reason(error)}", meaning, NOTE, False)]
    return []


def _conditions(backend: S3Backend) -> Finding:
    found = Heads(backend.objects).found_out()
    replaces = found.replace != NEVER
    if found.create and replaces:
        result = f"If-None-Match and If-Match ({found.replace} ETag) are kept"
        return Finding(
            "conditional writes", result, "of several that publish, one wins", GOOD, True
        )
    kept = [n for n, k in (("If-None-Match", found.create), ("If-Match", replaces)) if k]
    result = f"only {kept[0]} is kept" if kept else "ignored"
    meaning = "heads are compared just before they are put, and there are no leases"
    return Finding("conditional writes", result, meaning, NOTE, False)


def _multipart(backend: S3Backend) -> Finding:
    uploads, path = backend.uploads, _path()
    upload = str(uploads.ask("create_multipart_upload", path)["UploadId"])
    try:
        tag = uploads.send(path, upload, 1, memoryview(b"parts"))
        uploads.complete(path, upload, {1: tag})
    except (OSError, TieredStoreError) as error:
        with suppress(OSError, TieredStoreError):
            uploads.ask("abort_multipart_upload", path, UploadId=upload)
        meaning = f"{reason(error)}: files of more than 16 MiB cannot be sent"
        return Finding("multipart", "refused", meaning, BAD, False)
    size = backend.objects.stat(path).size
    backend.objects.delete([path])
    if size != len(b"parts"):
        return Finding("multipart", f"{size} bytes came out of 5", "do not use it", BAD, False)
    return Finding("multipart", "works", "", GOOD, True)


# -- the Hub ------------------------------------------------------------------------------------


def _hub(backend: HubBackend, *, writable: bool) -> list[Check]:
    return [
        Check("online", lambda: _online(backend)),
        Check("reachable", lambda: _connect(backend.api.client.endpoint)),
        Check("token", lambda: _token(backend, writable=writable)),
        Check("repository", lambda: _repository(backend)),
    ]


def _online(backend: HubBackend) -> Finding:
    try:
        backend.api.client.check_online()
    except TieredStoreError as error:
        return Finding("online", "no", reason(error), BAD, False)
    return Finding("online", "yes", "requests to the Hub may be made", GOOD, True)


def _token(backend: HubBackend, *, writable: bool) -> Finding:
    if backend.api.client.token is None:
        if writable:
            meaning = "nothing can be published; set HF_TOKEN, or read_only = true"
            return Finding("token", "none", meaning, BAD, False)
        return Finding("token", "none", "only public repositories can be read", NOTE, False)
    try:
        name, role, ours = backend.api.rights()
    except (OSError, TieredStoreError) as error:
        return Finding("token", "refused", reason(error), BAD, False)
    said = f"of {name}" + (f", role {role}" if role else "")
    if not writable:
        return Finding("token", said, "", GOOD, True)
    if role == "read":
        meaning = "it may only read: make one that may write, or set read_only = true"
        return Finding("token", said, meaning, BAD, False)
    if not ours:
        meaning = "the repository is another's; whether it may be written shows when it is"
        return Finding("token", said, meaning, NOTE, None)
    return Finding("token", said, "the repository is the user's, or an organisation's", GOOD, True)


def _repository(backend: HubBackend) -> list[Finding]:
    try:
        taken = median_of(lambda: _timed(backend.api.tip), 3)
    except (FileNotFoundError, NoRepository):
        return _missing_repository(backend)
    except (OSError, TieredStoreError) as error:
        return [Finding("repository", "no answer", reason(error), BAD, False)]
    latency = Finding("latency", milliseconds(taken), "to ask for the newest commit", GOOD, taken)
    return [Finding("repository", "is there", "", GOOD, True), latency]


def _missing_repository(backend: HubBackend) -> list[Finding]:
    if backend.api.owned():
        meaning = "the first promote makes it, private"
        return [Finding("repository", "not there yet", meaning, GOOD, False)]
    meaning = "or it may not be seen with this token"
    return [Finding("repository", "not there", meaning, BAD, False)]


# -- web servers, and other keys ------------------------------------------------------------------


def _http(backend: HttpBackend, folders: Sequence[str]) -> list[Check]:
    return [
        Check("reachable", lambda: _connect(backend.place)),
        Check("artifacts", lambda: _artifacts(backend, folders)),
    ]


def _artifacts(backend: HttpBackend, folders: Sequence[str]) -> list[Finding]:
    begun = time.perf_counter()
    try:
        found = [folder for folder in folders if backend.read_head(folder) is not None]
    except (OSError, TieredStoreError) as error:
        return [Finding("artifacts", "no answer of use", reason(error), BAD, False)]
    taken = (time.perf_counter() - begun) / max(1, len(folders))
    if not found:
        backend_says = _answers(backend)
        meaning = "ranges could not be tried; HTTP has no listing"
        asked = f"none of {len(folders)} that are known" if folders else "none is known to ask for"
        return [backend_says or Finding("artifacts", asked, meaning, NOTE, None)]
    rows = [Finding("artifacts", f"{len(found)} of {len(folders)} that are known", "", GOOD, True)]
    rows.append(Finding("latency", milliseconds(taken), "to ask for a head", GOOD, taken))
    if backend.takes_ranges(f"{found[0]}/{HEAD}"):
        rows.append(Finding("ranges", "work", "large files come in several requests", GOOD, True))
    else:
        meaning = "each file comes in one answer, and from its beginning when it breaks"
        rows.append(Finding("ranges", "are not given", meaning, NOTE, False))
    return rows


def _answers(backend: HttpBackend) -> Finding | None:
    """What is wrong with a server that answers nothing of use; ``None`` where it answers."""
    try:
        backend.read(_path(), 1)
    except FileNotFoundError:
        return None
    except (OSError, TieredStoreError) as error:
        return Finding("artifacts", "no answer of use", reason(error), BAD, False)
    return None


def _listed(tier: Tier) -> list[Finding]:
    begun = time.perf_counter()
    try:
        list(islice(iter(tier.backend.list("")), 1))
    except Unsupported:
        return [Finding("reachable", "cannot be listed", "", NOTE, None)]
    except (OSError, TieredStoreError) as error:
        return [Finding("reachable", "no", reason(error), BAD, False)]
    taken = time.perf_counter() - begun
    return [Finding("reachable", milliseconds(taken), "to begin a listing", GOOD, taken)]


def _keyed_write(backend: KeyedBackend) -> list[Finding]:
    path = _path()
    try:
        taken = median_of(lambda: _timed(lambda: backend.put(path, b"x", ANY_HEAD)), 5)
    except (OSError, TieredStoreError) as error:
        meaning = f"{reason(error)}: nothing can be published here"
        return [Finding("write", "refused", meaning, BAD, False)]
    rows = [
        Finding("write", "works", "", GOOD, True),
        _latency(f"put {milliseconds(taken)}", taken),
    ]
    when = backend.stat(path).mtime_ns / 1e9
    rows += _deleted(lambda: backend.delete(path))
    if when > 0:
        date = datetime.fromtimestamp(when, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        rows += _skew(date)
    return rows
