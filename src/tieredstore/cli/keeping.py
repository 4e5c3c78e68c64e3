"""The verbs that keep artifacts whole and places tidy: ``verify``, ``evict`` and ``gc``."""

from __future__ import annotations

import argparse
from typing import Final

from tieredstore import views
from tieredstore.cli.shown import DONE, FAILED, Shown, age, size
from tieredstore.cli.verbs import Verbs
from tieredstore.litter import Litter
from tieredstore.store import TieredStore
from tieredstore.tier import UNREACHABLE

LITTER: Final = ("Tier", "What", "Where", "Size", "Age")


def add(verbs: Verbs) -> None:
    """Add them to the command."""
    verbs.add_named(
        _verify,
        "verify",
        "compare every byte of each copy with its manifest",
        "Exit status 1 when a copy is damaged.",
    )
    evict = verbs.add_named(
        _evict,
        "evict",
        "drop a copy that a durable tier also has",
        "The other copy is verified first.",
    )
    evict.add_argument("--tier", metavar="TIER", help="drop it there instead of the first tier")
    collect = verbs.add(
        _gc,
        "gc",
        "drop what is left over in object stores",
        "Replaced generations, and what killed promotes have left. Each line is what was found.",
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
        type=_seconds,
        default="24h",
        help="leave alone what is younger than this, such as 90s, 30min, 24h (the default) or 7d",
    )
    collect.add_argument("--dry-run", action="store_true", help="only show it")


def _verify(store: TieredStore, args: argparse.Namespace) -> Shown:
    found = store.verify(args.name)
    for verified in found:
        if verified.state == UNREACHABLE:
            store.reporter.skipped(verified.tier, "; ".join(verified.problems))
    document = {"name": args.name, "copies": [views.verified_row(v) for v in found]}
    lines = [f"{args.name}: {v.tier}: {views.worth(v)}" for v in found]
    damaged = [v.tier for v in found if v.damaged]
    if damaged:
        error = f"{args.name}: damaged in {', '.join(damaged)}; restore takes a copy that is whole"
        return Shown(document, lines, [], FAILED, error)
    if not any(v.ok for v in found):
        error = f"{args.name}: nothing to compare with a manifest; restore it first"
        return Shown(document, lines, [], FAILED, error)
    return Shown(document, lines)


def _evict(store: TieredStore, args: argparse.Namespace) -> Shown:
    tier = args.tier or store.tiers[0].name
    freed = store.evict(args.name, tier)
    document = {"name": args.name, "tier": tier, "freed": freed}
    return Shown(document, [f"{args.name}: evicted from {tier}, {views.size(freed)} freed"])


def _gc(store: TieredStore, args: argparse.Namespace) -> Shown:
    work = store.litter if args.dry_run else store.collect
    found = work(args.tier, args.older_than)
    document = {"tiers": [views.litter_row(tier) for tier in found]}
    if not found:
        error = "no tier of this store can tell what is left over in it"
        return Shown(document, [], [], FAILED, f"{error}; object stores can")
    rows = [_litter_row(tier.tier, left) for tier in found for left in tier.litter]
    failed = [tier.tier for tier in found if tier.failed]
    error = f"not collected to the end: {', '.join(failed)}" if failed else ""
    closing = views.collected(found, dry_run=args.dry_run)
    return Shown(document, closing, rows, FAILED if failed else DONE, error, LITTER)


def _litter_row(tier: str, left: Litter) -> list[str]:
    return [tier, left.what, left.path, size(left.size), age(int(left.since))]


def _seconds(text: str) -> float:
    try:
        return views.seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
