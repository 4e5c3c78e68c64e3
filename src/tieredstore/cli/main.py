"""Running one command: signals, errors in one line, the exit status."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from tieredstore import console, registry, views
from tieredstore.cli.commands import parser
from tieredstore.cli.moving import restore
from tieredstore.cli.shown import FAILED, MISUSED, Shown
from tieredstore.cli.verbs import PROGRAM
from tieredstore.config import debug, open_store
from tieredstore.console import ConsoleReporter, OutputClosed
from tieredstore.errors import ConfigError, InvalidName


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
        return parser().parse_args(argv)
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
    if args.verb is not restore:  # reads every distribution's metadata, which a hit must not
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
