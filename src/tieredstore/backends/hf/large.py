"""Large files on their way to the Hub: where each goes, by git-lfs's transfers or by Xet."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

from tieredstore.backends.hf.api import Asked, HubApi
from tieredstore.backends.hf.client import Request, hub
from tieredstore.backends.hf.spool import Spool
from tieredstore.errors import TieredStoreError, TierUnavailable, reason
from tieredstore.workers import patience, within


@dataclass(frozen=True, slots=True)
class Spooled:
    """A whole file that waits to be sent."""

    path: str
    spool: Spool
    forced: bool = False  # large because there would be too many ordinary ones

    def asked(self) -> Asked:
        """What the Hub is asked."""
        return Asked(self.path, self.spool.size, self.spool.read(0, 512))


class Sender:
    """Sends large files: by Xet where the Hub chooses it, else by git-lfs's own transfers."""

    def __init__(self, api: HubApi) -> None:
        self._api = api
        self._free = threading.Condition()
        self._sending: set[str] = set()

    def send(self, files: Sequence[Spooled]) -> None:
        """Send what the Hub does not have yet; equal files once, whoever else sends one now."""
        by_digest = {f.spool.sha256: f for f in files}
        with self._free:
            self._free.wait_for(lambda: not self._sending & by_digest.keys())
            self._sending |= by_digest.keys()
        try:
            self._send(files, by_digest)
        finally:
            with self._free:
                self._sending -= by_digest.keys()
                self._free.notify_all()

    def _send(self, files: Sequence[Spooled], by_digest: Mapping[str, Spooled]) -> None:
        transfers = ["basic", "multipart"]
        if _xet_here() and not any(f.forced for f in files):
            transfers.append("xet")
        sizes = {oid: f.spool.size for oid, f in by_digest.items()}
        chosen, objects = self._api.batch(sizes, transfers)
        if chosen == "xet":
            self._by_xet(files)
            return
        for found in objects:
            if found.get("actions"):
                self._one(by_digest[found["oid"]], found["actions"])

    def _one(self, file: Spooled, actions: Any) -> None:
        where = f"{self._api.repo.place}/{self._api.repo.below(file.path)}"
        try:
            url = str(actions["upload"]["href"])
            headers = {str(k): str(v) for k, v in (actions["upload"].get("header") or {}).items()}
            verify = actions.get("verify")
            check = str(verify["href"]) if verify else ""
        except (TypeError, KeyError, AttributeError):
            raise TierUnavailable(f"{where}: the Hub does not say where to send it") from None
        if "chunk_size" in headers:
            self._parts(file, url, headers, where)
        else:
            self._put(url, where, headers, file, (0, file.spool.size))
        if check:
            said = {"oid": file.spool.sha256, "size": file.spool.size}
            self._api.post(check, said, where)

    def _put(
        self,
        url: str,
        where: str,
        headers: Mapping[str, str],
        file: Spooled,
        part: tuple[int, int],
    ) -> str:
        """Send a part of a file; what the server calls it."""
        offset, size = part
        sent = {**headers, "Content-Length": str(size)}
        body = _Body(file.spool, offset, size)
        request = Request("PUT", url, where, sent, body.pieces)
        return self._api.client.ask(
            request, lambda answer: answer.header("ETag"), lambda: body.furthest
        )

    def _parts(self, file: Spooled, url: str, headers: Mapping[str, str], where: str) -> None:
        try:
            length = int(headers["chunk_size"])
            urls = [headers[k] for k in sorted((k for k in headers if k.isdigit()), key=int)]
        except ValueError:
            length, urls = 0, []
        size = file.spool.size
        if length < 1 or len(urls) != -(-size // length):
            raise TierUnavailable(f"{where}: the Hub's parts do not add up to {size} bytes")
        parts = []
        for number, target in enumerate(urls):
            at = number * length
            tag = self._put(target, where, {}, file, (at, min(length, size - at)))
            parts.append({"partNumber": number + 1, "etag": tag})
        self._api.post(url, {"oid": file.spool.sha256, "parts": parts}, where)

    def _by_xet(self, files: Sequence[Spooled]) -> None:
        """Through huggingface_hub, which knows how, and would try for as long as it likes."""
        from huggingface_hub import CommitOperationAdd

        operations = []
        for file in files:
            operation = CommitOperationAdd(file.path, file.spool.path_or_bytes())
            operation.upload_info.sha256 = bytes.fromhex(file.spool.sha256)
            operations.append(operation)
        client, repo = self._api.client, self._api.repo
        api = hub().HfApi(endpoint=client.endpoint, token=client.token)
        size = sum(f.spool.size for f in files)
        seconds = round(patience(client.timeout + client.retry_for, size))

        def send() -> None:
            with _NO_BARS.drawn():
                api.preupload_lfs_files(
                    repo.id, operations, repo_type="dataset", revision=repo.revision
                )

        try:
            within(seconds, send, f"{repo.place}: sending by Xet")
        except TieredStoreError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it raises, without its context
            raise TierUnavailable(f"{repo.place}: {client.hidden(reason(error))[:300]}") from None


class _Body:
    """A part of a file as it is sent, from its beginning each time; how far it ever came."""

    def __init__(self, spool: Spool, offset: int, size: int) -> None:
        self._spool, self._offset, self._size = spool, offset, size
        self.furthest = 0

    def pieces(self) -> Iterator[bytes]:
        at = 0
        for piece in self._spool.pieces(self._offset, self._size):
            yield piece
            at += len(piece)
            self.furthest = max(self.furthest, at)


def _xet_here() -> bool:
    """Whether this machine can send by Xet, and is not told not to (``HF_HUB_DISABLE_XET``)."""
    from huggingface_hub import constants

    return not constants.HF_HUB_DISABLE_XET and find_spec("hf_xet") is not None


class _NoBars:
    """Keeps huggingface_hub from drawing progress bars while any thread is in it for us."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._were_on = False

    @contextmanager
    def drawn(self) -> Iterator[None]:
        from huggingface_hub import constants, utils

        if constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:  # the user has decided
            yield
            return
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._were_on = not utils.are_progress_bars_disabled()
                utils.disable_progress_bars()
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside and self._were_on:
                    utils.enable_progress_bars()


_NO_BARS: Final = _NoBars()
