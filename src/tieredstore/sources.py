"""Files of somebody else's, wherever they lie: listed, opened, and given to a store as a tier.

What people name (a URL, a repository, a folder) becomes a backend here; how it is read lies there.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final, cast
from urllib.parse import unquote, urlsplit, urlunsplit

from tieredstore import registry
from tieredstore.ahead import ReadAhead
from tieredstore.backend import FileReader, FileStat, FoundHead, Readable, Surrounded
from tieredstore.config import machine
from tieredstore.errors import ConfigError, TierUnavailable, UnsafePath
from tieredstore.manifest.names import RESERVED, Layout
from tieredstore.pinned import Pinning, changed, open_pinned, tag_of
from tieredstore.tiers.tier import Tier

_BUFFER: Final = 64 << 10  # bytes that are handed out at once
_SHA256: Final = "sha256:"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source.

    Attributes
    ----------
    path : str
        Relative to the source.
    size : int
        Bytes.
    tag : str
        Tells this version from others: an ETag, the Hub's digest, or size and time.
    sha256 : str
        Of all of it, where the place says one; else empty.
    """

    path: str
    size: int
    tag: str
    sha256: str = ""


def open_source(location: str, options: Mapping[str, Any] | None = None) -> SourceFiles:
    """Open files of somebody else's for reading.

    Parameters
    ----------
    location : str
        ``hf://datasets/ORG/NAME[@REVISION][/FOLDER]``, ``http(s)://`` of a file, or of a folder
        with a slash at its end, a file or folder on this machine, ``s3://``, or any other URL
        that fsspec knows.
    options : mapping, optional
        For the backend, such as ``token``, ``headers`` or ``endpoint_url``.

    Returns
    -------
    SourceFiles
        Of the Hub at the commit that the revision names now.

    Raises
    ------
    ConfigError
        When it is no such location.
    FileNotFoundError
        When there is no such file or folder on this machine.
    TierUnavailable
        When the place has to be asked, and cannot be.
    """
    given = dict(options or {})
    scheme = location.partition("://")[0].lower() if "://" in location else ""
    if scheme in {"", "file"}:
        return _local(location)
    if scheme in {"http", "https"}:
        return _web(location, given)
    if scheme == "hf":
        return _hub(location, given)
    return _keyed("s3" if scheme in {"s3", "s3a"} else "fsspec", location, given)


class SourceFiles:
    """Files of somebody else's, each read in the version that was seen first.

    Attributes
    ----------
    shown : str
        How messages call it, without credentials.
    revision : str
        The commit that is read, of the Hub; else empty.
    """

    def __init__(self, backend: Readable, only: str = "", revision: str = "") -> None:
        self._backend = backend
        self._only = only
        self._seen: dict[str, FileStat] = {}
        self._listed: list[FileStat] | None = None
        self.revision = revision
        self.shown = f"{backend.place}/{only}" if only else backend.place

    def files(self) -> list[SourceFile]:
        """All files, by their paths.

        Raises
        ------
        Unsupported
            Where the place cannot be listed.
        UnsafePath
            For a symbolic link in a folder.
        """
        return [_told(found) for found in self.stats()]

    def stat(self, path: str) -> SourceFile:
        """One file.

        Raises
        ------
        FileNotFoundError
            Where there is none.
        ArtifactChanged
            When it is another version than was seen before.
        """
        return _told(self.look(path))

    def open(self, path: str) -> BinaryIO:
        """Open one file: buffered, seekable, read ahead, and of one version to its end.

        Raises
        ------
        FileNotFoundError
            Where there is none.
        ArtifactChanged
            Also from any read: it is another version than was seen before.
        """
        found = self.look(path)
        own = isinstance(self._backend, Pinning)  # it tries again by itself
        reader = open_pinned(self._backend, found)
        raw = ReadAhead(reader, found.size, self._backend.request, tries=1 if own else 3)
        return cast(BinaryIO, io.BufferedReader(raw, _BUFFER))

    def takes_ranges(self, path: str) -> bool:
        """Whether parts of a file can be asked for, so that a download can be gone on with."""
        takes = getattr(self._backend, "takes_ranges", None)
        return True if takes is None else bool(takes(path))

    def tier(
        self,
        name: str = "source",
        sha256: Mapping[str, str] | None = None,
        connections: int | None = None,
    ) -> Tier:
        """The files as a tier that is only read, to restore from: ``[first, source.tier()]``.

        Parameters
        ----------
        name : str
            How messages call it.
        sha256 : mapping, optional
            Digests that files must have, by path.
        connections : int, optional
            How many requests at once; by default what serves the place best.

        Raises
        ------
        CorruptData
            From the restore, when a file has another digest.
        """
        backend = _Adoptable(self, dict(sha256 or {}), connections)
        return Tier(name, backend, _AtRoot(), read_only=True, adopt=True)

    # -- for the tier ---------------------------------------------------------------------------

    @property
    def backend(self) -> Readable:
        """What reads the place."""
        return self._backend

    def stats(self) -> list[FileStat]:
        """What the place says of all files."""
        if self._only:
            return [self.look(self._only)]
        if self._listed is not None:
            return self._listed
        if not self._backend.remote:
            _refuse_links(Path(self._backend.place))
        found = [f for f in self._backend.list("") if not _is_own(f.path)]
        found = [self._same(f) for f in sorted(found, key=lambda f: f.path.encode())]
        if self.revision:  # of a commit it cannot become another
            self._listed = found
        return found

    def look(self, path: str) -> FileStat:
        """What the place says of one file."""
        if self.revision and path in self._seen:
            return self._seen[path]
        return self._same(self._backend.stat(path))

    def _same(self, found: FileStat) -> FileStat:
        before = self._seen.setdefault(found.path, found)
        if tag_of(before) != tag_of(found) or before.size != found.size:
            raise changed(self._backend.place, before, found)
        return before if before.digest else found


class _AtRoot(Layout):
    """Whatever an artifact is called, its files are those of the source."""

    def folder(self, name: str) -> str:  # noqa: ARG002
        return ""

    def old_folders(self, name: str) -> list[str]:  # noqa: ARG002
        return []

    def name_of(self, folder: str) -> str | None:  # noqa: ARG002
        return None


class _Adoptable(Readable, Pinning):
    """A source as the place of a tier: without heads, and with digests that were given."""

    def __init__(
        self, source: SourceFiles, sha256: Mapping[str, str], connections: int | None
    ) -> None:
        below = source.backend
        self._source = source
        self._sha256 = sha256
        self.place, self.keeps_case, self.remote = below.place, below.keeps_case, below.remote
        self.request, self.listable = below.request, below.listable
        self.parallel = connections or below.parallel
        self.parallel_small = connections or below.parallel_small

    def stat(self, path: str) -> FileStat:
        return self._with_digest(self._source.look(path))

    def open(self, path: str) -> FileReader:
        return self.open_pinned(self.stat(path))

    def open_pinned(self, file: FileStat) -> FileReader:
        return open_pinned(self._source.backend, file)

    def list(self, folder: str) -> Iterator[FileStat]:
        start = f"{folder}/" if folder else ""
        found = (f for f in self._source.stats() if f.path.startswith(start))
        return map(self._with_digest, found)

    def read_head(self, folder: str) -> FoundHead | None:  # noqa: ARG002
        return None

    def folders(self, below: str = "") -> Iterator[str]:  # noqa: ARG002
        return iter(())

    def _with_digest(self, found: FileStat) -> FileStat:
        wanted = self._sha256.get(found.path, "").lower()
        return replace(found, digest=_SHA256 + wanted) if wanted else found


# -- what people name ---------------------------------------------------------------------------


def _local(location: str) -> SourceFiles:
    path = unquote(urlsplit(location).path) if location.startswith("file:") else location
    whole = Path(os.path.realpath(Path(path).expanduser()))
    if not whole.exists():
        raise FileNotFoundError(2, "No such file or folder", path)
    if whole.is_dir():
        return SourceFiles(_made("local", path=str(whole)))
    return SourceFiles(_made("local", path=str(whole.parent)), whole.name)


def _web(location: str, options: Mapping[str, Any]) -> SourceFiles:
    try:
        parts = urlsplit(location)
    except ValueError:
        raise ConfigError("the location is no HTTP address") from None
    above, _, last = parts.path.rpartition("/")
    url = urlunsplit(parts._replace(path=f"{above}/"))
    return SourceFiles(_made("http", url=url, **options), unquote(last))


def _hub(location: str, options: Mapping[str, Any]) -> SourceFiles:
    from tieredstore.backends.hf import HubBackend
    from tieredstore.backends.hf.repo import Repo

    prefix = Repo.parse(location).prefix
    above = location.rstrip("/").rpartition("/")[0]
    named = cast(HubBackend, _made("hf", url=above if prefix else location, **options))
    commit = named.api.tip()
    last = prefix.rpartition("/")[2]
    if not prefix:
        return SourceFiles(named.at(commit), "", commit)
    if _is_file(named.at(commit), last):
        return SourceFiles(named.at(commit), last, commit)
    whole = cast(HubBackend, _made("hf", url=location, **options))
    return SourceFiles(whole.at(commit), "", commit)


def _keyed(kind: str, location: str, options: Mapping[str, Any]) -> SourceFiles:
    given = {"options": options} if kind == "fsspec" else options
    folder = location.rstrip("/")
    path = folder.partition("://")[2].partition("/")[2]
    if path and not location.endswith("/"):
        above, _, last = folder.rpartition("/")
        parent = _made(kind, url=above, **given)
        if _is_file(parent, last):
            return SourceFiles(parent, last)
    return SourceFiles(_made(kind, url=folder, **given))


def _is_file(backend: Readable, path: str) -> bool:
    try:
        backend.stat(path)
    except FileNotFoundError:
        return False
    return True


def _made(kind: str, **options: Any) -> Readable:
    """A backend, as the environment wants it."""
    here = machine()
    try:
        backend: Readable = registry.load(kind)(**options)
    except TypeError:
        named = ", ".join(sorted(options.keys() - {"url", "path"}))
        raise ConfigError(f"options of {kind!r}: {named}: not all of these are known") from None
    if isinstance(backend, Surrounded):
        backend.environment = here.environment
    if backend.remote and here.offline:
        raise TierUnavailable(f"{backend.place}: {here.offline}")
    return backend


def _refuse_links(folder: Path) -> None:
    """Links are not followed, and what they lead to must not be missing without a word."""
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(above, name)
            if os.path.islink(path):
                raise UnsafePath(
                    f"{path}: a symbolic link, which is not followed; copy the folder with "
                    "'cp -rL' first, or name what the link leads to"
                )


def _is_own(path: str) -> bool:
    return any(part.startswith(RESERVED) for part in path.split("/"))


def _told(found: FileStat) -> SourceFile:
    sha256 = found.digest.removeprefix(_SHA256) if found.digest.startswith(_SHA256) else ""
    return SourceFile(found.path, found.size, tag_of(found), sha256)
