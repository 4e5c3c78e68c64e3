"""The verb for promotes that wait: ``flush``; ``promote --queue`` is in ``moving.py``."""

from __future__ import annotations

import argparse
from typing import Final

from tieredstore import views
from tieredstore.cli.shown import DONE, FAILED, Shown, age
from tieredstore.cli.verbs import Verbs
from tieredstore.store import TieredStore

WAITING: Final = ("Artifact", "Tier", "Age", "Tries", "Reason")


def add(verbs: Verbs) -> None:
    """Add it to the command."""
    flush = verbs.add(
        _flush,
        "flush",
        "promote what waits in the queue",
        "What fails goes on waiting; without names it is then left alone for some minutes. "
        "Several may flush at once. Exit status 1 when something failed.",
    )
    flush.add_argument("names", metavar="NAME", nargs="*", help="an artifact; all by default")
    what = flush.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="only show what waits")
    what.add_argument("--drop", action="store_true", help="take these out of the queue instead")


def _flush(store: TieredStore, args: argparse.Namespace) -> Shown:
    if args.dry_run:
        return _waiting(store, args)
    if args.drop:
        return _drop(store, args)
    found = store.flush(args.names or None)
    document = {"flushed": [views.flushed_row(each) for each in found]}
    lines = [views.flushed(each) for each in found if each.done]
    lines += [views.flushed(each) for each in found if not each.done and not each.failed]
    failed = [views.flushed(each) for each in found if each.failed]
    if not found:
        lines = [f"nothing of {', '.join(args.names)} waits" if args.names else "nothing waits"]
    return Shown(document, lines, [], FAILED if failed else DONE, "; ".join(failed))


def _waiting(store: TieredStore, args: argparse.Namespace) -> Shown:
    waiting = [q for q in store.queued() if not args.names or q.name in args.names]
    rows = [[q.name or q.file, q.tier, age(int(q.since)), str(q.tries), q.reason] for q in waiting]
    document = {"queued": [views.queued_row(each) for each in waiting]}
    return Shown(document, [] if rows else ["nothing waits"], rows, columns=WAITING)


def _drop(store: TieredStore, args: argparse.Namespace) -> Shown:
    if not args.names:
        return Shown({}, [], [], FAILED, "--drop needs the names of artifacts")
    dropped = {name: store.unqueue(name) for name in args.names}
    lines = [f"{name}: {count} taken out of the queue" for name, count in dropped.items()]
    return Shown({"dropped": dropped}, lines)
