"""Jobs into the queue: in the order of their dependencies, all of them or none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress

from datasets_prep.errors import InvalidJob, SlurmFailed
from datasets_prep.slurm.job import Job, dependency
from datasets_prep.slurm.queue import Queue
from datasets_prep.slurm.rendering import Script, render


def submit(jobs: Iterable[Job | Script], queue: Queue | None = None) -> dict[str, str]:
    """Submit jobs together, each after those that it names in ``after``.

    Nothing begins before all are accepted. When one is refused, those before it are cancelled.

    Parameters
    ----------
    jobs : iterable of Job or Script
        In any order. A `Job` is rendered by the built-in template.
    queue : Queue, optional
        Where to.

    Returns
    -------
    dict
        The id of each job, by name.

    Raises
    ------
    InvalidJob
        For names that are there twice or nowhere, and for jobs that wait for each other.
    SlurmFailed
        When SLURM refuses one.
    """
    scripts = [job if isinstance(job, Script) else render(job) for job in jobs]
    named = {script.job.name: script for script in scripts}
    queue = queue or Queue()
    ids: dict[str, str] = {}
    held: list[str] = []
    try:
        for script in ordered(scripts):
            job, waits = script.job, _waits(script.job, ids)
            options = [f"--dependency={waits}"] if waits else []
            first = not any(name in ids for name in _names(job, named))
            hold = first and len(scripts) > 1 and "hold" not in job.sbatch
            ids[job.name] = _sbatch(script, [*options, *(["--hold"] if hold else [])], queue)
            held += [ids[job.name]] if hold else []
        if held:
            queue.release(held)
    except BaseException:
        if ids:
            with suppress(SlurmFailed):
                queue.cancel(ids.values())
        raise
    return ids


def ordered(scripts: Sequence[Script]) -> list[Script]:
    """Each script after those that it waits for.

    Raises
    ------
    InvalidJob
        As `submit` says.
    """
    named = {script.job.name: script for script in scripts}
    if len(named) < len(scripts):
        names = [script.job.name for script in scripts]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidJob(f"job {twice!r}: its name is there twice, expected one job of each name")
    left = {name: _names(script.job, named) for name, script in named.items()}
    done: list[Script] = []
    while left:
        ready = [name for name, waits in left.items() if not waits & left.keys()]
        if not ready:
            circle = ", ".join(repr(name) for name in left)
            raise InvalidJob(f"after: these jobs wait for each other: {circle}")
        for name in ready:
            del left[name]
            done.append(named[name])
    return done


def _names(job: Job, known: dict[str, Script]) -> set[str]:
    """Which of the jobs beside it a job waits for; numbers are ids of others."""
    names = {name for _, name in map(dependency, job.after) if not name.isdecimal()}
    for name in sorted(names - known.keys()):
        there = ", ".join(repr(each) for each in known)
        raise InvalidJob(f"job {job.name!r}: after names {name!r}, expected one of {there}")
    return names


def _waits(job: Job, ids: dict[str, str]) -> str:
    entries = map(dependency, job.after)
    return ",".join(f"{k}:{name if name.isdecimal() else ids[name]}" for k, name in entries)


def _sbatch(script: Script, options: Sequence[str], queue: Queue) -> str:
    os.makedirs(script.logs, exist_ok=True)  # without it SLURM lets the job fail, and says nothing
    try:
        said = queue.run("sbatch", "--parsable", *options, text=script.data)
    except SlurmFailed as error:
        raise type(error)(f"job {script.job.name!r}: {error}") from None
    return said.strip().partition(";")[0]  # the cluster's name may follow
