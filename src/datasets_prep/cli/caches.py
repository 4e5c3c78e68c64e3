"""The verbs of ``datasets-prep cache``: pre-built caches of ``datasets``, and those of jobs."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Final

from datasets_prep.cli.edge import DONE, FAILED
from datasets_prep.cli.verbs import Verbs
from datasets_prep.config import datasets_cache, prebuilt_cache, scratches
from datasets_prep.console import complain, remark
from datasets_prep.errors import CacheError, OptionError, reason
from datasets_prep.hf_cache import (
    advising,
    collecting,
    jobs,
    listing,
    opening,
    prebuilding,
    seeding,
    shared,
)
from datasets_prep.hf_cache.entries import Entry, entries
from datasets_prep.hf_cache.getting import open_cache_store
from datasets_prep.hf_cache.request import Request, key_of
from datasets_prep.hf_cache.summaries import datasets_of
from datasets_prep.slurm import Queue

STATUSES: Final = {prebuilding.ALL: DONE, prebuilding.SOME: 3, prebuilding.NONE: 4}
CONTINUE, STOP = "continue", "stop"
_QUESTION: Final = "Continue with eval submission anyway? [y/N] "


def add(verbs: Verbs) -> None:
    """Add them to the command."""
    group = verbs.group("cache", "caches of Hugging Face datasets that never collide")
    _add_prebuild(group)
    _add_job_env(group)
    gc = group.add(_gc, "gc", "remove caches of jobs that have left the queue")
    _add_places(gc)
    gc.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    ls = group.add(_ls, "ls", "what lies in caches, with sizes and owners")
    _add_places(ls)
    key = group.add(
        _key,
        "key",
        "which cache entry datasets will use for a data file, and whether it is whole",
        "Print the folder of the entry, and its state. Exit status 1 where it is not whole.",
    )
    key.add_argument("path", metavar="PATH", help="a data file")
    key.add_argument("--field", metavar="F", help="the part of a JSON file (default: all of it)")
    key.add_argument("--builder", metavar="B", default="json", help="json, csv, … (json)")
    advise = verbs.add(_advise, "advise", "which way of reading a dataset from many jobs fits")
    advise.add_argument("--use", choices=advising.USES, required=True, help="how it is used")
    advise.add_argument("--size", metavar="S", required=True, help="of the data: 500MB, 5GB")
    advise.add_argument("--jobs", metavar="N", type=int, required=True, help="jobs that read it")


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scratch",
        metavar="D",
        type=Path,
        action="append",
        help="a scratch folder with caches of jobs; may be given several times "
        "(default: $SLURM_TMPDIR, $TMPDIR, /tmp and $SCRATCH)",
    )
    parser.add_argument("--shared", metavar="D", type=Path, help="a shared cache")


# -- prebuild -------------------------------------------------------------------------------------


def _add_prebuild(group: Verbs) -> None:
    verb = group.add(
        _prebuild,
        "prebuild",
        "build what an experiment's jobs will read, each data file once",
        "Build the data files of evaluation.tasks[].dataset, and seed the cache with them: jobs "
        "that call load_dataset build nothing. The log goes to standard error, a summary in JSON "
        "to standard output. Exit status: 0 all are cached, 3 some, 4 none.",
    )
    verb.add_argument("summary", metavar="SUMMARY", help="experiment_summary.yaml")
    verb.add_argument(
        "--field", metavar="F", default="test", help="the part of each file (test); '' for all"
    )
    verb.add_argument("--pretty", action="store_true", help="the summary in several lines")
    verb.add_argument("--yes", action="store_true", help="go on after a failure, unasked")
    verb.add_argument(
        "--on-failure", choices=(CONTINUE, STOP), help="the same where nobody can be asked (stop)"
    )
    verb.add_argument("--shared", metavar="D", type=Path, help="a new version of this shared cache")
    verb.add_argument("--config", metavar="FILE", help="a TOML file with the tiers")


def _prebuild(args: argparse.Namespace) -> int:
    _log(f"CACHE_PREBUILD: {args.summary}")
    paths = datasets_of(args.summary)
    cache = prebuilt_cache()
    with redirect_stdout(sys.stderr):  # standard output is for the summary alone
        _quiet()
        store = open_cache_store(args.config)
        summary = prebuilding.prebuild(paths, args.field or None, store, cache, _log)
        shown = args.shared is None or not summary.entries or _share(summary.entries, args.shared)
    goes_on = shown and (not summary.failed or _goes_on(args))
    indent = 2 if args.pretty else None
    print(json.dumps(summary.told() | {"continue": goes_on}, indent=indent))  # noqa: T201
    return STATUSES[summary.status] if shown else FAILED


def _share(added: list[Entry], folder: Path) -> bool:
    try:
        _log(f"CACHE_PREBUILD: shared version {shared.publish(added, folder.absolute())}")
    except CacheError as error:
        _log(f"CACHE_FAILED: {folder} ({reason(error)})")
        return False
    return True


def _goes_on(args: argparse.Namespace) -> bool:
    """Whether the jobs are to be submitted although something failed."""
    if args.yes:
        return True
    if args.on_failure is not None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return bool(args.on_failure == CONTINUE)
    print(_QUESTION, end="", file=sys.stderr, flush=True)  # noqa: T201
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _quiet() -> None:
    """The log has lines of its own, in place of progress bars."""
    import datasets

    datasets.disable_progress_bars()


def _log(text: str) -> None:
    line = f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {' '.join(text.splitlines())}"
    print(line, file=sys.stderr, flush=True)  # noqa: T201


# -- caches of jobs -------------------------------------------------------------------------------


def _add_job_env(group: Verbs) -> None:
    verb = group.add(
        _job_env,
        "job-env",
        "make a cache for this job, and print what to export",
        "Make a cache of this job's own, seeded from the pre-built one. In a job script: eval \"$("
        'datasets-prep cache job-env --trap)".',
    )
    _add_places(verb)
    verb.add_argument("--from", metavar="D", dest="prebuilt", type=Path, help="a pre-built cache")
    verb.add_argument("--folder", metavar="D", type=Path, help="exactly this folder")
    verb.add_argument(
        "--trap", action="store_true", help="also what removes it when the script ends"
    )


def _job_env(args: argparse.Namespace) -> int:
    prebuilt, ways = (args.prebuilt or prebuilt_cache()).absolute(), seeding.OWN
    found = entries(shared.version_of(prebuilt))
    if args.shared is not None:
        found, ways = entries(shared.version_of(args.shared.absolute())), seeding.LINKS
    folder = args.folder
    if folder is None:
        bases = [path.absolute() for path in args.scratch or scratches()]
        copied = found if args.shared is None else []
        folder = jobs.folder_of(jobs.place(bases, copied), jobs.owner())
    made = jobs.make(folder.absolute(), prebuilt, found, ways)
    lines = [f"export {name}={shlex.quote(text)}" for name, text in made.variables.items()]
    if args.trap:
        lines += _trap(str(made.path))
    try:
        print("\n".join(lines), flush=True)  # noqa: T201
    except BaseException:  # who asked for it never hears of it
        shutil.rmtree(made.path, ignore_errors=True)
        raise
    by = ", ".join(f"{count} by {way}" for way, count in sorted(made.seeded.ways.items()))
    remark(f"{made.seeded.entries} entries from {args.shared or prebuilt}{by and f' ({by})'}")
    return DONE


def _trap(path: str) -> list[str]:
    begin = shlex.quote(f"Using job-specific cache: {path}")
    end = shlex.quote(f"Cleaning up job-specific cache: {path}")
    clean = shlex.quote(f"echo {end}; rm -rf -- {shlex.quote(path)}")
    return [f"echo {begin}", f"trap {clean} EXIT"]


def _gc(args: argparse.Namespace) -> int:
    failed = False
    for each in collecting.found(args.scratch or scratches(), Queue()):
        if each.state == collecting.UNKNOWN:
            remark(f"left as it is: {each.path}: {each.why}")
        elif each.state == collecting.ENDED:
            failed |= not _removed(each, dry=args.dry_run)
    for version in [] if args.shared is None else shared.outdated(args.shared.absolute()):
        if not args.dry_run:
            shared.remove(version)
        print(f"{'would remove' if args.dry_run else 'removed'}\t{version}")  # noqa: T201
    return FAILED if failed else DONE


def _removed(each: collecting.Found, *, dry: bool) -> bool:
    size = each.size()
    try:
        if dry or collecting.remove(each):
            said = "would remove" if dry else "removed"
            print(f"{said}\t{size}\t{each.path}")  # noqa: T201
    except PermissionError:
        remark(f"left as it is: {each.path}: of another user")
    except OSError as error:
        complain(f"{each.path}: {reason(error)}")
        return False
    return True


def _ls(args: argparse.Namespace) -> int:
    rows = list(listing.of_entries(datasets_cache()))
    if prebuilt_cache() != datasets_cache():
        rows += listing.of_entries(prebuilt_cache())
    rows += [] if args.shared is None else listing.of_versions(args.shared.absolute())
    rows += listing.of_jobs(args.scratch or scratches(), Queue())
    for row in rows:
        print(row.kind, row.size, row.owner, row.state, row.what, sep="\t")  # noqa: T201
    return DONE


# -- what datasets will do ------------------------------------------------------------------------


def _key(args: argparse.Namespace) -> int:
    request = Request.of(args.path, args.field, builder=args.builder)
    entry = Entry(datasets_cache(), key_of(request).entry)
    state = listing.state_of(entry)
    try:
        if state == "whole":
            state = f"whole, {opening.check(entry.path)} rows"
    except CacheError as error:
        state = reason(error)
    print(entry.path, state, sep="\t")  # noqa: T201
    return DONE if state.startswith("whole,") else FAILED


def _advise(args: argparse.Namespace) -> int:
    try:
        if args.jobs < 1:
            raise ValueError(f"jobs {args.jobs}: expected at least 1")
        advice = advising.advise(args.use, advising.parse_size(args.size), args.jobs)
    except ValueError as error:
        raise OptionError(str(error)) from None
    print(f"{advice.way}\nwhy: {advice.why}\ncosts: {advice.costs}")  # noqa: T201
    for command in advice.commands:
        print(f"$ {command}")  # noqa: T201
    return DONE
