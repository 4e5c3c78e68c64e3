"""Running the command ``datasets-prep``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from datasets_prep.cli import (
    caches,
    chunks,
    downloading,
    preparing,
    slurm,
    tabular,
    verifying,
    vocabulary,
)
from datasets_prep.cli.edge import guarded
from datasets_prep.cli.verbs import Verbs
from datasets_prep.console import PROGRAM
from datasets_prep.options import Parser
from tieredstore import __version__


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; the process's own by default.

    Returns
    -------
    int
        0 done, 1 failed, 2 used wrongly, 130 interrupted, 143 terminated.
    """
    return guarded(lambda: _command(argv))


def _command(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    call: Callable[[argparse.Namespace], int] = args.call
    return call(args)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Prepare training data, kept and restored by tieredstore.",
        epilog="exit status: 0 done, 1 failed, 2 used wrongly, 130 interrupted, 143 terminated",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    verbs = Verbs(parser.add_subparsers(metavar="COMMAND", required=True, title="commands"))
    for group in (preparing, downloading, verifying, tabular, vocabulary, chunks, slurm, caches):
        group.add(verbs)
    return parser
