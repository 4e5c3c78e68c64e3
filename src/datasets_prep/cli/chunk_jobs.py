"""``chunks run --engine slurm``: the same run as an array of jobs, and a merge after it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from datasets_prep import chunks, slurm
from datasets_prep.chunks.cluster import Cluster
from datasets_prep.chunks.running import missing
from datasets_prep.cli import job_options
from datasets_prep.cli.edge import DONE
from datasets_prep.console import Console, remark
from datasets_prep.options import Parser
from tieredstore import TieredStore

_ALONE: Final = 1001  # indices of arrays stay below, where no SLURM says otherwise
_PASSED: Final = ("gpus", "workers", "retries", "callable", "variable", "settings", "config")
_LISTS: Final = ("output", "code", "input")


def add(parser: Parser) -> None:
    """Add its options to ``chunks run``."""
    parser.add_argument(
        "--engine", choices=("here", "slurm"), default="here", help="where chunks are made"
    )
    job_options.add_keys(parser)
    parser.add_argument("--share", metavar="I/N", help="only each Nth chunk, from the Ith on")


def submit(
    args: argparse.Namespace, phase: chunks.Phase, options: chunks.RunOptions, store: TieredStore
) -> int:
    """Submit the jobs of a run, or show their scripts."""
    job = chunks.begin(phase, args.start, args.end, options, store).job
    lacking = missing(store, job)
    keys = dict(job_options.pair(text) for text in args.slurm)
    cluster = Cluster(keys, args.slurm_config, Path(options.folder))
    queue = slurm.Queue()
    most = _ALONE if args.dry_run else queue.max_array()
    merge = [] if args.merge == "none" else _merge_words(args)
    jobs = cluster.jobs(job.plan, lacking, _work_words(args, phase), merge, most)
    console = Console()
    total = len(job.plan.chunks())
    console.line(f"{job.plan.run}: {len(lacking)} of {total} chunks are missing")
    return hand_in(jobs, queue, console, show=args.dry_run)


def hand_in(jobs: Sequence[slurm.Job], queue: slurm.Queue, console: Console, *, show: bool) -> int:
    """Submit jobs, or only show their scripts."""
    scripts = [slurm.render(each) for each in jobs]
    for why in sorted({slurm.check(script) for script in scripts} - {""}):
        remark(f"not checked by SLURM: {why}")
    if show:
        for script in scripts:
            console.line(f"# -- {script.file_name}")
            for text in script.text.splitlines():
                console.line(text)
        return DONE
    for name, number in slurm.submit(scripts, queue).items():
        console.line(f"{name}: submitted as {number}")
    return DONE


def _work_words(args: argparse.Namespace, phase: chunks.Phase) -> Sequence[str]:
    words = [*_command(args, "run"), "--end", str(args.end), "--merge", "none"]
    words += ["--share", "{share}", *(["--force"] if args.force else [])]
    for name in _PASSED:
        value = getattr(args, name)
        words += [] if value is None or name == "config" else [f"--{name}={value}"]
    for name in _LISTS:
        words += [f"--{name}={value}" for value in getattr(args, name)]
    return [*words, "--", *phase.command] if args.command else words


def _merge_words(args: argparse.Namespace) -> Sequence[str]:
    words = [*_command(args, "merge"), "--merge", args.merge]
    words += ["--allow-missing"] * args.allow_missing + ["--cleanup"] * args.cleanup
    if args.keep_chunks is not None:
        words.append(f"--keep-chunks={int(args.keep_chunks)}s")
    return words


def _command(args: argparse.Namespace, verb: str) -> list[str]:
    words = [sys.executable, "-m", "datasets_prep.cli", "chunks", verb, "--phase", args.phase]
    words += ["--start", str(args.start)]
    return words if args.config is None else [*words, f"--config={args.config}"]
