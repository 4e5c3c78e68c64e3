"""The verb ``verify``: compare a dataset's folder with a specification."""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets_prep.cli.edge import DONE, FAILED
from datasets_prep.cli.verbs import Verbs
from datasets_prep.console import Console, remark
from datasets_prep.errors import OptionError


def add(verbs: Verbs) -> None:
    """Add it to the command."""
    verb = verbs.add(
        _verify,
        "verify",
        "compare a dataset's folder with a specification",
        "Compare a dataset's folder with a specification: files, records, and the images that "
        "they name. Exit status 1 when something is wrong; each problem has a line.",
    )
    verb.add_argument("folder", metavar="FOLDER", type=Path, help="the dataset")
    verb.add_argument(
        "--spec",
        metavar="S",
        default="websight",
        help="one that is shipped, a TOML file, or module:attribute (default: websight)",
    )
    verb.add_argument("--quiet", action="store_true", help="say nothing of how far it is")


def _verify(args: argparse.Namespace) -> int:
    from datasets_prep.download.verification import read_spec, verify

    spec = read_spec(args.spec)
    if not args.folder.is_dir():
        raise OptionError(f"{args.folder}: no folder, expected a dataset's")
    report = verify(args.folder, spec, None if args.quiet else _Told())
    console = Console()
    for line in report.lines:
        console.line(line)
    return DONE if report.ok else FAILED


class _Told:
    """Says on stderr how far it is, each tenth of the way; without a total nothing."""

    def __init__(self) -> None:
        self._tenths = 0

    def __call__(self, done: int, total: int) -> None:
        tenths = 10 * done // total if total else 0
        if self._tenths < tenths < 10:  # noqa: PLR2004 - the last tenth is the result
            self._tenths = tenths
            remark(f"Verified: {done}/{total}")
