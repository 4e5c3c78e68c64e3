"""Publish files and folders that somebody already has as an artifact: copied, never moved.

Everything is looked at before anything is copied: names, kinds of file, clashes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import xxhash

from tieredstore.errors import ArtifactChanged, ArtifactExists, UnsafePath, writing_to
from tieredstore.manifest.artifact import Recipe
from tieredstore.manifest.names import check_files, check_name, parents
from tieredstore.store import TieredStore

_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Source:
    """One file to put: where it is, and its path inside the artifact."""

    path: str
    file: str
    size: int


def put(store: TieredStore, name: str, paths: Sequence[str | os.PathLike[str]]) -> int:
    """Publish copies of files and folders as the artifact ``name`` in the first tier.

    Parameters
    ----------
    store : TieredStore
        Where to publish.
    name : str
        The artifact; one of that name is replaced.
    paths : sequence of path
        A single folder gives its content; a single file, or several paths, are taken under their
        base names. Empty folders are not kept.

    Returns
    -------
    int
        Bytes that were put.

    Raises
    ------
    InvalidName
        For a name that cannot be used, of the artifact or of a file.
    ArtifactExists
        When two paths have one base name.
    UnsafePath
        For a link, or anything else that is neither file nor folder.
    FileNotFoundError
        For a path that is not there, or folders without any file.
    NoSpace
        When the first tier has no room for them.
    """
    check_name(name)
    sources = sources_of([os.fspath(p) for p in paths])
    total = sum(s.size for s in sources)
    content = xxhash.xxh3_128()
    with store.create(name) as stage:
        stage.reserve(total, len(sources))
        store.reporter.started("put", name, total)
        made: set[str] = set()
        for source in sources:
            for folder in parents(source.file):
                if folder not in made:
                    os.mkdir(stage.path / folder)
                    made.add(folder)
            content.update(f"{source.file}\0{source.size}\0".encode())
            for part in _copy(source, os.fspath(stage.path / source.file), store.tiers[0].name):
                content.update(part)
                store.reporter.advanced(len(part))
        # Other content is another thing: a durable tier's copy of the old one is not replaced
        # unless that is asked for.
        stage.recipe = Recipe("put", "1", inputs={"content": content.hexdigest()})
    return total


def sources_of(paths: Sequence[str]) -> list[Source]:
    """Every file that the paths hold, checked; see `put` for what is refused."""
    sources: list[Source] = []
    taken: dict[str, str] = {}
    for path in paths:
        mode = _kind(path)
        if stat.S_ISDIR(mode) and len(paths) == 1:
            sources.extend(_below(path, ""))
            break
        base = os.path.basename(os.path.abspath(path))
        if taken.setdefault(base, path) != path or len(paths) != len(set(paths)):
            raise ArtifactExists(
                f"{path} and {taken[base]}: both would be {base!r} in the artifact"
            )
        if stat.S_ISDIR(mode):
            sources.extend(_below(path, f"{base}/"))
        else:
            sources.append(Source(path, base, os.lstat(path).st_size))
    check_files(s.file for s in sources)
    if not sources:
        raise FileNotFoundError(f"{' '.join(paths)}: no file in there, expected at least one")
    return sources


def _below(folder: str, prefix: str) -> Iterator[Source]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda e: e.name)
    for entry in found:
        if stat.S_ISDIR(_kind(entry.path)):
            yield from _below(entry.path, f"{prefix}{entry.name}/")
        else:
            yield Source(entry.path, f"{prefix}{entry.name}", entry.stat().st_size)


def _kind(path: str) -> int:
    """The mode of what lies at ``path``, a regular file or a folder."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise UnsafePath(
            f"{path}: a symbolic link to {os.readlink(path)}, expected a file or a folder; "
            f"put what it points to, or replace it by a copy"
        )
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UnsafePath(f"{path}: neither a file nor a folder; leave it out")
    return mode


def _copy(source: Source, target: str, tier: str) -> Iterator[memoryview]:
    """Copy one file with its mode and time; each part is given when it is there."""
    # Between the look and the open a link or a pipe may have come in place of the file.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with open(os.open(source.path, flags), "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise UnsafePath(f"{source.path}: no regular file any more")
        with writing_to(tier):
            copy = open(target, "xb", buffering=0)  # noqa: SIM115 - only the writes are the tier's
        with copy:
            buffer = memoryview(bytearray(_CHUNK))
            while got := file.readinto(buffer):
                left = buffer[:got]
                with writing_to(tier):
                    while left:
                        left = left[copy.write(left) or 0 :]
                yield buffer[:got]
            os.fchmod(copy.fileno(), before.st_mode & 0o777)
            os.utime(copy.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ArtifactChanged(f"{source.path}: changed while it was copied")
