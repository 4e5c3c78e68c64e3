"""The verbs that keep places tidy, and what is in them from being deleted: ``gc``."""

from __future__ import annotations

import argparse
from typing import Final

from tieredstore import views
from tieredstore.cli.shown import DONE, FAILED, Shown, age, size
from tieredstore.cli.verbs import Verbs
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


def _litter_row(tier: str, left: Litter) -> list[str]:
    return [tier, left.what, left.path, size(left.size), age(int(left.since))]
