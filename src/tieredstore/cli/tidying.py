"""The verbs that keep places tidy, and keep them from being swept: ``gc`` and ``refresh``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Final

from tieredstore import views
from tieredstore.cli.shown import DONE, FAILED, Shown, age, size
from tieredstore.cli.verbs import Verbs
from tieredstore.errors import ConfigError
from tieredstore.litter import Litter
from tieredstore.store import TieredStore

LITTER: Final = ("Tier", "What", "Where", "Size", "Age")


def add(verbs: Verbs) -> None:
    """Add them to the command."""
    collect = verbs.add(
        _gc,
        "gc",
        "drop what is left over in folders and object stores",
        "Replaced generations, and what was killed has left: stages, partial downloads, leases. "
        "Nothing that is worked on is touched. Each line is what was found.",
    )
    collect.add_argument(
        "--tier",
        metavar="TIER",
        action="append",
        help="only this tier; may be given several times",
    )
    collect.add_argument(
        "--older-than",
        metavar="TIME",
        type=seconds,
        default="24h",
        help="leave alone what is younger than this, such as 90s, 30min, 24h (the default) or 7d",
    )
    collect.add_argument(
        "--damaged",
        action="store_true",
        help="also drop copies that were kept aside because they are damaged",
    )
    collect.add_argument("--dry-run", action="store_true", help="only show it")
    refresh = verbs.add(
        _refresh,
        "refresh",
        "use copies in a place that is swept, so that they stay there",
        "For tiers with purge_days. Each file is read, and its time of access set where it is "
        "yours. Some sites forbid this.",
    )
    refresh.add_argument("names", metavar="NAME", nargs="*", help="an artifact")
    refresh.add_argument(
        "--expiring",
        metavar="TIME",
        type=seconds,
        help="only what may be deleted within this time, such as 3d; of all artifacts where "
        "none is named",
    )


def seconds(text: str) -> float:
    """An argument that is a time."""
    try:
        return views.seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _gc(store: TieredStore, args: argparse.Namespace) -> Shown:
    if args.dry_run:
        found = store.litter(args.tier, args.older_than)
    else:
        found = store.collect(args.tier, args.older_than, damaged=args.damaged)
    document = {"tiers": [views.litter_row(tier) for tier in found]}
    if not found:
        error = "no tier of this store can tell what is left over in it"
        return Shown(document, [], [], FAILED, f"{error}; folders and object stores can")
    rows = [_litter_row(tier.tier, left) for tier in found for left in tier.litter]
    failed = [tier.tier for tier in found if tier.failed]
    error = f"not collected to the end: {', '.join(failed)}" if failed else ""
    closing = views.collected(found, dry_run=args.dry_run)
    return Shown(document, closing, rows, FAILED if failed else DONE, error, LITTER)


def _refresh(store: TieredStore, args: argparse.Namespace) -> Shown:
    if not args.names and args.expiring is None:
        raise ConfigError("refresh: expected an artifact's name, or --expiring TIME")
    found = store.refresh(args.names, args.expiring)
    document = {"copies": [asdict(copy) for copy in found]}
    lines = [views.refreshed(copy) for copy in found] or ["nothing to refresh"]
    failed = [copy for copy in found if copy.failed]
    error = f"not refreshed: {', '.join(copy.name for copy in failed)}" if failed else ""
    return Shown(document, lines, [], FAILED if failed else DONE, error)


def _litter_row(tier: str, left: Litter) -> list[str]:
    return [tier, left.what, left.path, size(left.size), age(int(left.since))]
