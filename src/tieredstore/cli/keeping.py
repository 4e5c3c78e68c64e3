"""The verb that keeps artifacts whole: ``verify``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from tieredstore import views
from tieredstore.cli.shown import DONE, FAILED, Shown
from tieredstore.cli.verbs import Verbs
from tieredstore.errors import RepairFailed
from tieredstore.store import TieredStore
from tieredstore.tiers.tier import UNREACHABLE
from tieredstore.tiers.verifying import Verified


def add(verbs: Verbs) -> None:
    """Add them to the command."""
    verify = verbs.add(
        _verify,
        "verify",
        "compare every byte of each copy with its manifest",
        "All artifacts where none is named. Exit status 1 when a copy is, or stays, damaged.",
    )
    verify.add_argument("names", metavar="NAME", nargs="*", help="an artifact; all by default")
    verify.add_argument(
        "--tier",
        metavar="TIER",
        action="append",
        help="only its copies; may be given several times",
    )
    verify.add_argument(
        "--repair",
        action="store_true",
        help="mend damaged copies with what other tiers have of the same generation",
    )


def _verify(store: TieredStore, args: argparse.Namespace) -> Shown:
    error = ""
    try:
        work = store.repair if args.repair else store.verify_all
        found = work(args.names or None, args.tier)
    except RepairFailed as failed:
        found, error = failed.verified, str(failed)
    copies = [(name, verified) for name, all_of_it in found.items() for verified in all_of_it]
    for _, verified in copies:
        if verified.state == UNREACHABLE:
            store.reporter.skipped(verified.tier, "; ".join(verified.problems))
    document = {
        "artifacts": [
            {"name": name, "copies": [views.verified_row(v) for v in all_of_it]}
            for name, all_of_it in found.items()
        ]
    }
    lines = [f"{name}: {v.tier}: {views.worth(v)}" for name, v in copies]
    error = error or _left(found, repair=args.repair)
    return Shown(document, lines, [], FAILED if error else DONE, error)


def _left(found: Mapping[str, Sequence[Verified]], *, repair: bool) -> str:
    """What is still damaged, or could not be compared at all, and what to do."""
    said = []
    for name, copies in found.items():
        damaged = ", ".join(v.tier for v in copies if v.damaged)
        if damaged:
            said.append(f"{name}: damaged in {damaged}")
        elif not any(v.ok for v in copies):
            said.append(f"{name}: nothing to compare with a manifest; restore it first")
    if any(v.damaged for copies in found.values() for v in copies):
        said.append(
            "read-only tiers are not repaired; mend them where they are written"
            if repair
            else "restore takes a copy that is whole, and verify --repair mends the damaged ones"
        )
    return "; ".join(said)
