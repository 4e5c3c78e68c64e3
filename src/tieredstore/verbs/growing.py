"""Data without a manifest that is brought up in parts: what is here stays, and moves no more.

An adopted copy knows no recipe. Asked for further files of the same data it grows by them; those
that are the same still are taken from the first tier, their blocks compared.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass, replace

from tieredstore.backend import FileStat
from tieredstore.errors import ManifestError, TieredStoreError
from tieredstore.manifest.records import FileRecord, Records
from tieredstore.moving.fetching import Copy
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import Located

_ADOPTED = "adopted-"


@dataclass(frozen=True, slots=True)
class Grown:
    """What is to be brought, and what of it is here.

    Attributes
    ----------
    chosen : Located
        The data, with the files that the first tier has of it.
    here : dict
        Records, by path, of those that are here in the version that was seen.
    copies : list of Copy
        Where to read: from the data, and from the first tier what is here.
    """

    chosen: Located
    here: dict[str, FileRecord]
    copies: list[Copy]


def grown(chain: Chain, name: str, chosen: Located) -> Grown:
    """Add to data what the first tier has of it already; nothing of mounted places."""
    alone = Grown(chosen, {}, [chosen.copy()])
    found = _held(chain, name) if chosen.seen else None
    if found is None:
        return alone
    copy, records = found
    wanted = list(dict.fromkeys([*chosen.files, *records.files]))
    more = chosen.tier.unmanaged(name, wanted)
    if more is None:
        return alone
    seen = dict(zip(more.files, more.seen, strict=True))
    here = {f.path: f for f in records.files.values() if _same(f, seen[f.path])}
    new = frozenset(seen) - here.keys()
    copies = [replace(more.copy(), files=new), replace(copy, files=frozenset(here))]
    return Grown(more, here, copies if here else [more.copy()])


def _held(chain: Chain, name: str) -> tuple[Copy, Records] | None:
    """The adopted copy in the first tier, whole and without a recipe."""
    first = chain.first
    with suppress(OSError, ManifestError, TieredStoreError):
        held = first.held(name)
        if held is None:
            return None
        with closing(held):
            head = held.head
            if not head.generation.startswith(_ADOPTED) or head.recipe is not None or held.partial:
                return None
            records = first.backend.mount.records_of(held)
            folder = held.marks.folder
        return Copy(first.tier.name, first.backend, folder, head, first.tier.deadline), records
    return None


def _same(record: FileRecord, seen: FileStat) -> bool:
    """Whether a file is known to be the version that was seen."""
    if record.size != seen.size:
        return False
    if record.sha256 is not None:
        return seen.digest == f"sha256:{record.sha256}"
    return bool(record.mtime_ns) and record.mtime_ns == seen.mtime_ns
