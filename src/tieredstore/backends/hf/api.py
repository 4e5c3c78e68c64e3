"""The Hub's API, as far as artifacts need it: commits, trees, large files, who one is.

Each method is one kind of call. Sources: huggingface_hub's ``api.py``, ``_commit_api.py`` and
``lfs.py``, and https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tieredstore.backends.hf.answer import Answer
from tieredstore.backends.hf.client import HubClient, Request
from tieredstore.backends.hf.repo import Repo, same_origin
from tieredstore.errors import TierUnavailable

_JSON: Final = {"Content-Type": "application/json"}
_LFS: Final = {
    "Accept": "application/vnd.git-lfs+json",
    "Content-Type": "application/vnd.git-lfs+json",
}
_PIECE: Final = 256 << 10  # bytes of a commit that are sent at once
_SAMPLE: Final = 512  # bytes of a file that the Hub looks at

Operation = bytes
"""One line of a commit, as the Hub takes it."""


def operation(key: str, **value: object) -> Operation:
    """One line of a commit: what is done, and to what."""
    return json.dumps({"key": key, "value": value}).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a tree; ``sha256`` is empty where the Hub keeps it as an ordinary git blob."""

    path: str
    size: int
    blob: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A file that the Hub is asked about: path in the repository, bytes, its first ones."""

    path: str
    size: int
    sample: bytes


class HubApi:
    """Calls about one repository."""

    def __init__(self, client: HubClient, repo: Repo) -> None:
        self.client = client
        self.repo = repo

    def tip(self) -> str:
        """The commit that the revision names now."""
        url = f"{self.repo.api('revision', self.repo.revision)}?expand=sha"
        found = self.client.ask(self._request("GET", url), Answer.json)
        if not isinstance(found, dict) or not isinstance(found.get("sha"), str):
            raise TierUnavailable(f"{self.repo.place}: the Hub names no commit")
        return str(found["sha"])

    def tree(self, commit: str, folder: str) -> Iterator[Entry]:
        """Every file below a folder at a commit; nothing where there is no such folder.

        Raises
        ------
        TierUnavailable
            When a page is missing: a listing never ends early.
        """
        inside = self.repo.path(folder)
        url = f"{self.repo.api('tree', commit, inside)}?recursive=true"
        try:
            page, following = self._page(url)
        except FileNotFoundError:
            return
        seen = {url}
        start = f"{inside}/" if inside else ""
        while True:
            yield from (e for e in _entries(page, self.repo.place) if e.path.startswith(start))
            if not following:
                return
            if following in seen or not same_origin(
                self.client.url(following), self.client.url("/")
            ):
                raise TierUnavailable(f"{self.repo.place}: the listing leads nowhere")
            seen.add(following)
            try:
                page, following = self._page(following)
            except FileNotFoundError:
                raise TierUnavailable(f"{self.repo.place}: the listing broke off") from None

    def _page(self, url: str) -> tuple[Any, str]:
        def page(answer: Answer) -> tuple[Any, str]:
            return answer.json(), answer.following

        return self.client.ask(self._request("GET", url), page)

    def rights(self) -> tuple[str, str, bool]:
        """Whose the token is, its role (empty where it is not said), whether the owner's."""
        who = self.client.ask(self._request("GET", "/api/whoami-v2"), Answer.json)
        token = (who.get("auth") or {}).get("accessToken") or {}
        names = {who.get("name"), *(o.get("name") for o in who.get("orgs", []))}
        return str(who.get("name")), str(token.get("role") or ""), self._owner() in names

    def _owner(self) -> str:
        return self.repo.id.partition("/")[0]

    def owned(self) -> bool:
        """Whether the repository's owner is the user or one of the user's organisations.

        What such a user does not see is not there.
        """
        if self.client.token is None:
            return False
        return self.rights()[2]

    def create(self) -> None:
        """Create the repository, private; nothing happens where there is one."""
        owner, _, name = self.repo.id.partition("/")
        wanted = {"type": "dataset", "name": name, "organization": owner, "visibility": "private"}
        request = self._post("/api/repos/create", wanted)

        def once(timeout: float) -> None:
            with self.client.send(request, timeout) as answer:
                if answer.status != 409:  # noqa: PLR2004 - there is one
                    answer.check()

        self.client.again(self.repo.place, once)

    def modes(self, files: Sequence[Asked]) -> dict[str, str]:
        """How the Hub wants each file, by its path: ``lfs`` or ``regular``."""
        asked = [
            {"path": f.path, "size": f.size, "sample": b64encode(f.sample[:_SAMPLE]).decode()}
            for f in files
        ]
        request = self._post(self.repo.api("preupload", self.repo.revision), {"files": asked})
        said = self.client.ask(request, Answer.json)
        try:
            found = {str(f["path"]): str(f["uploadMode"]) for f in said["files"]}
            return {f.path: found[f.path] for f in files}
        except (TypeError, KeyError):
            raise TierUnavailable(
                f"{self.repo.place}: the Hub does not say how it wants the files"
            ) from None

    def batch(self, objects: dict[str, int], transfers: Sequence[str]) -> tuple[str, list[Any]]:
        """Which transfer the Hub chose, and what is to be done for each object.

        Parameters
        ----------
        objects : dict
            Sizes by SHA-256.
        transfers : sequence of str
            Those that can be used: ``basic``, ``multipart``, ``xet``.
        """
        wanted = {
            "operation": "upload",
            "transfers": list(transfers),
            "objects": [{"oid": oid, "size": size} for oid, size in objects.items()],
            "hash_algo": "sha256",
            "ref": {"name": self.repo.revision},
        }
        url = f"/datasets/{self.repo.id}.git/info/lfs/objects/batch"
        said = self.client.ask(self._post(url, wanted, _LFS), Answer.json)
        try:
            found = {o["oid"]: o for o in said["objects"]}
            chosen = [found[oid] for oid in objects]
        except (TypeError, KeyError):
            raise TierUnavailable(
                f"{self.repo.place}: the Hub does not say where to send large files"
            ) from None
        refused = [o["error"].get("message", "") for o in chosen if o.get("error")]
        if refused:
            raise TierUnavailable(
                f"{self.repo.place}: a large file is refused ({refused[0][:200]})"
            )
        return str(said.get("transfer") or "basic"), chosen

    def post(self, url: str, value: object, where: str) -> None:
        """Tell a server that the Hub has named something about a large file."""
        request = Request("POST", url, where, _LFS, json.dumps(value).encode())
        self.client.ask(request, lambda _: None)

    def commit(
        self, parent: str, summary: str, operations: Sequence[Operation], timeout: float
    ) -> None:
        """Commit once, on a parent.

        Raises
        ------
        ParentMoved
            When the revision is at another commit by now.
        BrokenAnswer
            When it cannot be known whether it was done.
        """
        header = operation("header", summary=summary, description="", parentCommit=parent)
        lines = [header, *operations]
        url = self.repo.api("commit", self.repo.revision)
        length = str(sum(map(len, lines)))
        headers = {"Content-Type": "application/x-ndjson", "Content-Length": length}
        request = Request("POST", url, self.repo.place, headers, lambda: _joined(lines))
        with self.client.send(request, timeout) as answer:
            answer.check()
            answer.json()

    def _request(self, method: str, url: str) -> Request:
        return Request(method, url, self.repo.place)

    def _post(self, url: str, value: object, headers: dict[str, str] | None = None) -> Request:
        return Request("POST", url, self.repo.place, headers or _JSON, json.dumps(value).encode())


def _joined(lines: Sequence[bytes]) -> Iterator[bytes]:
    """The lines in pieces of some size, without a copy of them all."""
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _entries(page: Any, where: str) -> Iterator[Entry]:
    try:
        for row in page:
            if row["type"] == "file":
                large = row.get("lfs") or {}
                sha256 = large.get("oid") or large.get("sha256") or ""
                yield Entry(str(row["path"]), int(row["size"]), str(row["oid"]), str(sha256))
    except (TypeError, KeyError, ValueError, AttributeError):
        raise TierUnavailable(f"{where}: the Hub's listing cannot be read") from None
