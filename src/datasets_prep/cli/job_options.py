"""Options of verbs that jobs of a cluster can do; light, because each such verb loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets_prep.errors import OptionError
from datasets_prep.options import Parser


def add_keys(parser: Parser) -> None:
    """Add the options that say what jobs are like."""
    parser.add_argument(
        "--slurm",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a key of the jobs, such as partition=gpu; may be given several times",
    )
    parser.add_argument(
        "--slurm-config", metavar="FILE", type=Path, help="a TOML or YAML file of such keys"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="with slurm: print the scripts, submit nothing"
    )


def share(text: str | None) -> tuple[int, int] | None:
    """What ``--share`` says."""
    if text is None:
        return None
    number, slash, of = text.partition("/")
    if not slash or not (number.isdecimal() and of.isdecimal()) or int(number) >= int(of):
        raise OptionError(f"share {text!r}: expected such as 0/4, up to 3/4")
    return int(number), int(of)


def pair(text: str) -> tuple[str, Any]:
    """A key of the jobs and its value, as they stand after ``--slurm``."""
    key, equals, value = text.partition("=")
    if not equals:
        raise OptionError(f"--slurm {text!r}: expected KEY=VALUE, such as partition=gpu")
    return key, int(value) if value.isdecimal() and key in {"cpus", "tasks", "warning"} else value
