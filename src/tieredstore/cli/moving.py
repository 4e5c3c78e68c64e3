"""The verbs that move bytes: ``put``, ``restore`` and ``promote``."""

from __future__ import annotations

import argparse

from tieredstore import views
from tieredstore.cli.shown import FAILED, Shown
from tieredstore.cli.verbs import Verbs
from tieredstore.store import TieredStore


def add(verbs: Verbs) -> None:
    """Add them to the command."""
    put = verbs.add_named(
        _put,
        "put",
        "publish copies of files and folders as an artifact",
        "A single folder gives its content, a file or several paths are taken under their base "
        "names. Your files are copied and stay where they are; links are refused, and empty "
        "folders are not kept. An artifact of that name is replaced.",
    )
    put.add_argument("paths", metavar="PATH", nargs="+", help="a file or a folder")
    restored = verbs.add_named(restore, "restore", "bring an artifact up to the first tier")
    restored.add_argument(
        "--files", metavar="A,B", type=_files, help="only these files, separated by commas"
    )
    promote = verbs.add_named(
        _promote,
        "promote",
        "copy an artifact down to durable tiers",
        "A tier that holds it made by another recipe refuses it, unless --force is given.",
    )
    promote.add_argument(
        "--to",
        metavar="TIER",
        action="append",
        help="this tier instead of all durable ones; may be given several times",
    )
    promote.add_argument(
        "--force", action="store_true", help="replace it even where another recipe made it"
    )
    promote.add_argument(
        "--queue", action="store_true", help="only write down that it is to be done, see flush"
    )


def _put(store: TieredStore, args: argparse.Namespace) -> Shown:
    from tieredstore.putting import put

    size = put(store, args.name, args.paths)
    got = store.restore(args.name)
    document = {**views.got_row(got, store.tiers[0].name), "size": size}
    return Shown(document, [f"{args.name}: {views.size(size)} put into {got.path}"])


def restore(store: TieredStore, args: argparse.Namespace) -> Shown:
    got = store.restore(args.name, args.files)
    document = views.got_row(got, store.tiers[0].name)
    if document["hit"]:
        return Shown(document, [f"{args.name}: already in {got.path}"])
    return Shown(document, [f"{args.name}: restored from {got.source} to {got.path}"])


def _promote(store: TieredStore, args: argparse.Namespace) -> Shown:
    if args.queue:
        return _queue(store, args)
    outcomes = store.promote(args.name, args.to, replace=args.force)
    document = {"name": args.name, "tiers": [views.outcome_row(o) for o in outcomes]}
    if not outcomes:
        return Shown(document, [], [], FAILED, _nowhere(args.name))
    lines = [f"{args.name}: {o.action} in {o.tier}, {views.size(o.size)} moved" for o in outcomes]
    return Shown(document, lines)


def _queue(store: TieredStore, args: argparse.Namespace) -> Shown:
    waiting = store.queue_promote(args.name, args.to, replace=args.force)
    document = {"name": args.name, "queued": [views.queued_row(each) for each in waiting]}
    if not waiting:
        return Shown(document, [], [], FAILED, _nowhere(args.name))
    to = ", ".join(each.tier for each in waiting)
    return Shown(
        document, [f"{args.name}: waits to be promoted to {to}; tieredstore flush does it"]
    )


def _nowhere(name: str) -> str:
    error = f"{name}: no durable tier to promote to; mark one with durable = true"
    return f"{error}, or name one with --to"


def _files(text: str) -> list[str]:
    return text.split(",")
