"""What a Hub URL names, where the Hub serves it, and what the Hub cannot keep. No requests."""

from __future__ import annotations

import re
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from tieredstore.errors import ConfigError, InvalidName, Unsupported
from tieredstore.manifest.names import MAX_NAME, check_path, parents

MAX_FILES: Final = 25_000  # of one commit, huggingface_hub's `HfApi.create_commit` says
MAX_ENTRIES: Final = 10_000  # of one folder: https://huggingface.co/docs/hub/storage-limits
MAX_SIZE: Final = 500 * 10**9  # bytes of one file: the same page
_FORBIDDEN: Final = frozenset({".git", ".cache"})
_URL: Final = re.compile(
    r"hf://datasets/(?P<id>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})"
    r"(?:@(?P<revision>refs/(?:pr/\d+|convert/[\w.-]+)|[^/@]+))?(?:/(?P<prefix>.*))?",
    re.ASCII,
)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_OTHER_WAY: Final = 'pack it into fewer files: pack = "auto"'


@dataclass(frozen=True, slots=True)
class Repo:
    """A dataset repository, a revision of it, and a folder in it.

    Attributes
    ----------
    id : str
        Such as ``me/prepared``.
    revision : str
        A branch, a tag or a commit.
    prefix : str
        The folder that is a tier's root; empty for the repository's own.
    """

    id: str
    revision: str = "main"
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> Repo:
        """The repository that ``hf://datasets/<owner>/<name>[@revision][/folder]`` names.

        Raises
        ------
        ConfigError
            When it is no such URL; the URL itself is not shown.
        """
        found = _URL.fullmatch(url.rstrip("/"))
        if found is None:
            raise ConfigError(
                "url names no dataset repository; expected such as 'hf://datasets/me/prepared', "
                "'hf://datasets/me/prepared@branch/folder'"
            )
        prefix = found["prefix"] or ""
        try:
            check_path(prefix or "x", what="url: folder", limit=MAX_NAME)
        except InvalidName as error:
            raise ConfigError(str(error)) from None
        return cls(found["id"], unquote(found["revision"] or "main"), prefix)

    @property
    def place(self) -> str:
        """How messages call the tier's root."""
        at = "" if self.revision == "main" else f"@{self.revision}"
        return f"hf://datasets/{self.id}{at}" + (f"/{self.prefix}" if self.prefix else "")

    @property
    def is_commit(self) -> bool:
        """Whether the revision is one commit, which nothing can be published to."""
        return _COMMIT.fullmatch(self.revision) is not None

    def path(self, path: str) -> str:
        """Where a path below the tier's root lies in the repository."""
        return "/".join(part for part in (self.prefix, path) if part)

    def below(self, path: str) -> str:
        """The path below the tier's root of one in the repository."""
        return path.removeprefix(f"{self.prefix}/") if self.prefix else path

    def api(self, what: str, revision: str, path: str = "") -> str:
        """The path of an API call about a revision, and a path in the repository."""
        rest = f"/{quote(path, safe='')}" if path else ""
        return f"/api/datasets/{self.id}/{what}/{quote(revision, safe='')}{rest}"

    def resolve(self, revision: str, path: str) -> str:
        """The path that a file's bytes are served at."""
        return f"/datasets/{self.id}/resolve/{quote(revision, safe='')}/{quote(self.path(path))}"


def origin(parts: SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port: who gets the token."""
    usual = 443 if parts.scheme == "https" else 80
    return parts.scheme, (parts.hostname or "").lower(), parts.port or usual


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs are of one server."""
    return origin(urlsplit(one)) == origin(urlsplit(other))


class Limits:
    """Refuses what the Hub would, before it is sent.

    Parameters
    ----------
    where : str
        The artifact, for messages.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._entries: Counter[str] = Counter()

    def check_count(self, files: int) -> None:
        """Refuse a generation of too many files for one commit."""
        if files + 2 > MAX_FILES:  # head and records too
            raise Unsupported(
                f"{self._where}: {files} files, the Hub takes {MAX_FILES} in one commit; "
                f"{_OTHER_WAY}"
            )

    def check_name(self, path: str) -> None:
        """Refuse a path with a part that git or the Hub keeps for itself, with `InvalidName`."""
        bad = next((p for p in path.split("/") if p.casefold() in _FORBIDDEN), None)
        if bad is not None:
            raise InvalidName(f"{self._where}: {path!r}: the Hub takes no {bad!r} in a path")

    def check_file(self, path: str, size: int) -> None:
        """Refuse a file that is too large, named as the Hub takes none, or one too many.

        Raises
        ------
        InvalidName
            For a name, see `check_name`.
        Unsupported
            For a file or folder past the Hub's limits; the message names the limit.
        """
        self.check_name(path)
        if size > MAX_SIZE:
            raise Unsupported(
                f"{self._where}/{path}: {size} bytes, the Hub takes {MAX_SIZE} in one file; "
                "split it"
            )
        with self._lock:
            for entry in (*parents(path), path):
                self._count(entry)

    def _count(self, entry: str) -> None:
        if entry in self._seen:
            return
        self._seen.add(entry)
        folder = entry.rpartition("/")[0]
        self._entries[folder] += 1
        if self._entries[folder] + (0 if folder else 2) > MAX_ENTRIES:
            where = "/".join(part for part in (self._where, folder) if part)
            raise Unsupported(
                f"{where}: more than {MAX_ENTRIES} entries, which the Hub takes in one folder; "
                f"use more folders, or {_OTHER_WAY}"
            )
