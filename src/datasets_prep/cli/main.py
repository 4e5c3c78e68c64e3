"""Running the command ``datasets-prep``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Final

from datasets_prep.cli.edge import guarded
from datasets_prep.cli.verbs import Verbs
from datasets_prep.console import PROGRAM
from datasets_prep.options import Parser
from tieredstore import __version__

# Groups of verbs, by their modules; those whose verbs stand here are loaded alone when one of
# these is called, because a dataset that is there already is to be found at once.
_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "preparing": ("prepare", "list"),
    "downloading": ("download",),
    "verifying": (),
    "exporting": (),
    "tabular": (),
    "vocabulary": (),
    "chunks": (),
    "slurm": (),
    "caches": (),
}


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
    words = list(sys.argv[1:] if argv is None else argv)
    args = _parser(words[0] if words else "").parse_args(words)
    call: Callable[[argparse.Namespace], int] = args.call
    return call(args)


def _parser(verb: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Prepare training data, kept and restored by tieredstore.",
        epilog="exit status: 0 done, 1 failed, 2 used wrongly, 130 interrupted, 143 terminated",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    verbs = Verbs(parser.add_subparsers(metavar="COMMAND", required=True, title="commands"))
    alone = [group for group, known in _GROUPS.items() if verb in known]
    for group in alone or _GROUPS:
        import_module(f"datasets_prep.cli.{group}").add(verbs)
    return parser
