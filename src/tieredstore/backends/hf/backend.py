"""The Hugging Face Hub: dataset repositories, where each generation is one commit.

Files lie beside the head as people expect them. A head is read together with the commit that it
was served from, and everything else of that generation at that commit.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from tieredstore.backend import (
    FileReader,
    FileSource,
    FileStat,
    FoundHead,
    Publishable,
    Readable,
    Staging,
)
from tieredstore.backends.hf.answer import NoRepository
from tieredstore.backends.hf.api import HubApi
from tieredstore.backends.hf.client import HubClient
from tieredstore.backends.hf.commit import Folder
from tieredstore.backends.hf.flow import FlowingHubReader
from tieredstore.backends.hf.reader import Files, Found, HubReader, HubSource, digest_of
from tieredstore.backends.hf.repo import Limits, Repo
from tieredstore.backends.hf.staging import HubStaging
from tieredstore.errors import ConfigError, TierUnavailable
from tieredstore.manifest.artifact import HEAD, MAX_HEAD, Head
from tieredstore.manifest.records import Records
from tieredstore.pinned import Pinning, changed

_PINNED: Final = 1024  # copies whose commit is remembered


class HubBackend(Readable, Publishable, Pinning):
    """A dataset repository on the Hub, or a folder in one.

    Parameters
    ----------
    url : str
        ``hf://datasets/<owner>/<name>``, with ``@<branch>`` and ``/<folder>`` where wanted.
    token : str, optional
        An access token; by default ``HF_TOKEN`` or the stored login. Never shown, and sent to
        the Hub itself only.
    timeout : float
        Seconds to wait for a connection, and for each next byte.
    retry_for : float
        Seconds within which a request that fails for the moment is tried again.
    """

    request = 8 << 20
    parallel = 8
    parallel_small = 8

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout: float = 20.0,
        retry_for: float = 25.0,
    ) -> None:
        for name, value in (("timeout", timeout), ("retry_for", retry_for)):
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name} is {value!r}, expected a positive number of seconds")
        self._repo = Repo.parse(url)
        self.place = self._repo.place
        client = HubClient(self.place, token, float(timeout), float(retry_for))
        self._api = HubApi(client, self._repo)
        self._files = Files(client, self._repo)
        self._now = _At(self._api, self._files, self._repo.revision)
        self._lock = threading.Lock()
        self._pinned: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._owned: bool | None = None

    @property
    def api(self) -> HubApi:
        """The Hub's API, as far as this repository needs it."""
        return self._api

    # -- reading --------------------------------------------------------------------------------

    def stat(self, path: str) -> FileStat:
        """See `Readable.stat`; the Hub keeps no modes and no times of files."""
        return self._now.stat(path)

    def open(self, path: str) -> FileReader:
        """See `Readable.open`; one commit's file for as long as it is open."""
        return self._now.open(path)

    def list(self, folder: str) -> Iterator[FileStat]:
        """See `Readable.list`; all of it at one commit."""
        try:
            commit = self._api.tip()
        except NoRepository:
            if not self._will_be_ours():
                raise
            return
        yield from _At(self._api, self._files, commit).list(folder)

    def open_pinned(self, file: FileStat) -> FileReader:
        """See `Pinning.open_pinned`; at the commit that has it now, unless a commit is named."""
        revision = self._repo.revision
        found = Found(file.size, file.tag, revision)
        if not self._repo.is_commit:
            found = self._files.look(file.path, revision)
            if found.etag != file.tag:
                now = FileStat(file.path, found.size, tag=found.etag)
                raise changed(self.place, file, now)
        return FlowingHubReader(self._files, file.path, found.commit or revision, found)

    def at(self, commit: str) -> HubBackend:
        """The same folder at one commit."""
        repo = replace(self._repo, revision=commit)
        client = self._api.client
        return HubBackend(repo.place, client.given_token, client.timeout, client.retry_for)

    def read(self, path: str, limit: int) -> bytes:
        """See `Readable.read`; one request, and compared with the Hub's digest."""
        return self._now.read(path, limit)

    def read_head(self, folder: str) -> FoundHead | None:
        """See `Readable.read_head`; pins its generation to the commit it was read at."""
        path = f"{folder}/{HEAD}"
        try:
            data, commit = self._files.read(path, self._repo.revision, MAX_HEAD)
        except FileNotFoundError:
            return None
        except NoRepository:
            if not self._will_be_ours():
                raise
            return None
        head = Head.parse(data, f"{self.place}/{path}")
        if not commit:
            raise TierUnavailable(
                f"{self.place}/{path}: the Hub does not say of which commit it is"
            )
        self._pin((folder, head.generation), commit)
        return FoundHead(head, head.generation)

    def read_records(self, folder: str, head: Head) -> Records:
        """See `Readable.read_records`; at the commit of the head."""
        return self._records_at(self._revision_of(folder, head), folder, head)

    def size_of(self, folder: str, head: Head, file: str) -> int:
        """See `Readable.size_of`; at the commit that the head was served from."""
        path = self.data_path(folder, head, file)
        return self._files.look(path, self._revision_of(folder, head)).size

    def source(self, folder: str, head: Head | None) -> FileSource:
        """See `Readable.source`; all files at the commit of the head."""
        path_of = super().source(folder, head)._path_of  # noqa: SLF001
        revision = self._repo.revision if head is None else self._revision_of(folder, head)
        return HubSource(self, self._files, revision, path_of)

    def _records_at(self, revision: str, folder: str, head: Head) -> Records:
        return _At(self._api, self._files, revision).read_records(folder, head)

    def _pin(self, copy: tuple[str, str], commit: str) -> None:
        with self._lock:
            self._pinned[copy] = commit
            self._pinned.move_to_end(copy)
            if len(self._pinned) > _PINNED:
                self._pinned.popitem(last=False)

    def _revision_of(self, folder: str, head: Head) -> str:
        with self._lock:
            return self._pinned.get((folder, head.generation), self._repo.revision)

    def _will_be_ours(self) -> bool:
        """Whether a repository that is not there is one that `begin` would create.

        The Hub says the same of what does not exist and of what one may not see; only the owner
        sees everything that there is.
        """
        if self._owned is None:
            self._owned = self._api.owned()
        return self._owned

    # -- publishing -----------------------------------------------------------------------------

    def begin(self, folder: str, head: Head) -> Staging:
        """See `Publishable.begin`; creates the repository, private, where there is none.

        Raises
        ------
        Unsupported
            When the generation has more files than the Hub takes in one commit.
        """
        limits = Limits(f"{self.place}/{folder}")
        if head.shards is None:
            limits.check_count(head.files)
        limits.check_name(self._repo.path(folder))
        if self._repo.is_commit:
            raise TierUnavailable(f"{self.place}: is one commit; to publish, name a branch")
        try:
            self._api.tip()
        except NoRepository:
            self._api.create()
            self._api.tip()
        return HubStaging(self._api, self._folder(folder), folder, limits)

    def remove(self, folder: str, head: Head) -> None:
        """See `Publishable.remove`; the repository's history still has it."""
        self._folder(folder).remove(head)

    def set_aside(self, folder: str, head: Head) -> str:
        """See `Publishable.set_aside`; its files lie under ``.tieredstore/damaged/`` from then."""
        return self._folder(folder).set_aside(head)

    def _folder(self, folder: str) -> Folder:
        return Folder(
            self._api,
            self._files,
            folder,
            lambda revision, head: self._records_at(revision, folder, head),
        )


class _At(Readable):
    """The same place at one revision."""

    def __init__(self, api: HubApi, files: Files, revision: str) -> None:
        self.place = api.repo.place
        self._api = api
        self._files = files
        self._revision = revision

    def stat(self, path: str) -> FileStat:
        found = self._files.look(path, self._revision)
        return FileStat(path, found.size, tag=found.etag, digest=digest_of(found.etag))

    def open(self, path: str) -> FileReader:
        found = self._files.look(path, self._revision)
        return HubReader(self._files, path, found.commit or self._revision, found)

    def list(self, folder: str) -> Iterator[FileStat]:
        for entry in self._api.tree(self._revision, folder):
            below = self._api.repo.below(entry.path)
            tag = entry.sha256 or entry.blob
            yield FileStat(below, entry.size, tag=tag, digest=digest_of(tag))

    def read(self, path: str, limit: int) -> bytes:
        return self._files.read(path, self._revision, limit)[0]
