"""What a job is: plain data, checked when it is made. Nothing here knows how it is written down.

Names of fields are the keys of a configuration and, with dashes, the options of the command.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from datasets_prep.errors import InvalidJob
from datasets_prep.slurm import quoting

AFTER: Final = ("after", "afterany", "afterok", "afternotok", "aftercorr")
WHEN: Final = ("always", "success")
ON_WARNING: Final = ("end", "requeue")
CACHES: Final = ("per-job", "shared", "none")
LOGS: Final = "logs"

_PATTERNS: Final[Mapping[str, tuple[str, str]]] = {
    "time": (
        r"\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+|\d+-\d+:\d\d|\d+-\d+:\d\d:\d\d|UNLIMITED",
        "minutes, H:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS or UNLIMITED",
    ),
    "memory": (r"\d+[KMGT]?", "megabytes, or a number with K, M, G or T, such as 32G"),
    "gpus": (r"([A-Za-z][\w.-]*:)?\d+", "a number for each node, or a kind and a number: a100:2"),
    "nodes": (r"\d+(-\d+)?", "a number, or a range such as 2-4"),
    "array": (
        r"\d+(-\d+(:[1-9]\d*)?)?(,\d+(-\d+(:[1-9]\d*)?)?)*(%[1-9]\d*)?",
        "numbers and ranges such as 0-9, 1,3,5-7 or 0-99%10",
    ),
}
_OWN: Final[Mapping[str, str]] = {  # options of sbatch that have a key here
    "account": "account",
    "array": "array",
    "chdir": "folder",
    "cpus-per-task": "cpus",
    "dependency": "after",
    "gres": "gpus",
    "job-name": "name",
    "mem": "memory",
    "no-requeue": "requeue",
    "nodes": "nodes",
    "ntasks": "tasks",
    "output": "logs",
    "parsable": "no key; it is always given",
    "partition": "partition",
    "qos": "qos",
    "requeue": "requeue",
    "signal": "warning",
    "test-only": "no key; it is always tried",
    "time": "time",
    "wrap": "command",
}


@dataclass(frozen=True, slots=True)
class Restore:
    """An artifact that a job needs in the first tier; all of it, or some files."""

    name: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Promote:
    """An artifact that is promoted after the command.

    Attributes
    ----------
    name : str
        The artifact.
    path : str
        What the command leaves, to be put into it first; empty where the command publishes
        the artifact itself.
    when : str
        ``always``, also when the command fails or is told to end; or ``success``.
    replace : bool
        Whether an artifact of that name that something else has made is replaced. A job that was
        requeued replaces what it promoted before.
    """

    name: str
    path: str = ""
    when: str = "always"
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Staging:
    """What a job restores before its command and promotes after it.

    Attributes
    ----------
    config : str
        A configuration of tieredstore; its first tier is a folder of the node's own disk. Without
        it, the one that is found in the job's folder.
    restore : tuple of Restore
        Before the command, on each of the job's nodes.
    promote : tuple of Promote
        After it, on the first node.
    """

    config: str = ""
    restore: tuple[Restore, ...] = ()
    promote: tuple[Promote, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One job, or an array of them.

    In ``command``, ``environment`` and ``staging`` the texts ``{job}`` (the job's id), ``{task}``
    (the number within an array) and ``{scratch}`` stand for what the running job has.

    Attributes
    ----------
    name : str
        What the queue shows, and by which other jobs name it.
    command : tuple of str, or str
        A program and its arguments; or text that bash runs as it is.
    account, partition, qos : str
        As SLURM calls them; several partitions are separated by commas.
    time : str
        The time limit: minutes, ``H:MM:SS``, ``D-HH``, …
    memory : str
        Of each node, in megabytes or with a unit: ``32G``.
    cpus, tasks : int
        Processors of each task, tasks; 0 leaves them to SLURM.
    gpus : str
        Of each node: ``2`` or ``a100:2``.
    nodes : str
        ``2`` or ``2-4``.
    array : str
        Numbers of an array's tasks: ``0-9``, ``1,3,5-7%2``.
    after : tuple of str
        What has to end well first: names of jobs submitted together with this one, or ids. Another
        condition stands before it: ``afterany:clean``.
    requeue : bool
        Whether SLURM may start it again after a node's failure or a preemption.
    warning : int
        Seconds before the time limit at which the command is told to end (``SIGTERM``); 0 for
        never. SLURM may be up to a minute early.
    on_warning : str
        What follows when it did not end with success then: ``end``, or ``requeue``.
    modules : tuple of str
        Loaded by ``module load``.
    conda, venv : str
        An environment of conda, by name or path; a virtual environment's folder.
    environment : mapping of str to str
        Exported to the command.
    folder : str
        Where it runs.
    logs : str
        Folder of its log, below ``folder`` unless absolute.
    scratch : str
        A folder of each node, in which the job gets one of its own: ``{scratch}``, ``JOB_SCRATCH``
        and ``TMPDIR``. It is removed when the job ends.
    cache : str
        Its cache of Hugging Face ``datasets``: ``per-job``, a folder of its own that is seeded and
        removed; ``shared``, one of links to a central cache; ``none``, whatever the environment
        names.
    cache_from : str
        The pre-built cache that it is seeded from, by default the usual one; the shared one.
    staging : Staging
        Artifacts restored before and promoted after.
    sbatch : mapping of str to str
        Other long options of sbatch: ``{"constraint": "a100"}``.
    values : mapping
        For templates of your own.

    Raises
    ------
    InvalidJob
        For what cannot be used, naming the job and the key.
    """

    name: str
    command: tuple[str, ...] | str
    account: str = ""
    partition: str = ""
    qos: str = ""
    time: str = ""
    memory: str = ""
    cpus: int = 0
    tasks: int = 0
    gpus: str = ""
    nodes: str = ""
    array: str = ""
    after: tuple[str, ...] = ()
    requeue: bool = False
    warning: int = 0
    on_warning: str = "end"
    modules: tuple[str, ...] = ()
    conda: str = ""
    venv: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = "."
    logs: str = LOGS
    scratch: str = ""
    cache: str = "per-job"
    cache_from: str = ""
    staging: Staging = Staging()
    sbatch: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for check in (_named, _shaped, _warned, _cached, _environs, _options, _placed, _staged):
            check(self)


def dependency(entry: str) -> tuple[str, str]:
    """The condition of an entry of ``after``, and what it waits for."""
    kind, colon, rest = entry.partition(":")
    return (kind, rest) if colon and kind in AFTER else ("afterok", entry)


def _refuse(job: Job, key: str, found: object, expected: str) -> InvalidJob:
    return InvalidJob(f"job {job.name!r}: {key} is {found!r}, expected {expected}")


def _named(job: Job) -> None:
    if not job.name.strip():
        raise InvalidJob(f"name is {job.name!r}, expected a text")
    if not job.command or not any(job.command):
        raise _refuse(job, "command", job.command, "a program and its arguments, or lines of bash")
    for key in ("name", "account", "partition", "qos", "folder", "logs"):
        try:
            quoting.directive(getattr(job, key))
        except ValueError as error:
            raise InvalidJob(f"job {job.name!r}: {key} {error}") from None
    for key in ("folder", "logs"):
        if not getattr(job, key):
            raise _refuse(job, key, "", "a folder")
    if "\\" in job.logs:
        raise _refuse(job, "logs", job.logs, "no backslash; SLURM drops it from log files' names")
    for entry in job.after:
        kind, name = dependency(entry)
        if not name or name == job.name:
            raise _refuse(job, "after", entry, f"the name or id of another job after {kind}")


def _shaped(job: Job) -> None:
    for key, (shape, expected) in _PATTERNS.items():
        value = getattr(job, key)
        if value and not re.fullmatch(shape, value):
            raise _refuse(job, key, value, expected)
    for key in ("cpus", "tasks", "warning"):
        if getattr(job, key) < 0:
            raise _refuse(job, key, getattr(job, key), "a number from 0 on")
    for key in ("modules", "conda"):
        value = getattr(job, key)
        for each in (value,) if isinstance(value, str) else value:
            if each.startswith("-") or (key == "modules" and not each):
                raise _refuse(job, key, each, "a name that does not begin with a dash")


def _warned(job: Job) -> None:
    if job.on_warning not in ON_WARNING:
        raise _refuse(job, "on_warning", job.on_warning, " or ".join(ON_WARNING))
    if job.on_warning == "requeue" and not (job.warning and job.requeue):
        raise _refuse(
            job, "on_warning", "requeue", "warning (seconds) and requeue = true beside it"
        )
    if job.warning > 65535:  # noqa: PLR2004 - what SLURM takes
        raise _refuse(job, "warning", job.warning, "at most 65535 seconds")


def _cached(job: Job) -> None:
    if job.cache not in CACHES:
        raise _refuse(job, "cache", job.cache, " or ".join(CACHES))
    if job.cache == "shared" and not job.cache_from:
        raise _refuse(job, "cache_from", "", "the folder of the shared cache")
    if job.cache == "none" and job.cache_from:
        raise _refuse(job, "cache_from", job.cache_from, "cache = per-job or shared beside it")


def _environs(job: Job) -> None:
    for name in job.environment:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise _refuse(job, "environment", name, "names of letters, digits and _")
        if name == "JOB_SCRATCH" or name.startswith("job_"):
            raise _refuse(job, "environment", name, "another name; the script uses this one")


def _options(job: Job) -> None:
    for option, value in job.sbatch.items():
        if option in _OWN:
            raise _refuse(job, "sbatch", option, f"the key of its own: {_OWN[option]}")
        if not re.fullmatch(r"[a-z][a-z0-9-]*", option):
            raise _refuse(job, "sbatch", option, "a long option without its dashes")
        try:
            quoting.directive(value)
        except ValueError as error:
            raise InvalidJob(f"job {job.name!r}: sbatch.{option} {error}") from None


def _placed(job: Job) -> None:
    command = job.command if isinstance(job.command, tuple) else ()
    staged = [(r.name, *r.files) for r in job.staging.restore]
    staged += [(p.name, p.path) for p in job.staging.promote]
    texts = {
        "command": command,
        "environment": tuple(job.environment.values()),
        "staging": tuple(text for row in staged for text in row),
    }
    missing = {"task": not job.array, "scratch": not job.scratch}
    for key, each in texts.items():
        for text in each:
            for place in quoting.places(text):
                if missing.get(place):
                    needed = {"task": "array", "scratch": "scratch"}[place]
                    raise _refuse(job, key, text, f"{needed} where {{{place}}} is used")


def _staged(job: Job) -> None:
    names = [*(r.name for r in job.staging.restore), *(p.name for p in job.staging.promote)]
    for name in names:
        if not name:
            raise _refuse(job, "staging", name, "the name of an artifact")
    for restored in job.staging.restore:
        for file in restored.files:
            if not file or "," in file:
                raise _refuse(job, "staging", file, "a file's name without a comma")
    for promoted in job.staging.promote:
        if promoted.when not in WHEN:
            raise _refuse(job, "staging", promoted.when, " or ".join(WHEN))
