"""The options that prepare scripts share. Nothing here calls or prints anything but a complaint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from datasets_prep.console import complain

MISUSED: Final = 2  # exit status
FORCE_HELP: Final = "Force re-preparation even if files already exist"


class Parser(argparse.ArgumentParser):
    """Says what was used wrongly in one line.

    Attributes
    ----------
    keeps_command : bool
        Whether what stands after ``--`` is kept as it is, as ``command``.
    """

    keeps_command = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        words = list(sys.argv[1:] if args is None else args)
        cut = words.index("--") if self.keeps_command and "--" in words else len(words)
        found, rest = super().parse_known_args(words[:cut], namespace)
        if self.keeps_command:
            found.command = words[cut + 1 :]
        return found, rest

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see {self.prog} --help")
        raise SystemExit(MISUSED)


def get_common_parser(description: str) -> argparse.ArgumentParser:
    """The options that every prepare script has: ``--subset`` and ``--force``.

    Parameters
    ----------
    description : str
        What the script prepares.
    """
    parser = Parser(description=description, allow_abbrev=False)
    add_common_args(parser)
    return parser


def add_common_args(parser: argparse.ArgumentParser) -> None:
    """Add the same options to a parser that is there already."""
    parser.add_argument(
        "--subset",
        type=float,
        default=1.0,
        metavar="F",
        help="share of the dataset to prepare, above 0 and at most 1 (default: 1.0)",
    )
    parser.add_argument("--force", action="store_true", help=FORCE_HELP)


def add_num_proc_arg(parser: argparse.ArgumentParser, default: int = 1) -> None:
    """Add ``--num-proc`` (also spelt ``--num_proc``).

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Where to.
    default : int
        Processes without it.
    """
    parser.add_argument(
        "--num-proc",
        "--num_proc",
        type=int,
        default=default,
        metavar="N",
        help=f"processes that may work at once (default: {default})",
    )
