"""A job to options of sbatch, for ``#SBATCH`` lines. How they are quoted is not here."""

from __future__ import annotations

import os
from collections.abc import Iterator

from datasets_prep.slurm import quoting
from datasets_prep.slurm.job import Job, dependency


def of(job: Job) -> Iterator[tuple[str, str | None]]:
    """Name and value of each option, the value ``None`` where it takes none."""
    yield "job-name", job.name
    yield "chdir", folder(job)
    yield "output", _output(job)
    yield "open-mode", "append"  # a job that is requeued goes on with its log
    plain = {
        "account": job.account,
        "partition": job.partition,
        "qos": job.qos,
        "time": job.time,
        "nodes": job.nodes,
        "ntasks": job.tasks,
        "cpus-per-task": job.cpus,
        "mem": job.memory,
        "gres": f"gpu:{job.gpus}" if job.gpus else "",
        "array": job.array,
    }
    for name, value in plain.items():
        if value:
            yield name, str(value)
    yield ("requeue" if job.requeue else "no-requeue"), None
    if job.warning:
        yield "signal", f"B:USR1@{job.warning}"
    yield from _dependencies(job)
    for name, value in sorted(job.sbatch.items()):
        yield name, value or None


def folder(job: Job) -> str:
    """Where the job runs, absolute."""
    return os.path.abspath(job.folder)


def logs(job: Job) -> str:
    """The folder of its log, absolute."""
    return os.path.join(folder(job), job.logs)


def _output(job: Job) -> str:
    name = quoting.file_name(job.name)
    return f"{quoting.pattern(logs(job))}/{name}-{'%A_%a' if job.array else '%j'}.log"


def _dependencies(job: Job) -> Iterator[tuple[str, str | None]]:
    """Those on jobs that are in the queue already; the others are filled in on submission."""
    waits = [f"{kind}:{on}" for kind, on in map(dependency, job.after) if on.isdecimal()]
    if waits:
        yield "dependency", ",".join(waits)
    if job.after:
        yield "kill-on-invalid-dep", "yes"
