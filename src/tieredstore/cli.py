"""The command ``tieredstore``: parse, call, print. No logic: each verb is one call of the store."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final, NoReturn

from tieredstore import __version__, console, registry, views
from tieredstore.config import debug, open_store
from tieredstore.console import ConsoleReporter, OutputClosed
from tieredstore.errors import ConfigError, InvalidName
from tieredstore.litter import Litter
from tieredstore.store import TieredStore
from tieredstore.tier import ABSENT, UNREACHABLE, Located

DONE, FAILED, MISUSED = 0, 1, 2
PROGRAM: Final = "tieredstore"
COLUMNS: Final = ("Artifact", "Tier", "State", "Files", "Size", "Age", "Recipe", "Differs")
LITTER: Final = ("Tier", "What", "Where", "Size", "Age")
EPILOG: Final = """\
exit status: 0 done, 1 failed, 2 used wrongly, 130 interrupted, 143 terminated

The tiers come from --config, else from the file that TIEREDSTORE_CONFIG names, else from
tieredstore.toml (or [tool.tieredstore] in pyproject.toml) here or in a folder above, else they
are ./data and the RunPod volume. TIEREDSTORE_OFFLINE=1 leaves out what is reached over the
network. TIEREDSTORE_DEBUG=1 shows tracebacks.
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a verb has to show: one JSON document, or the same as lines or rows."""

    document: dict[str, Any]
    lines: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    code: int = DONE
    error: str = ""
    columns: Sequence[str] = COLUMNS


Verb = Callable[[TieredStore, argparse.Namespace], Shown]


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; the process's own by default.

    Returns
    -------
    int
        0 done, 1 failed, 2 used wrongly, 130 interrupted, 143 terminated, 141 when whoever read
        the output has gone.
    """
    reporter = console.console_reporter(PROGRAM)
    try:
        with _signals():
            args = _parsed(argv)
            try:
                return _perform(args, reporter)
            finally:
                reporter.close()
    except OutputClosed:
        return 128 + signal.SIGPIPE
    except OSError as error:  # the help text could not be written
        reporter.error(views.explained(error))
        return FAILED
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else int(signal.SIGINT)
        how = "interrupted" if number == signal.SIGINT else "terminated"
        reporter.line(f"{how}; run the command again to go on")
        return 128 + number


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    try:
        return _parser().parse_args(argv)
    except SystemExit:
        console.show_lines([])  # a help text goes out while somebody can say that it did not
        raise


@contextmanager
def _signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the work in order, once; a second one ends the process at once."""
    before: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            with suppress(ValueError):  # not in the main thread
                before[number] = signal.signal(number, _stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt(number)


def _perform(args: argparse.Namespace, reporter: ConsoleReporter) -> int:
    try:
        return _call(args, reporter)
    except OutputClosed:
        raise
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user
        if debug():
            import traceback

            traceback.print_exc()
        reporter.error(views.explained(error))
        if args.json:
            document = {"error": views.error_row(error), "skipped": reporter.skipped_tiers}
            with suppress(OSError):
                console.show_json(document)
        return MISUSED if isinstance(error, ConfigError | InvalidName) else FAILED


def _call(args: argparse.Namespace, reporter: ConsoleReporter) -> int:
    store = open_store(getattr(args, "config", None), reporter=reporter)
    if args.verb is not _restore:  # reads every distribution's metadata, which a hit must not
        registry.check_clashes()
    shown: Shown = args.verb(store, args)
    reporter.close()
    if args.json:
        console.show_json({**shown.document, "skipped": reporter.skipped_tiers})
    else:
        if shown.rows:
            console.show_table(shown.columns, shown.rows)
        console.show_lines(shown.lines)
    if shown.error:
        reporter.error(shown.error)
    return shown.code


# -- verbs --------------------------------------------------------------------------------------


def _status(store: TieredStore, args: argparse.Namespace) -> Shown:
    del args
    found = store.status()
    document = {
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
    return Shown(document, [] if rows else [f"no artifacts in {places}"], rows)


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
    terminal = sys.stdout is not None and sys.stdout.isatty()
    size = views.size(copy["size"]) if terminal else _text(copy["size"])
    age = views.age(copy["created"]) if terminal else views.when(copy["created"])
    last = copy["differs"] or copy["detail"]
    files = _text(copy["files"])
    return [name, copy["tier"], copy["state"], files, size, age, copy["recipe_short"], last]


def _text(number: int | None) -> str:
    return "" if number is None else str(number)


def _put(store: TieredStore, args: argparse.Namespace) -> Shown:
    from tieredstore.putting import put

    size = put(store, args.name, args.paths)
    got = store.restore(args.name)
    document = {**views.got_row(got, store.tiers[0].name), "size": size}
    return Shown(document, [f"{args.name}: {views.size(size)} put into {got.path}"])


def _restore(store: TieredStore, args: argparse.Namespace) -> Shown:
    got = store.restore(args.name, args.files)
    document = views.got_row(got, store.tiers[0].name)
    if document["hit"]:
        return Shown(document, [f"{args.name}: already in {got.path}"])
    return Shown(document, [f"{args.name}: restored from {got.source} to {got.path}"])


def _promote(store: TieredStore, args: argparse.Namespace) -> Shown:
    outcomes = store.promote(args.name, args.to, replace=args.force)
    document = {"name": args.name, "tiers": [views.outcome_row(o) for o in outcomes]}
    if not outcomes:
        error = f"{args.name}: no durable tier to promote to; mark one with durable = true"
        return Shown(document, [], [], FAILED, f"{error}, or name one with --to")
    lines = [f"{args.name}: {o.action} in {o.tier}, {views.size(o.size)} moved" for o in outcomes]
    return Shown(document, lines)


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
    size = store.evict(args.name, tier)
    document = {"name": args.name, "tier": tier, "freed": size}
    return Shown(document, [f"{args.name}: evicted from {tier}, {views.size(size)} freed"])


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
    terminal = sys.stdout is not None and sys.stdout.isatty()
    size = views.size(left.size) if terminal else str(left.size)
    age = views.age(int(left.since)) if terminal else views.when(int(left.since))
    return [tier, left.what, left.path, size, age]


# -- arguments ----------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Says what was used wrongly in one line."""

    def error(self, message: str) -> NoReturn:
        console.console_reporter(PROGRAM).error(f"{message}; see {self.prog} --help")
        raise SystemExit(MISUSED)


def _files(text: str) -> list[str]:
    return text.split(",")


def _seconds(text: str) -> float:
    try:
        return views.seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False, allow_abbrev=False)
    common.add_argument(
        "--config", metavar="FILE", default=argparse.SUPPRESS, help="a TOML file with the tiers"
    )
    parser = _Parser(
        prog=PROGRAM,
        description="Named sets of files on a chain of tiers: verified, atomic and fast.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")

    def add(verb: Verb, name: str, line: str, more: str = "") -> argparse.ArgumentParser:
        text = f"{line[0].upper()}{line[1:]}. {more}".strip()
        made = verbs.add_parser(
            name, help=line, description=text, parents=[common], allow_abbrev=False
        )
        made.set_defaults(verb=verb)
        made.add_argument("--json", action="store_true", help="one JSON document on stdout")
        if verb not in {_status, _gc}:
            made.add_argument("name", metavar="NAME", help="the artifact, such as shakespeare")
        return made

    _add_verbs(add)
    return parser


def _add_verbs(add: Callable[..., argparse.ArgumentParser]) -> None:
    add(_status, "status", "show every artifact and what each tier has of it")
    add(_locate, "locate", "find the copies of one artifact")
    put = add(
        _put,
        "put",
        "publish copies of files and folders as an artifact",
        "A single folder gives its content, a file or several paths are taken under their base "
        "names. Your files are copied and stay where they are; links are refused, and empty "
        "folders are not kept. An artifact of that name is replaced.",
    )
    put.add_argument("paths", metavar="PATH", nargs="+", help="a file or a folder")
    restore = add(_restore, "restore", "bring an artifact up to the first tier")
    restore.add_argument(
        "--files", metavar="A,B", type=_files, help="only these files, separated by commas"
    )
    promote = add(
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
    add(
        _verify,
        "verify",
        "compare every byte of each copy with its manifest",
        "Exit status 1 when a copy is damaged.",
    )
    evict = add(
        _evict,
        "evict",
        "drop a copy that a durable tier also has",
        "The other copy is verified first.",
    )
    evict.add_argument("--tier", metavar="TIER", help="drop it there instead of the first tier")
    _add_gc(add)


def _add_gc(add: Callable[..., argparse.ArgumentParser]) -> None:
    collect = add(
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


if __name__ == "__main__":
    raise SystemExit(run())
