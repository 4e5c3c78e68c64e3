"""The verbs that only look: ``status`` and ``locate``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from tieredstore import views
from tieredstore.cli.shown import FAILED, Shown, age, size
from tieredstore.cli.verbs import Verbs
from tieredstore.errors import TieredStoreError, TierUnavailable, reason
from tieredstore.store import TieredStore
from tieredstore.tiers.queued import Queued
from tieredstore.tiers.tier import ABSENT, UNREACHABLE, Located, Tier


def add(verbs: Verbs) -> None:
    """Add them to the command."""
    verbs.add(_status, "status", "show every artifact and what each tier has of it")
    verbs.add_named(_locate, "locate", "find the copies of one artifact")


def _status(store: TieredStore, args: argparse.Namespace) -> Shown:
    del args
    found = store.status()
    document: dict[str, Any] = {
        "tiers": [views.tier_row(tier) for tier in store.tiers],
        "artifacts": [
            {"name": name, "copies": _copies(store, located)} for name, located in found.items()
        ],
    }
    rows = [
        _row(artifact["name"], copy)
        for artifact in document["artifacts"]
        for copy in artifact["copies"]
    ]
    places = ", ".join(f"{tier.name} ({tier.backend.place})" for tier in store.tiers)
    lines = [] if rows else [f"no artifacts in {places}"]
    for tier, row in zip(store.tiers, document["tiers"], strict=True):
        if tier.space.limited:
            lines += _space(store, tier, row)
    waiting = _waiting(store)
    document["queued"] = [views.queued_row(each) for each in waiting]
    return Shown(document, [*lines, *views.waiting(waiting)], rows)


def _space(store: TieredStore, tier: Tier, row: views.Row) -> list[str]:
    try:
        used = store.used(tier.name)
    except (OSError, TieredStoreError) as error:
        store.reporter.skipped(tier.name, reason(error))
        return []
    row["used"], row["free"] = used.size, used.free
    return [views.space_line(tier, used)]


def _waiting(store: TieredStore) -> list[Queued]:
    try:
        return store.queued()
    except TierUnavailable as error:
        store.reporter.skipped(store.tiers[0].name, str(error))
        return []


def _locate(store: TieredStore, args: argparse.Namespace) -> Shown:
    copies = _copies(store, store.locate(args.name))
    document = {"name": args.name, "copies": copies}
    rows = [_row(args.name, copy) for copy in copies]
    if all(copy["state"] in {ABSENT, UNREACHABLE} for copy in copies):
        error = f"{args.name}: in no tier; tieredstore status shows what there is"
        return Shown(document, [], rows, FAILED, error)
    return Shown(document, [], rows)


def _copies(store: TieredStore, located: Sequence[Located]) -> list[views.Row]:
    for where in located:
        if where.state == UNREACHABLE:
            store.reporter.skipped(where.tier.name, where.detail)
    return views.copy_rows(located)


def _row(name: str, copy: views.Row) -> list[str]:
    said = copy["differs"] or copy["detail"], views.purged(copy["expires"])
    last = "; ".join(part for part in said if part)
    files = "" if copy["files"] is None else str(copy["files"])
    text = [name, copy["tier"], copy["state"], files, size(copy["size"]), age(copy["created"])]
    return [*text, copy["recipe_short"], last]
