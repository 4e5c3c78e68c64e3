"""The verb that makes Parquet of other formats: ``parquet``."""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets_prep.cli.edge import DONE
from datasets_prep.cli.verbs import Verbs
from datasets_prep.errors import OptionError
from datasets_prep.options import FORCE_HELP


def add(verbs: Verbs) -> None:
    """Add it to the command."""
    one = verbs.add(
        _parquet,
        "parquet",
        "convert JSON, CSV or a saved dataset to a Parquet file",
        "Convert JSON, JSON lines, CSV or a saved Hugging Face dataset to one Parquet file.",
    )
    one.add_argument("source", metavar="IN", help="a file, a folder, or a URL of either")
    one.add_argument("target", metavar="OUT", type=Path, help="the Parquet file")
    one.add_argument(
        "--field", default="", metavar="F", help="where in an object the array stands: a, or a.b"
    )
    one.add_argument(
        "--columns", default="", metavar="A,B", help="only these columns (default: all)"
    )
    one.add_argument(
        "--type",
        action="append",
        default=[],
        metavar="COLUMN=TYPE",
        dest="types",
        help="the type of a column that the first records do not show, such as score=float64",
    )
    one.add_argument("--split", default="", metavar="S", help="of a saved dataset with several")
    one.add_argument(
        "--row-group",
        type=int,
        default=0,
        metavar="ROWS",
        help="rows of a row group (default: as many as have 32 MiB)",
    )
    one.add_argument("--level", type=int, default=3, metavar="N", help="of zstd (default: 3)")
    one.add_argument("--force", action="store_true", help=FORCE_HELP)
    one.add_argument("--config", metavar="FILE", help="a TOML file with the tiers")


def _parquet(args: argparse.Namespace) -> int:
    from datasets_prep.tabular import ParquetOptions, to_parquet

    options = ParquetOptions(
        field=args.field,
        columns=tuple(args.columns.split(",")) if args.columns else (),
        types=dict(map(_typed, args.types)),
        split=args.split,
        group_rows=args.row_group,
        level=args.level,
        force=args.force,
        config=args.config,
    )
    to_parquet(args.source, args.target, options)
    return DONE


def _typed(text: str) -> tuple[str, str]:
    column, given, kind = text.rpartition("=")
    if not given:
        raise OptionError(f"--type {text}: expected COLUMN=TYPE")
    return column, kind
