"""The verbs that keep tiers within their space: ``evict``, ``pin`` and ``unpin``."""

from __future__ import annotations

import argparse
from typing import Final

from tieredstore import limits, views
from tieredstore.cli.shown import DONE, FAILED, Shown, age, size
from tieredstore.cli.tidying import seconds
from tieredstore.cli.verbs import Verbs
from tieredstore.errors import ArtifactNotFound, ConfigError
from tieredstore.space.least_used import Candidate, Evicted
from tieredstore.space.pins import Pin
from tieredstore.store import TieredStore

EVICTED: Final = ("Artifact", "Size", "Last use", "Outcome")
PINS: Final = ("Artifact", "Until", "By")


def add(verbs: Verbs) -> None:
    """Add them to the command."""
    evict = verbs.add(
        _evict,
        "evict",
        "drop copies that a durable tier also has",
        "The other copy is verified first; what is pinned, or being worked on, stays. Without a "
        "name the least recently used go, until SIZE is free or as long as they were not used "
        "for TIME.",
    )
    evict.add_argument("name", metavar="NAME", nargs="?", help="the artifact, such as shakespeare")
    evict.add_argument("--tier", metavar="TIER", help="drop them there instead of the first tier")
    evict.add_argument(
        "--free", metavar="SIZE", type=_size, help="until so much is free, such as 200GB or 1.5TiB"
    )
    evict.add_argument(
        "--unused-for",
        metavar="TIME",
        type=seconds,
        help="only what was not used for so long, such as 24h or 7d",
    )
    evict.add_argument("--dry-run", action="store_true", help="only show it")
    pin = verbs.add(
        _pin,
        "pin",
        "keep a copy from being evicted for a time",
        "Without a name the pins that there are are shown.",
    )
    pin.add_argument("name", metavar="NAME", nargs="?", help="the artifact, such as shakespeare")
    pin.add_argument(
        "--for",
        dest="length",
        metavar="TIME",
        type=seconds,
        default="7d",
        help="how long, such as 90s, 30min, 24h or 7d (the default)",
    )
    unpin = verbs.add_named(_unpin, "unpin", "take away all pins of an artifact")
    for verb in (pin, unpin):
        verb.add_argument("--tier", metavar="TIER", help="there instead of in the first tier")


def _evict(store: TieredStore, args: argparse.Namespace) -> Shown:
    by_use = args.free is not None or args.unused_for is not None
    if bool(args.name) == by_use:
        raise ConfigError("evict: expected a NAME, or --free SIZE or --unused-for TIME without one")
    if by_use:
        return _evict_unused(store, args)
    tier = args.tier or store.tiers[0].name
    if args.dry_run:
        return _would_evict(store, args.name, tier)
    freed = store.evict(args.name, tier)
    document = {"name": args.name, "tier": tier, "freed": freed}
    return Shown(document, [f"{args.name}: evicted from {tier}, {views.size(freed)} freed"])


def _would_evict(store: TieredStore, name: str, tier: str) -> Shown:
    head = store.tier(tier).locate(name).head
    if head is None:
        raise ArtifactNotFound(f"{name}: tier {tier!r} has none")
    why = store.why_kept(name, tier)
    document = {"name": name, "tier": tier, "freed": 0, "size": head.size, "kept": why}
    if why:
        return Shown(document, [], [], FAILED, f"{name}: would be kept in {tier}: {why}")
    line = f"{name}: would be evicted from {tier}, {views.size(head.size)} freed"
    return Shown(document, [f"{line}, if its other copy is whole"])


def _evict_unused(store: TieredStore, args: argparse.Namespace) -> Shown:
    work = store.evictable if args.dry_run else store.evict_unused
    found = work(args.tier, args.free, args.unused_for or 0.0)
    gone = "would be evicted" if args.dry_run else "evicted"
    rows = [_row(one, gone) for one in found.gone]
    rows += [_row(one, f"kept: {one.kept}") for one in found.kept]
    if found.missing > 0:
        error = f"{views.size(found.missing)} more would have to be freed in {found.tier}"
        return Shown(_document(found), [_total(found, gone)], rows, FAILED, error, EVICTED)
    return Shown(_document(found), [_total(found, gone)], rows, DONE, "", EVICTED)


def _total(found: Evicted, gone: str) -> str:
    return f"{len(found.gone)} {gone} from {found.tier}, {views.size(found.freed)} freed"


def _row(one: Candidate, outcome: str) -> list[str]:
    return [one.name, size(one.size), age(int(one.used)), outcome]


def _document(found: Evicted) -> views.Row:
    gone, kept = ([_fields(one) for one in some] for some in (found.gone, found.kept))
    freed, missing = found.freed, found.missing
    return {"tier": found.tier, "freed": freed, "missing": missing, "gone": gone, "kept": kept}


def _fields(one: Candidate) -> views.Row:
    return {"name": one.name, "size": one.size, "used": one.used, "kept": one.kept}


def _pin(store: TieredStore, args: argparse.Namespace) -> Shown:
    if args.name is None:
        pins = store.pins(args.tier)
        rows = [[one.name or one.file, views.when(int(one.until)), one.who] for one in pins]
        document = {"pins": [_pin_fields(one) for one in pins]}
        return Shown(document, [] if pins else ["nothing is pinned"], rows, DONE, "", PINS)
    made = store.pin(args.name, args.length, args.tier)
    there = store.tier(made.tier).locate(args.name).present
    line = f"{args.name}: pinned in {made.tier} until {views.when(int(made.until))}"
    return Shown(_pin_fields(made), [line if there else f"{line}; it is not there yet"])


def _pin_fields(one: Pin) -> views.Row:
    return {"name": one.name, "tier": one.tier, "until": one.until, "by": one.who}


def _unpin(store: TieredStore, args: argparse.Namespace) -> Shown:
    count = store.unpin(args.name, args.tier)
    tier = args.tier or store.tiers[0].name
    document = {"name": args.name, "tier": tier, "pins": count}
    pins = "1 pin" if count == 1 else f"{count} pins"
    return Shown(document, [f"{args.name}: {pins} taken away in {tier}"])


def _size(text: str) -> int:
    try:
        return limits.parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
