"""``prepare --engine slurm``: a corpus's shards as an array of jobs, and one that gathers them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from datasets_prep import preparers
from datasets_prep.cli import job_options
from datasets_prep.cli.edge import DONE
from datasets_prep.console import Console
from datasets_prep.errors import OptionError
from datasets_prep.options import Parser
from datasets_prep.preparers.corpus import Corpus
from datasets_prep.preparing import PrepareOptions, make_share

_TASKS: Final = 8
_PASSED: Final = ("subset", "num_proc", "tokenizer", "source", "config", "data_dir")


def add(parser: Parser) -> None:
    """Add its options to ``prepare``."""
    parser.add_argument(
        "--engine", choices=("here", "slurm"), default="here", help="where a corpus is prepared"
    )
    job_options.add_keys(parser)
    parser.add_argument(
        "--tasks",
        type=int,
        default=_TASKS,
        metavar="N",
        help=f"with slurm: tasks that share the work (default: {_TASKS})",
    )
    parser.add_argument(
        "--share", metavar="I/N", help="of a corpus only make each Nth shard, from the Ith on"
    )


def make(args: argparse.Namespace, options: PrepareOptions) -> int:
    """Make the shards that ``--share`` asks for."""
    share = job_options.share(args.share)
    assert share is not None
    console = Console()
    count = make_share(args.name, options, *share, console=console)
    console.line(f"{args.name}: share {args.share}, {count} shards are there")
    return DONE


def submit(args: argparse.Namespace) -> int:
    """Submit the jobs of a corpus, or show their scripts."""
    from datasets_prep import slurm
    from datasets_prep.chunks.cluster import Cluster, plain
    from datasets_prep.cli.chunk_jobs import hand_in

    corpus = preparers.load(args.name)
    if not isinstance(corpus, Corpus):
        raise OptionError(f"dataset {args.name!r} is no corpus: prepare it without --engine slurm")
    if args.tasks < 1:
        raise OptionError(f"tasks {args.tasks}: expected at least 1")
    keys = dict(job_options.pair(text) for text in args.slurm)
    cluster = Cluster(keys, args.slurm_config, Path())
    words = [plain(word) for word in _words(args)]
    # a task that is requeued makes what is missing of its share
    array: dict[str, Any] = {"array": f"0-{args.tasks - 1}", "requeue": True}
    share = [*words, "--share", f"{{task}}/{args.tasks}"]
    shards = cluster.job(f"{corpus.name}-shards", share, array)
    after = {"after": [f"afterany:{shards.name}"]}
    gather = cluster.job(f"{corpus.name}-gather", words, after)
    queue, console = slurm.Queue(), Console()
    return hand_in([shards, gather], queue, console, show=args.dry_run)


def _words(args: argparse.Namespace) -> Sequence[str]:
    """The same command for a job."""
    words = [sys.executable, "-m", "datasets_prep.cli", "prepare", args.name]
    for name in _PASSED:
        value = getattr(args, name)
        if value is not None:
            words.append(f"--{name.replace('_', '-')}={value}")
    words += [] if args.shuffle else ["--no-shuffle"]
    words += [f"--skip-bad-documents={args.skip_bad_documents}"]
    words += ["--force"] * args.force + ["--keep-shards"] * args.keep_shards
    return words
