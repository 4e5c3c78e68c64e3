"""What is wrong with one copy: which of its objects have to be put again, and how to read the rest.

A copy whose head, records or index of shards cannot be read is known from other tiers' copies of
the same generation. Nothing here writes; that is ``repairing.py``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from tieredstore.backend import FileReader, FileSource, Readable
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import CorruptData, ManifestError, TieredStoreError, reason
from tieredstore.keyed import KeyedBackend
from tieredstore.manifest.artifact import (
    FORMAT,
    HEAD,
    MAX_HEAD,
    RECORDS,
    SHARDS,
    Head,
    canonical,
    digest128,
)
from tieredstore.manifest.records import Records
from tieredstore.manifest.shards import Index, known_as, max_size, shard_name
from tieredstore.mounted.marks import Marks
from tieredstore.moving.fetching import Copy
from tieredstore.moving.packed import PackedSource
from tieredstore.moving.packing import Packing, Shard
from tieredstore.moving.runs import OpenFile
from tieredstore.moving.transfer import Transfer
from tieredstore.reporter import SILENT
from tieredstore.tiers.tier import DAMAGED, PARTIAL, WHOLE, Located
from tieredstore.tiers.verifying import Verified
from tieredstore.workers import within

_ALIKE: Final = 16  # bytes; the digests in the heads of two generations differ in more


@dataclass(frozen=True, slots=True)
class DamagedCopy(Copy):
    """A copy that is read without trusting its own head and index of shards.

    Attributes
    ----------
    headless : bool
        Its head cannot be read.
    index : bytes
        Of its shards, where it is packed.
    """

    headless: bool = False
    index: bytes = b""

    def source(self) -> FileSource:
        """See `Copy.source`."""
        head = self.head
        assert head is not None
        if self.headless:
            objects = Readable.source(self.backend, self.folder, head)
        else:
            objects = self.backend.source(self.folder, head)
        if head.shards is None:
            return objects
        assert self.records is not None, "a packed copy is read with its records"
        where = f"{self.backend.place}/{self.path('')}".rstrip("/")
        known = known_as(self.index)
        return PackedSource(_WithIndex(objects, self.index), known, self.records, where)


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with one copy.

    Attributes
    ----------
    where : Located
        The copy; its head is the one that it has, or should have.
    records : Records
        Of its generation.
    bad : frozenset of str
        Files, and of a packed copy shards, that have to be put again.
    manifest : bool
        Head or records have to be put again.
    head : bool
        The head itself cannot be read.
    index : Index or None
        Of a packed copy's shards.
    index_bad : bool
        That has to be put again too.
    readable : bool
        Good blocks of it can be used.
    """

    where: Located
    records: Records
    bad: frozenset[str]
    manifest: bool = False
    head: bool = False
    index: Index | None = None
    index_bad: bool = False
    readable: bool = True

    @property
    def copy(self) -> DamagedCopy:
        """The copy itself, to read what is good in it."""
        where, tier = self.where, self.where.tier
        return DamagedCopy(
            tier.name,
            tier.backend,
            where.folder,
            where.head,
            tier.deadline,
            self.records,
            headless=self.head,
            index=b"" if self.index is None else self.index.emit(),
        )

    def files(self) -> list[OpenFile]:
        """What is to be put again: files, or shards whole."""
        if self.index is None:
            return [OpenFile(f) for path, f in self.records.files.items() if path in self.bad]
        numbers = {shard_name(number): number for number in range(len(self.index.sizes))}
        shards = {numbers[name] for name in self.bad if name in numbers}
        own: list[OpenFile] = []
        for path in self.bad & self.records.files.keys():
            place = self.index.places[path]
            if place is None:
                own.append(OpenFile(self.records.files[path]))
            else:
                shards.add(place.shard)
        members = self.index.members(self.records)
        return [*(Shard(n, self.index.sizes[n], members[n]) for n in sorted(shards)), *own]


def examine(here: Located, others: Sequence[Located], found: Verified) -> Damage:
    """Find out what of a damaged copy has to be put again.

    Parameters
    ----------
    here : Located
        The copy.
    others : sequence of Located
        Copies in other tiers.
    found : Verified
        What a verify has found; its files count where they are of the same generation.

    Raises
    ------
    CorruptData
        When nobody knows what should be there.
    """
    headless = here.state == DAMAGED
    if headless:
        here = _with_head(here, others)
    assert here.head is not None
    records, manifest = _records(here, others)
    damage = Damage(here, records, frozenset(), manifest or headless, headless)
    if here.head.shards is not None:
        damage = _with_index(damage)
    if not damage.readable or not _keeps_files(here.tier.backend):
        return replace(damage, bad=frozenset(records.files))
    known = found.generation == here.head.generation and not (damage.manifest or damage.index_bad)
    bad = frozenset(found.bad) if known and found.bad else _compared(damage)
    return replace(damage, bad=bad - {SHARDS})


def same_generation(head: Head, others: Sequence[Located]) -> list[Located]:
    """Which copies are of this generation, records and all."""
    return [
        other
        for other in others
        if other.head is not None
        and other.present
        and (other.head.generation, other.head.records_digest)
        == (head.generation, head.records_digest)
    ]


def _keeps_files(backend: Readable) -> bool:
    """Whether what is not put again stays; on the Hub a commit has all files of a generation."""
    return isinstance(backend, LocalBackend | KeyedBackend)


def _compared(damage: Damage) -> frozenset[str]:
    where = damage.where
    holding = where.holding(damage.records.files)
    files = [f for f in damage.records.files.values() if f.path in holding]
    moved = Transfer([damage.copy], None, SILENT).compare(files)
    return frozenset(moved.bad.get(where.tier.name, ()))


# -- head and records -------------------------------------------------------------------------


def _records(here: Located, others: Sequence[Located]) -> tuple[Records, bool]:
    """The records of a copy, and whether they had to be taken from another tier."""
    assert here.head is not None
    try:
        return here.records(), False
    except (CorruptData, ManifestError) as error:
        problem = reason(error)
    for other in same_generation(here.head, others):
        with suppress(OSError, TieredStoreError):
            return other.records(), True
    raise CorruptData(f"{problem}, and no other tier has the records of this generation")


def _with_head(here: Located, others: Sequence[Located]) -> Located:
    """A copy whose head cannot be read, with the head of its generation from another tier."""
    for other in others:
        if other.head is None or not other.present:
            continue
        look = partial(_fitting, here, other)
        head = within(here.tier.deadline, look, f"tier {here.tier.name!r}")
        if head is not None:
            state = PARTIAL if _is_partial(here, head) else WHOLE
            return replace(here, state=state, head=head)
    raise CorruptData(f"{here.detail}, and no other tier has the head of this generation")


def _fitting(here: Located, other: Located) -> Head | None:
    """The head as this place should have it; ``None`` where it is of something else.

    The generation is known by its records, by its name in what is left of the head, or by all the
    rest of the head: of two generations' heads more than a few bytes differ.
    """
    backend, head = here.tier.backend, other.head
    assert head is not None
    left = _read(backend, _head_path(here, head), MAX_HEAD)
    if left is None or _is_of_another_format(left):
        return None
    data = head.generation if isinstance(backend, KeyedBackend) else ""
    plain = replace(head, data=data, shards=None)
    own = _with_shards(here, plain)
    records = _read(backend, backend.data_path(here.folder, plain, RECORDS), head.records_size)
    if head.generation.encode() in left or digest128(records or b"") == head.records_digest:
        return own
    whole = [own.emit()]
    if own.shards is not None:  # they may be damaged too; their index follows from the records
        whole.append(Packing.of(other.records()).head(plain).emit())
    return own if any(_alike(left, each) for each in whole) else None


def _alike(left: bytes, whole: bytes) -> bool:
    differing = sum(one != other for one, other in zip(left, whole, strict=False))
    return len(left) == len(whole) and differing <= _ALIKE


def _read(backend: Readable, path: str, limit: int) -> bytes | None:
    """What lies at a path; ``None`` where nothing does."""
    try:
        return backend.read(path, limit)
    except FileNotFoundError:
        return None
    except ManifestError:
        return b""


def _head_path(here: Located, head: Head) -> str:
    if not isinstance(here.tier.backend, LocalBackend):
        return f"{here.folder}/{HEAD}"
    marks = Marks.of(here.folder, head.kind)
    return f"{marks.folder}/{marks.head}".lstrip("/")


def _is_partial(here: Located, head: Head) -> bool:
    if not isinstance(here.tier.backend, LocalBackend):
        return False
    marks = Marks.of(here.folder, head.kind)
    look = partial(_read, here.tier.backend, f"{marks.folder}/{marks.partial}".lstrip("/"), 1)
    return within(here.tier.deadline, look, f"tier {here.tier.name!r}") is not None


def _is_of_another_format(data: bytes) -> bool:
    """Whether this is a whole head that only another release can read."""
    with suppress(ValueError, AttributeError, RecursionError):
        body = dict(json.loads(data).items())
        check = body.pop("check", None)
        return body.get("format") != FORMAT and check == digest128(canonical(body))
    return False


# -- packed copies ----------------------------------------------------------------------------


class _WithIndex(FileSource):
    """The objects of a packed copy, and an index that is known to be right."""

    def __init__(self, objects: FileSource, index: bytes) -> None:
        self._objects = objects
        self._index = index

    def open(self, file: str) -> FileReader:
        """See `FileSource.open`."""
        return _Bytes(self._index) if file == SHARDS else self._objects.open(file)

    def close(self) -> None:
        """See `FileSource.close`."""
        self._objects.close()


class _Bytes(FileReader):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """See `FileReader.readinto`."""
        data = self._data[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)


def _with_shards(here: Located, head: Head) -> Head:
    """The head of a copy that turns out to be packed says so; its index is looked at later."""
    data = _read(here.tier.backend, _index_path(here, head), max_size(head.files))
    return head if data is None else replace(head, shards=known_as(data))


def _index_path(here: Located, head: Head) -> str:
    return here.tier.backend.data_path(here.folder, head, SHARDS)


def _with_index(damage: Damage) -> Damage:
    """The index of a packed copy: its own, else the one that its records lead to."""
    where, records = damage.where, damage.records
    head = where.head
    assert head is not None
    assert head.shards is not None
    look = partial(_read, where.tier.backend, _index_path(where, head), max_size(head.files))
    data = within(where.tier.deadline, look, f"tier {where.tier.name!r}") or b""
    with suppress(CorruptData):
        own = Index.parse(data, head.shards, records, where.tier.backend.place)
        if not damage.head or own.is_cut_from(records):  # else only its own word is known of it
            return replace(damage, index=own)
    packing = Packing.of(records)
    derived = packing.head(head)
    fits = derived.shards == head.shards or damage.head
    where = replace(where, head=derived)
    return replace(damage, where=where, index=packing.index, index_bad=True, readable=fits)
