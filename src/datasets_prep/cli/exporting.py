"""The verb that writes a prepared dataset in another format: ``export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets_prep.cli.edge import DONE
from datasets_prep.cli.verbs import Verbs
from datasets_prep.options import FORCE_HELP


def add(verbs: Verbs) -> None:
    """Add it to the command."""
    one = verbs.add(
        _export,
        "export",
        "write a prepared dataset in another format",
        "Write a prepared dataset in another format, as NAME-FORMAT beside it.",
    )
    one.add_argument("name", metavar="NAME", help="the dataset")
    one.add_argument("--format", required=True, metavar="F", help="megatron or npy")
    one.add_argument(
        "--eot",
        type=int,
        metavar="N",
        help="the token that ends a document (default: what the dataset says)",
    )
    one.add_argument("--data-dir", type=Path, metavar="D", help="as it was prepared with")
    one.add_argument("--force", action="store_true", help=FORCE_HELP)
    one.add_argument("--config", metavar="FILE", help="a TOML file with the tiers")


def _export(args: argparse.Namespace) -> int:
    from datasets_prep.exporting import ExportOptions, export

    options = ExportOptions(
        format=args.format,
        data_dir=args.data_dir,
        eot=args.eot,
        force=args.force,
        config=args.config,
    )
    export(args.name, options)
    return DONE
