"""What is downloaded, from where, to where: plain data, checked before anything is asked."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from datasets_prep.errors import OptionError

if TYPE_CHECKING:
    from datasets_prep.download.archives.rules import Limits
    from datasets_prep.download.verification import Spec


_MOST: Final = 64  # connections
_SIGNING: Final = re.compile(
    r"signature|^sig$|^x-(amz|goog)-|token|expires|^key-pair-id$|^policy$|^s[a-z]$|credential|key$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """One download.

    Attributes
    ----------
    url, hf_repo, local_path : str
        Where from, exactly one: a URL; a dataset repository of the Hub (``owner/name``); a file
        or folder on this machine.
    hf_file, revision : str
        A file of the repository, all of it by default; a branch, tag or commit.
    dest : Path or None
        The folder that becomes the dataset; or
    name : str
        the artifact, in the store that is configured.
    temp_dir : Path or None
        Where an archive lies until it is extracted; beside the dataset by default.
    keep_archive : bool
        It stays there.
    extract : bool
        Archives and compressed files are extracted, as told by their content.
    sha256 : str
        What the file that is downloaded must have.
    connections : int or None
        Requests at once.
    force : bool
        What is there is replaced, when the new one stands.
    spec : Spec or str or None
        What the dataset has to be: a specification, the name of one, or a TOML file's path.
    verify : bool
        It is compared with that; otherwise the specification only says what lies at the top.
    limits : Limits, optional
        What an archive may hold.
    config : Path or None
        Tiers, see `tieredstore.open_store`.

    Raises
    ------
    OptionError
        For what cannot be used together, in one line.
    """

    url: str = ""
    hf_repo: str = ""
    local_path: str = ""
    hf_file: str = ""
    revision: str = ""
    dest: Path | None = None
    name: str = ""
    temp_dir: Path | None = None
    keep_archive: bool = False
    extract: bool = True
    sha256: str = ""
    connections: int | None = None
    force: bool = False
    spec: Spec | str | None = None
    verify: bool = True
    limits: Limits | None = None
    config: Path | None = None

    def __post_init__(self) -> None:
        given = [w for w in (self.url, self.hf_repo, self.local_path) if w]
        if len(given) != 1:
            raise OptionError(
                f"{len(given) or 'no'} sources are given, expected exactly one of --url, "
                "--hf-repo and --local-path"
            )
        if bool(self.name) == (self.dest is not None):
            raise OptionError("expected either an artifact's name or --dest FOLDER")
        if (self.hf_file or self.revision) and not self.hf_repo:
            raise OptionError("--hf-file and --revision belong to --hf-repo")
        if self.url and "://" not in self.url:
            raise OptionError("--url: no URL, expected such as https://host/file.tar.gz")
        if self.hf_repo and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.hf_repo):
            raise OptionError(f"--hf-repo {self.hf_repo!r}: expected such as owner/name")
        if self.sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", self.sha256):
            raise OptionError("--sha256: expected 64 hexadecimal digits")
        if self.connections is not None and not 1 <= self.connections <= _MOST:
            raise OptionError(f"--connections {self.connections}: expected 1 to {_MOST}")

    @property
    def location(self) -> str:
        """The source, as `tieredstore.open_source` takes it; it may hold credentials."""
        if not self.hf_repo:
            return self.url or self.local_path
        at = f"@{quote(self.revision, safe='')}" if self.revision else ""
        return f"hf://datasets/{self.hf_repo}{at}" + (f"/{self.hf_file}" if self.hf_file else "")


def plain_url(url: str) -> str:
    """A URL as it may be shown and kept: no credentials, and of a query only what tells it apart.

    Parameters that sign a request are left out; of the others a digest is kept.
    """
    parts = urlsplit(url)
    pairs = [pair for pair in parse_qsl(parts.query) if not _SIGNING.search(pair[0])]
    digest = hashlib.sha256(repr(sorted(pairs)).encode()).hexdigest()[:16]
    query = f"query={digest}" if pairs else ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, query, ""))


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What a download has given.

    Attributes
    ----------
    name : str
        The artifact.
    path : Path
        The folder.
    files, size : int
        How many files, and their bytes.
    hit : bool
        It was there already.
    """

    name: str
    path: Path
    files: int
    size: int
    hit: bool = False
