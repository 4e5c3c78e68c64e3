"""Running one command: signals, errors in one line, the exit status."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from tieredstore import console, registry, views
from tieredstore.cli.commands import parser
from tieredstore.cli.moving import restore
from tieredstore.cli.shown import FAILED, MISUSED, Shown
from tieredstore.cli.verbs import PROGRAM
from tieredstore.config import debug, open_store
from tieredstore.console import ConsoleReporter, OutputClosed
from tieredstore.errors import ConfigError, InvalidName
from tieredstore.signals import Terminated, terminable
from tieredstore.tiers.tier import Tier
from tieredstore.workers import within


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; the process's own by default, and then the process ends with the command,
        whatever thread is left in a place that hangs.

    Returns
    -------
    int
        0 done, 1 failed, 2 used wrongly, 130 interrupted, 143 terminated, 141 when whoever read
        the output has gone.
    """
    code = _run(argv)
    if argv is None:
        _leave(code)
    return code


def _run(argv: Sequence[str] | None) -> int:
    reporter = console.console_reporter(PROGRAM)
    try:
        with terminable():
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
    except KeyboardInterrupt:
        reporter.line("interrupted; run the command again to go on")
        return 128 + signal.SIGINT
    except Terminated:
        reporter.line("terminated; run the command again to go on")
        return 128 + signal.SIGTERM


def _leave(code: int) -> None:
    """End the process here when a thread, in a place that hangs, would keep it from its end.

    Threads of this library never do; those of clients may, a name that is being resolved, say.
    """
    own = threading.current_thread()
    if all(thread.daemon or thread is own for thread in threading.enumerate()):
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    try:
        return parser().parse_args(argv)
    except SystemExit:
        console.show_lines([])  # a help text goes out while somebody can say that it did not
        raise


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


def _check_answers(first: Tier) -> None:
    """Refuse to work on a first tier that hangs: whatever looks into it would wait for ever."""
    look = partial(_open_folder, first.backend.place)
    within(first.deadline, look, f"the first tier {first.name!r} ({first.backend.place})")


def _open_folder(path: str) -> None:
    with suppress(OSError):  # whoever works there says what is wrong
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY))


def _call(args: argparse.Namespace, reporter: ConsoleReporter) -> int:
    store = open_store(getattr(args, "config", None), reporter=reporter)
    if args.verb is not restore:  # reads every distribution's metadata, which a hit must not
        registry.check_clashes()
    if not args.patient:
        _check_answers(store.tiers[0])
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
