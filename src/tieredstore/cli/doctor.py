"""The verb ``doctor``: what this machine and its tiers really do, and what follows from it."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import Any, Final

from tieredstore.cli.shown import DONE, FAILED, Shown
from tieredstore.cli.verbs import Verbs
from tieredstore.config import surroundings
from tieredstore.errors import TieredStoreError
from tieredstore.store import TieredStore
from tieredstore.workers import within

COLUMNS: Final = ("Tier", "Check", "Is", "Result", "Meaning")
MACHINE: Final = "(this machine)"
_KNOWN: Final = 20  # artifacts that a place without a listing is asked for


def add(verbs: Verbs) -> None:
    """Add it to the command."""
    made = verbs.add(
        _doctor,
        "doctor",
        "try what this machine and each tier really do",
        "What is written is taken away again; artifacts are not touched. Exit status 1 when a "
        "tier cannot be used.",
    )
    made.set_defaults(patient=True)
    made.add_argument(
        "--tier",
        metavar="TIER",
        action="append",
        help="only this tier; may be given several times",
    )
    made.add_argument(
        "--nodes",
        metavar="N",
        type=int,
        choices=(1, 2),
        default=1,
        help="2: meet another doctor on the same mount, run on another node at the same time",
    )
    made.add_argument(
        "--wait",
        metavar="SECONDS",
        type=float,
        default=60.0,
        help="how long to wait for the other doctor (60)",
    )
    made.add_argument(
        "--limit",
        metavar="SECONDS",
        type=float,
        default=20.0,
        help="how long one check may take before the tier counts as hanging (20)",
    )


def _doctor(store: TieredStore, args: argparse.Namespace) -> Shown:
    from tieredstore.doctor.advice import advice
    from tieredstore.doctor.finding import Report
    from tieredstore.doctor.machine import machine
    from tieredstore.doctor.running import Wanted, examine

    around = surroundings()
    chosen = store.tiers if args.tier is None else [store.tier(t) for t in args.tier]
    by_name = any(not tier.backend.listable for tier in chosen)
    names = _names(store, args.limit) if by_name else ()
    wanted = Wanted(getattr(args, "config", None), args.limit, args.nodes, args.wait, names)
    report = Report(machine(around))
    report.tiers = examine(chosen, store.tiers[0], wanted)
    report.advice = advice(report.machine, report.tiers, around)
    unusable = [examined.place.tier for examined in report.tiers if not examined.usable]
    error = f"cannot be used as configured: {', '.join(unusable)}" if unusable else ""
    lines = [f"{number}. {text}" for number, text in enumerate(report.advice, 1)]
    code = FAILED if unusable else DONE
    return Shown(report.document(), lines, _rows(report), code, error, COLUMNS)


def _rows(report: Any) -> list[list[str]]:
    whole = [(MACHINE, report.machine), *((e.place.tier, e.findings) for e in report.tiers)]
    return [[tier, f.check, f.state, f.result, f.meaning] for tier, found in whole for f in found]


def _names(store: TieredStore, limit: float) -> tuple[str, ...]:
    """Some artifacts of the first tier."""
    first = store.tiers[0]
    with suppress(OSError, TieredStoreError):
        found = within(limit, lambda: list(first.backend.folders()), f"tier {first.name!r}")
        names = filter(None, map(first.layout.name_of, found))
        return tuple(sorted(names)[:_KNOWN])
    return ()
