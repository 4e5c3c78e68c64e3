"""The verbs of long work in chunks: ``chunks run``, ``chunks status`` and ``chunks merge``."""

from __future__ import annotations

import argparse
import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Final

from datasets_prep import chunks
from datasets_prep.chunks.console import ChunkConsole, StoreWarnings, closing
from datasets_prep.chunks.progress import lines
from datasets_prep.cli import chunk_jobs, job_options
from datasets_prep.cli.edge import DONE, FAILED
from datasets_prep.cli.verbs import Verbs
from datasets_prep.config import Settings, settings, visible_gpus
from datasets_prep.console import Console
from datasets_prep.errors import OptionError
from tieredstore import TieredStore, open_store

MERGES: Final = ("gpu", "all", "none")
_UNITS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def add(verbs: Verbs) -> None:
    """Add them to the command."""
    group = verbs.group("chunks", "make long work in chunks that survive crashes, and merge them")
    _add_run(group)
    status = group.add(_status, "status", "how a run goes, over all machines that work on it")
    _add_which(status)
    status.add_argument(
        "--follow", metavar="TIME", type=_duration, help="again each 10s, until all is done"
    )
    status.add_argument("--json", action="store_true", help="one JSON document on stdout")
    merge = group.add(_merge, "merge", "merge the chunks of a run into final datasets")
    _add_which(merge)
    merge.add_argument("--merge", choices=MERGES[:2], default="gpu", help="one dataset for each")
    _add_merging(merge)


def _add_which(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--phase", required=True, metavar="P", help="the phase, such as 1 or 3.5")
    parser.add_argument("--start", type=int, default=0, metavar="N", help="the first item (0)")
    parser.add_argument("--config", metavar="FILE", help="a TOML file with the tiers")


def _add_merging(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-missing", action="store_true", help="merge even where chunks are missing"
    )
    parser.add_argument(
        "--cleanup",
        action="store_true",
        help="remove the chunks once their merge is verified in every durable tier",
    )
    parser.add_argument(
        "--keep-chunks",
        metavar="TIME",
        type=_duration,
        help="the same, of merges older than 90s, 30min, 24h or 7d",
    )


def _add_run(group: Verbs) -> None:
    run = group.add(
        _run,
        "run",
        "make what is missing of a range, on the GPUs of this machine",
        "Make what is missing of a range of items. Run the same command again to go on after "
        "anything. The command after -- is run for each chunk, with {start} and {end} filled in; "
        "an environment variable, PHASE1_OUTPUT_DIR for phase 1, names its output folder.",
    )
    _add_which(run)
    run.add_argument("--end", type=int, required=True, metavar="N", help="the last item, included")
    run.add_argument("--gpus", metavar="A,B", help="GPUs by number (default: all)")
    run.add_argument("--workers", type=int, metavar="N", help="so many workers without a GPU")
    run.add_argument("--chunk-size", type=int, metavar="N", help="items to a chunk (50)")
    run.add_argument("--retries", type=int, metavar="N", help="for a chunk that fails (2)")
    run.add_argument(
        "--no-checkpoint",
        action="store_true",
        help="run the command once for each GPU, its outputs where its own configuration says",
    )
    run.add_argument(
        "--force", action="store_true", help="replace what a durable tier holds, made otherwise"
    )
    run.add_argument("--callable", metavar="M:F", help="a function instead of a command")
    run.add_argument("--variable", metavar="NAME", help="the variable of the output folder")
    for name, what in (
        ("output", "a glob that has to match a file of each chunk"),
        ("code", "a file or folder that chunks are made with"),
        ("input", "a file or folder that chunks are made from"),
    ):
        run.add_argument(f"--{name}", metavar="PATH", action="append", default=[], help=what)
    run.add_argument("--settings", metavar="FILE", help="phases and defaults (datasets_prep.toml)")
    run.add_argument(
        "--merge", choices=MERGES, default="gpu", help="what to merge when all is done"
    )
    _add_merging(run)
    chunk_jobs.add(run)
    run.keeps_command = True
    run.usage = f"{run.prog} --phase P --end N [options] [-- COMMAND…]"


# -- verbs --------------------------------------------------------------------------------------


def _run(args: argparse.Namespace) -> int:
    known = settings(args.settings)
    phase = _phase(args, known)
    options = chunks.RunOptions(
        gpus=None if args.gpus is None else args.gpus.split(","),
        workers=args.workers,
        visible=visible_gpus(),
        chunk_size=known.checkpoint_frequency if args.chunk_size is None else args.chunk_size,
        retries=known.retries if args.retries is None else args.retries,
        replace=args.force,
        share=None if (share := job_options.share(args.share)) is None else chunks.Share(*share),
        config=args.config,
    )
    if args.no_checkpoint:
        chunks.run_whole(phase, args.start, args.end, options)
        return DONE
    console = Console()
    reporter = ChunkConsole(console.line, console.warn)
    store = _opened(args, console)
    if args.engine == "slurm":
        return chunk_jobs.submit(args, phase, options, store)
    run = chunks.begin(phase, args.start, args.end, options, store, reporter)
    with _finished_by(signal.SIGUSR1, run):
        outcome = run.run()
    for text in closing(outcome):
        console.line(text)
    if outcome.failed or outcome.not_saved or not outcome.complete:
        return FAILED
    if args.merge != "none" and args.share is None:
        _merged(store, outcome.plan, args, reporter)
    return DONE


def _status(args: argparse.Namespace) -> int:
    console = Console()
    store = _opened(args, console)
    plan = chunks.existing(store, args.phase, args.start)
    while True:
        found = chunks.progress(store, plan)
        text = [json.dumps(found.to_json())] if args.json else lines(found)
        for each in text:
            console.line(each)
        if args.follow is None or found.done == found.total:
            return DONE
        time.sleep(args.follow)


def _merge(args: argparse.Namespace) -> int:
    console = Console()
    store = _opened(args, console)
    plan = chunks.existing(store, args.phase, args.start)
    _merged(store, plan, args, ChunkConsole(console.line, console.warn))
    return DONE


def _merged(
    store: TieredStore, plan: chunks.Plan, args: argparse.Namespace, reporter: ChunkConsole
) -> None:
    options = chunks.MergeOptions(args.merge == "all", args.allow_missing)
    work = chunks.Merge(store, plan, options, reporter)
    merged = work.run()
    for each in merged:
        rows = f", {each.rows} rows" if each.rows else ""
        lacking = f", {len(each.missing)} chunks missing" if each.missing else ""
        if not each.again:
            reporter.note(f"{each.scope}: merged {len(each.chunks)} chunks{rows}{lacking}")
        for name in each.artifacts:
            reporter.note(f"  {name}")
    if args.keep_chunks is not None:
        merged = work.older_than(args.keep_chunks, merged)
    if args.cleanup or args.keep_chunks is not None:
        reporter.note(f"{work.drop_chunks(merged)} chunks removed")


# -- what the options mean ----------------------------------------------------------------------


def _phase(args: argparse.Namespace, known: Settings) -> chunks.Phase:
    given: dict[str, Any] = {
        "outputs": tuple(args.output),
        "code": tuple(args.code),
        "inputs": tuple(args.input),
        "variable": args.variable or "",
    }
    given = {key: value for key, value in given.items() if value}
    if args.command or args.callable:
        given["command"], given["callable"] = tuple(args.command), args.callable or ""
    if args.phase in known.phases:
        return replace(known.phases[args.phase], **given)
    if not args.command and not args.callable:
        there = ", ".join(known.phases) or "none"
        raise OptionError(
            f"phase {args.phase}: give its command after --, or describe it in datasets_prep.toml "
            f"as [phases.{args.phase}] (described there: {there})"
        )
    return chunks.Phase(args.phase, **given)


def _duration(text: str) -> float:
    found = re.fullmatch(r"(\d+)(s|min|h|d)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a time such as 90s, 30min, 24h or 7d")
    return float(found.group(1)) * _UNITS[found.group(2)]


@contextmanager
def _finished_by(number: int, run: chunks.Run) -> Iterator[None]:
    """A signal that lets the chunks that are being made end, and begins no more."""
    before: Any = None
    with suppress(ValueError):  # not in the main thread
        before = signal.signal(number, lambda *_: run.finish())
    try:
        yield
    finally:
        if before is not None:
            signal.signal(number, before)


def _opened(args: argparse.Namespace, console: Console) -> TieredStore:
    return open_store(args.config, reporter=StoreWarnings(console.warn))
