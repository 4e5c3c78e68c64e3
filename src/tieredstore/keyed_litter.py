"""What is left over on keyed places: generations that no head names, found and taken away.

There are no locks, so who stages a generation and who takes it away leave marks for each other. A
collector puts a tombstone among the generation's keys before it looks a last time whether a head
names them or anything was written; who stages writes its last key, looks for missing keys and for
tombstones, puts the head and looks again. Whatever the order, at least one of them sees the other
and gives way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from tieredstore.backend import ANY_HEAD, Expected, FileStat, FoundHead
from tieredstore.errors import ManifestError, TieredStoreError
from tieredstore.litter import Litter
from tieredstore.manifest.artifact import GENERATED, HEAD, RECORDS, digest128, random_hex
from tieredstore.manifest.names import RESERVED
from tieredstore.workers import together

TOMBSTONE: Final = f"{RESERVED}.litter-"
DAMAGED: Final = f"{RESERVED}/damaged"
_SUM: Final = 1 << 128


class Keys(Protocol):
    """What has to be known of a place's keys, and done to them; see ``keyed.py``."""

    place: str

    def clock(self) -> float: ...
    def list(self, folder: str) -> Iterator[FileStat]: ...
    def read_head(self, folder: str) -> FoundHead | None: ...
    def has(self, key: str) -> bool: ...
    def put(self, key: str, data: bytes, expected: Expected) -> None: ...
    def delete(self, key: str) -> None: ...
    def delete_all(self, keys: Sequence[str]) -> None: ...


def damaged_mark(generation: str) -> str:
    """The key that says that a generation's keys hold bytes that differ from its manifest."""
    return f"{DAMAGED}/{generation}.json"


def is_tombstone(key: str) -> bool:
    """Whether a key says that its generation is being taken away."""
    return key.rpartition("/")[2].startswith(TOMBSTONE)


def generation_of(key: str, heads: Iterable[str] = ()) -> tuple[str, str] | None:
    """The folder and the generation that a key belongs to, where that is beyond doubt.

    Parameters
    ----------
    key : str
        Of a file.
    heads : iterable of str
        Folders that have a head: these decide where several parts of the key look like generations.
    """
    parts = key.split("/")
    at = [n for n in range(1, len(parts) - 1) if GENERATED.fullmatch(parts[n])]
    splits = [("/".join(parts[:n]), parts[n]) for n in at]
    if len(splits) > 1:
        splits = [split for split in splits if split[0] in heads]
    return splits[0] if len(splits) == 1 else None


@dataclass(slots=True)
class Generation:
    """The keys of one generation.

    Attributes
    ----------
    keys : int
        How many, without tombstones.
    size : int
        Their bytes.
    newest : int
        When one of them was last written, nanoseconds since 1970.
    records : int
        When its records were: just before it was published. 0: never.
    dated : bool
        The place says of each when it was written.
    holds_head : bool
        There is a head among them, so that this is no generation.
    version : int
        Another when any of them is another.
    buried : int
        When the newest of its tombstones was put there.
    """

    keys: int = 0
    size: int = 0
    newest: int = 0
    records: int = 0
    dated: bool = True
    holds_head: bool = False
    version: int = 0
    buried: int = 0

    def add(self, found: FileStat) -> None:
        """Take one key into account."""
        name = found.path.rpartition("/")[2]
        if is_tombstone(found.path):
            self.buried = max(self.buried, found.mtime_ns)
            return
        self.keys += 1
        self.size += found.size
        self.newest = max(self.newest, found.mtime_ns)
        self.dated = self.dated and found.mtime_ns > 0
        self.holds_head = self.holds_head or name == HEAD
        if name == RECORDS:
            self.records = found.mtime_ns
        line = f"{found.path}\n{found.size}\n{found.mtime_ns}\n{found.tag}"
        self.version = (self.version + int(digest128(line.encode()), 16)) % _SUM

    @property
    def token(self) -> str:
        """What `Litter.token` says of it."""
        return f"{self.version:x}"


class Survey:
    """All generations below a place's root, by folder; and which folders have a head."""

    def __init__(self, listed: Iterable[FileStat]) -> None:
        self.heads: set[str] = set()
        self.damaged: set[str] = set()
        self.folders: dict[str, dict[str, Generation]] = {}
        doubtful: list[FileStat] = []
        for found in listed:
            self._note(found)
            parts = [p for p in found.path.split("/")[1:-1] if GENERATED.fullmatch(p)]
            if len(parts) == 1:
                self._add(found)
            elif parts:
                doubtful.append(found)
        for found in doubtful:
            self._add(found)

    def _note(self, found: FileStat) -> None:
        folder, _, name = found.path.rpartition("/")
        if name == HEAD:
            self.heads.add(folder)
        if folder == DAMAGED:
            self.damaged.add(name.removesuffix(".json"))

    def _add(self, found: FileStat) -> None:
        split = generation_of(found.path, self.heads)
        if split is not None:
            folder, generation = split
            self.folders.setdefault(folder, {}).setdefault(generation, Generation()).add(found)


def litter(place: Keys, grace: float) -> Iterator[Litter]:
    """Generations that no head has named for ``grace`` seconds; see `Collectable.litter`."""
    before = place.clock() - grace
    survey = Survey(place.list(""))
    folders = sorted(survey.folders)
    unclear = [folder for folder in folders if _is_unclear(survey, folder)]
    named = together([partial(_named, place, folder) for folder in unclear])
    for folder, name in zip(unclear, named, strict=True):
        if name is None:
            continue  # a head that cannot be believed may name any of them
        found = survey.folders[folder]
        for generation in sorted(found.keys() - {name} - survey.damaged):
            since = _since(found[generation], found.values()) / 1e9
            one = found[generation]
            if one.dated and not one.holds_head and (since < before or not one.keys):
                path = f"{folder}/{generation}"
                yield Litter("generation", path, one.size, since, one.token)


def _is_unclear(survey: Survey, folder: str) -> bool:
    """Whether the head has to be read: not where the one generation there has been published."""
    found = list(survey.folders[folder].values())
    return folder not in survey.heads or len(found) > 1 or not found[0].records


def _named(place: Keys, folder: str) -> str | None:
    """The generation that the head names, empty where there is no head, ``None``: unknown."""
    try:
        found = place.read_head(folder)
    except ManifestError:
        return None
    return "" if found is None else found.head.generation


def _since(one: Generation, others: Iterable[Generation]) -> int:
    """When a generation was last written to, or replaced by the next one."""
    later = [other.records for other in others if one.records and other.records > one.newest]
    return min(later, default=one.newest or one.buried)


def drop(place: Keys, left: Litter) -> int | None:
    """Take a generation away, unless it has come into use; see `Collectable.drop`."""
    tombstone = f"{left.path}/{TOMBSTONE}{random_hex(8)}"
    place.put(tombstone, b"", ANY_HEAD)
    try:
        keys = _unused(place, left)
    except BaseException:
        with suppress(OSError, TieredStoreError):
            place.delete(tombstone)
        raise
    if keys is None:
        place.delete(tombstone)
        return None
    marks = [key for key in keys if is_tombstone(key)]
    place.delete_all([key for key in keys if not is_tombstone(key)])
    place.delete_all([*(mark for mark in marks if mark != tombstone), tombstone])
    return left.size


def _unused(place: Keys, left: Litter) -> list[str] | None:
    """The generation's keys; ``None`` where it is in use, or not as it was found."""
    folder, _, generation = left.path.rpartition("/")
    if place.has(damaged_mark(generation)) or _named(place, folder) in {None, generation}:
        return None
    now, keys = Generation(), []
    for found in place.list(left.path):
        now.add(found)
        keys.append(found.path)
    return keys if now.token == left.token else None
