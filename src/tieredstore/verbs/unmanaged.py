"""Restore data from before this library: measured while it moves, and given a manifest."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from tieredstore.backends.local import LocalBackend
from tieredstore.errors import CorruptData, writing_to
from tieredstore.manifest.artifact import Head
from tieredstore.manifest.records import FileRecord, Records, head_of
from tieredstore.mounted.filled import put_manifest
from tieredstore.moving.transfer import Transfer
from tieredstore.space.room import Need, room
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import Located
from tieredstore.verbs.adopting import adopted_generation, unmanaged_records
from tieredstore.workers import within


def bring_unmanaged(chain: Chain, name: str, chosen: Located, found: str | None) -> None:
    """Bring data without a manifest up to the first tier, and give both ends the manifest.

    Parameters
    ----------
    chain, name
        What is restored.
    chosen : Located
        Where the data lies.
    found : str or None
        The generation in the first tier, which may be replaced.

    Raises
    ------
    CorruptData
        When the data changed while it was read.
    """
    first, reporter = chain.first, chain.reporter
    reporter.adopted(name, chosen.tier.name)
    before = _look(chosen)
    head = Head(adopted_generation(before), 0, 0, 0, "0" * 32)
    with room(chain, first.tier, name, Need.of(head, before)) as space:
        with writing_to(first.tier.name):
            staging = first.backend.begin(first.tier.layout.folder(name), head)
        reporter.started("restore", name, sum(f.size for f in before))
        copies, deadline = [chosen.copy()], first.tier.deadline
        moved = Transfer(copies, staging, reporter, first.tier.name, deadline).move(before)
        if _look(chosen) != before:
            staging.discard()
            raise CorruptData(
                f"{chosen.tier.backend.place}/{chosen.folder}: changed while it was read"
            )
        records = Records.of(moved.files)
        head = head_of(records, None, generation=head.generation)
        space.written()
        with writing_to(first.tier.name):
            staging.publish(head, records, found)
    _put_manifest(chosen, name, head, records)


def _look(chosen: Located) -> list[FileRecord]:
    look = partial(unmanaged_records, chosen.tier.backend, chosen.folder, chosen.files)
    return within(chosen.tier.deadline, look, f"tier {chosen.tier.name!r}")


def _put_manifest(chosen: Located, name: str, head: Head, records: Records) -> None:
    """Give the place that data was adopted from its manifest too, where it may be written."""
    backend = chosen.tier.backend
    own_place = chosen.folder == chosen.tier.layout.folder(name)
    if own_place and chosen.tier.writable and isinstance(backend, LocalBackend):
        put = partial(put_manifest, backend.mount, chosen.folder, head, records)
        with suppress(OSError):
            within(chosen.tier.deadline, put, f"tier {chosen.tier.name!r}")
