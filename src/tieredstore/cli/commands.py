"""All verbs of the command, in the order in which its help shows them."""

from __future__ import annotations

import argparse
from typing import Final

from tieredstore import __version__
from tieredstore.cli import doctor, keeping, looking, moving, queueing, space, tidying
from tieredstore.cli.verbs import PROGRAM, Parser, Verbs

EPILOG: Final = """\
exit status: 0 done, 1 failed, 2 used wrongly, 130 interrupted, 143 terminated

The tiers come from --config, else from the file that TIEREDSTORE_CONFIG names, else from
tieredstore.toml (or [tool.tieredstore] in pyproject.toml) here or in a folder above, else they
are ./data and the RunPod volume. TIEREDSTORE_OFFLINE=1 leaves out what is reached over the
network. TIEREDSTORE_DEBUG=1 shows tracebacks.
"""


def parser() -> Parser:
    """The command's arguments."""
    common = Parser(add_help=False, allow_abbrev=False)
    common.add_argument(
        "--config", metavar="FILE", default=argparse.SUPPRESS, help="a TOML file with the tiers"
    )
    made = Parser(
        prog=PROGRAM,
        description="Named sets of files on a chain of tiers: verified, atomic and fast.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    verbs = Verbs(made.add_subparsers(metavar="COMMAND", required=True, title="commands"), common)
    for group in (looking, moving, queueing, keeping, space, tidying, doctor):
        group.add(verbs)
    return made
