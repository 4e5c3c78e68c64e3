"""The verbs of ``datasets-prep slurm``: options to jobs, jobs to scripts."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from datasets_prep import slurm
from datasets_prep.cli.edge import DONE
from datasets_prep.cli.verbs import Verbs
from datasets_prep.console import remark
from datasets_prep.errors import InvalidJob
from datasets_prep.slurm import keys, reading
from datasets_prep.slurm.keys import KEYS, Key

SCRIPTS: Final = "slurm"  # the folder of scripts, beside the configuration
_PLURAL: Final = {"modules": "module", "environment": "env"}


def add(verbs: Verbs) -> None:
    """Add them to the command."""
    group = verbs.group("slurm", "job scripts for a SLURM cluster")
    script = group.add(
        _script,
        "script",
        "write, check and submit job scripts",
        "Write scripts for the jobs that a TOML or YAML file, a folder of them, or options "
        "describe. Options count more than files. Each script is checked by bash, and by SLURM "
        "where there is one.",
    )
    script.keeps_command = True
    script.usage = f"{script.prog} [CONFIG] [options] [-- COMMAND…]"
    script.add_argument("config", metavar="CONFIG", nargs="?", type=Path, help="a file or folder")
    script.add_argument("--template", metavar="T", type=Path, help="a Jinja2 template of your own")
    script.add_argument(
        "--output-dir", metavar="D", type=Path, help=f"scripts go here (default: {SCRIPTS}/)"
    )
    script.add_argument("--dry-run", action="store_true", help="print scripts, write nothing")
    script.add_argument("--overwrite", action="store_true", help="replace scripts that differ")
    script.add_argument("--submit", action="store_true", help="submit them, in order")
    for key in KEYS:
        _add_key(script, key)


def _script(args: argparse.Namespace) -> int:
    over = _over(args)
    if args.config is None:
        if "command" not in over:
            raise InvalidJob("no configuration and no command, expected a file or -- COMMAND…")
        over.setdefault("name", os.path.basename(over["command"][0]))
        over.setdefault("folder", os.getcwd())
        jobs = [reading.job(over, "options")]
        _produce(jobs, args, Path(SCRIPTS))
    else:
        folder = args.config if args.config.is_dir() else args.config.parent
        _produce(slurm.load(args.config, over), args, folder / SCRIPTS)
    return DONE


def _produce(jobs: Sequence[slurm.Job], args: argparse.Namespace, folder: Path) -> None:
    scripts = slurm.ordered([slurm.render(job, args.template) for job in jobs])
    for why in sorted({slurm.check(script) for script in scripts} - {""}):
        remark(f"not checked by SLURM: {why}")
    if args.dry_run:
        for script in scripts:
            if len(scripts) > 1:
                print(f"# -- {script.file_name}", flush=True)  # noqa: T201
            sys.stdout.flush()
            sys.stdout.buffer.write(script.data)
        return
    put = slurm.overwrite if args.overwrite else slurm.write
    for path in put(scripts, args.output_dir or folder):
        print(path)  # noqa: T201
    if args.submit:
        for name, number in slurm.submit(scripts).items():
            print(f"{number}\t{name}")  # noqa: T201


def _over(args: argparse.Namespace) -> dict[str, Any]:
    """What was given as options, as a configuration would hold it."""
    given: dict[str, Any] = {}
    for key in KEYS:
        value = getattr(args, key.name, None)
        if value is not None and value is not False and value != []:
            given[key.name] = _pairs(key, value) if key.kind in {keys.TABLE, keys.ANY} else value
    if "folder" in given:
        given["folder"] = os.path.abspath(given["folder"])
    staging = {"config": args.store, "restore": args.restore, "promote": _promotes(args.promote)}
    if any(staging.values()):
        given["staging"] = {name: value for name, value in staging.items() if value}
    return given


def _promotes(given: Sequence[str]) -> list[dict[str, str]]:
    split = [text.partition("=") for text in given]
    return [{"name": name, **({"path": path} if path else {})} for name, _, path in split]


def _pairs(key: Key, given: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals and key.name != "sbatch":
            raise InvalidJob(f"--{_option(key)} {text!r}, expected {key.metavar}")
        pairs[name] = value
    return pairs


def _option(key: Key) -> str:
    return _PLURAL.get(key.name, key.name).replace("_", "-")


def _add_key(parser: argparse.ArgumentParser, key: Key) -> None:
    option = f"--{_option(key)}"
    if key.kind == keys.STAGING:
        parser.add_argument("--store", metavar="FILE", help="tieredstore's configuration there")
        for verb, metavar in (("restore", "NAME"), ("promote", "NAME[=PATH]")):
            what = f"an artifact to {verb}"
            parser.add_argument(
                f"--{verb}", metavar=metavar, action="append", default=[], help=what
            )
    elif key.kind == keys.FLAG:
        parser.add_argument(option, action="store_true", help=key.help)
    elif key.kind == keys.COUNT:
        parser.add_argument(option, type=int, metavar=key.metavar, help=key.help)
    elif key.kind in {keys.TEXTS, keys.TABLE, keys.ANY}:
        repeated = f"{key.help}; may be given several times"
        parser.add_argument(
            option,
            dest=key.name,
            action="append",
            default=[],
            metavar=key.metavar or "NAME=VALUE",
            help=repeated,
        )
    elif key.kind == keys.TEXT:
        parser.add_argument(option, metavar=key.metavar, help=key.help)
