"""SLURM's own commands, each with a time limit: what the queue says, and what is asked of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from datasets_prep.errors import NoSlurm, SlurmFailed

_FIELDS: Final = {  # of squeue, and how wide each column is
    "ArrayJobID": 20,
    "ArrayTaskID": 20,
    "State": 20,
    "exit_code": 12,
    "RestartCnt": 12,
    "NodeList": 400,
    "Reason": 100,
}
_ENDED: Final = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"}
    | {"PREEMPTED", "REVOKED", "TIMEOUT"}
)
_GONE: Final = "Invalid job id"
_ABSENT: Final = (  # what its commands say where there is none, and where its controller is down
    "Could not establish a configuration source",
    "Unable to process configuration file",
    "Unable to contact slurm controller",
)
_SHOWN: Final = 300  # characters of what a command says


@dataclass(frozen=True, slots=True)
class Task:
    """A job, or one task of an array, as the queue shows it.

    Attributes
    ----------
    job : str
        The job's id; that of the array.
    index : int or None
        Which task of the array.
    state : str
        In SLURM's words: ``PENDING``, ``RUNNING``, ``COMPLETED``, ``FAILED``, ``TIMEOUT``, …
    status : int
        The exit status; 128 and the number for a signal.
    restarts : int
        How often it was requeued.
    nodes : str
        Where it runs or ran: ``n[1-2]``.
    reason : str
        Why it is in that state.
    """

    job: str
    index: int | None
    state: str
    status: int = 0
    restarts: int = 0
    nodes: str = ""
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether it will not run again by itself."""
        return self.state in _ENDED

    @property
    def succeeded(self) -> bool:
        """Whether it ended well."""
        return self.state == "COMPLETED"


class Queue:
    """SLURM, as its commands answer.

    Parameters
    ----------
    timeout : float
        Seconds that one command may take.
    env : mapping of str to str, optional
        The environment of the commands; by default this process's own.
    """

    def __init__(self, timeout: float = 60.0, env: Mapping[str, str] | None = None) -> None:
        self._timeout = timeout
        self._env = None if env is None else dict(env)

    def tasks(self, ids: Iterable[str]) -> list[Task]:
        """What is known of these jobs: one row for each task of an array.

        SLURM forgets a job some minutes after its end (``MinJobAge``); then accounting is asked,
        where there is one, and of what it does not know either there is no row.

        Parameters
        ----------
        ids : iterable of str
            As `submit` gave them.

        Raises
        ------
        SlurmFailed
            When SLURM does not answer.
        """
        wanted = list(ids)
        found = self._squeue(wanted)
        known = {task.job for task in found}
        return [*found, *self._sacct([each for each in wanted if each not in known])]

    def cancel(self, ids: Iterable[str]) -> None:
        """End jobs: their commands are told to (``SIGTERM``), and killed after ``KillWait``."""
        self.run("scancel", *ids)

    def warn(self, job: str) -> None:
        """Do to a running job what happens when its time limit comes near."""
        self.run("scancel", "--batch", "--signal=USR1", job)

    def requeue(self, job: str) -> None:
        """Put a job, or ``ID_TASK``, back into the queue, from its beginning."""
        self.run("scontrol", "requeue", job)

    def release(self, ids: Iterable[str]) -> None:
        """Let held jobs begin."""
        self.run("scontrol", "release", ",".join(ids))

    def max_array(self) -> int:
        """The number that indices of arrays stay below (``MaxArraySize``)."""
        return int(self._configured("MaxArraySize"))

    def cluster(self) -> str:
        """The cluster's name (``ClusterName``)."""
        return self._configured("ClusterName")

    def living(self) -> frozenset[str]:
        """The ids of all jobs of all users that have not ended; each task of an array has one.

        Raises
        ------
        SlurmFailed
            When SLURM does not answer, or says something else.
        """
        shown = self.run("squeue", "--noheader", "--all", "--states=all", "--format=%A %T")
        rows = [line.split() for line in shown.splitlines() if line.strip()]
        if not all(len(row) == 2 and row[0].isdecimal() for row in rows):  # noqa: PLR2004
            raise SlurmFailed("squeue printed something else than jobs and their states")
        return frozenset(job for job, state in rows if state not in _ENDED)

    def _configured(self, name: str) -> str:
        for line in self.run("scontrol", "show", "config").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == name:
                return value.strip()
        raise SlurmFailed(f"scontrol show config names no {name}")

    def run(self, *command: str, text: bytes = b"") -> str:
        """Run one of SLURM's commands, and give what it prints.

        Parameters
        ----------
        *command : str
            The program and its arguments.
        text : bytes
            What it reads.

        Raises
        ------
        NoSlurm
            When it is not there, or nobody answers for it.
        SlurmFailed
            When it fails or takes too long.
        """
        done = self._call(command, text)
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())[-_SHOWN:]
            kind = NoSlurm if any(each in said for each in _ABSENT) else SlurmFailed
            raise kind(f"{command[0]}: {said or f'exit status {done.returncode}'}")
        return done.stdout.decode(errors="replace")

    def _call(self, command: Sequence[str], text: bytes) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(  # noqa: S603 - no shell is between
                command,
                input=text,
                capture_output=True,
                env=self._env,
                timeout=self._timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SlurmFailed(
                f"{command[0]}: no answer within {self._timeout:g} s; whether SLURM has done it "
                f"is not known, squeue shows it"
            ) from None
        except OSError as error:
            raise NoSlurm(f"{command[0]}: {error.strerror}; is this a node of SLURM?") from None

    def _squeue(self, ids: Sequence[str]) -> list[Task]:
        if not ids:
            return []
        columns = ",".join(f"{name}:{width}" for name, width in _FIELDS.items())
        try:
            shown = self.run(
                "squeue", "-h", "--array", "--states=all", "-j", ",".join(ids), "-O", columns
            )
        except SlurmFailed as error:
            if _GONE in str(error):
                return []
            raise
        return [_task(line) for line in shown.splitlines() if line.strip()]

    def _sacct(self, ids: Sequence[str]) -> list[Task]:
        if not ids:
            return []
        try:
            shown = self.run(
                *("sacct", "-X", "-n", "-P", "--array", "-j", ",".join(ids)),
                *("-o", "JobID,State,ExitCode,NodeList"),
            )
        except SlurmFailed:
            return []  # many clusters have no accounting
        return [_accounted(line) for line in shown.splitlines() if line.strip()]


def _task(line: str) -> Task:
    values, at = [], 0
    for width in _FIELDS.values():
        values.append(line[at : at + width].strip())
        at += width
    job, index, state, status, restarts, nodes, reason = values
    return Task(
        job,
        int(index) if index.isdecimal() else None,
        state,
        _status(status),
        int(restarts or 0),
        nodes,
        reason if reason != "None" else "",
    )


def _status(text: str) -> int:
    """An exit status of what SLURM shows: ``code:signal``, or what ``wait`` gives."""
    code, colon, number = text.partition(":")
    if colon:
        return 128 + int(number) if number not in {"", "0"} else int(code or 0)
    word = int(text or 0)
    return 128 + (word & 127) if word & 127 else word >> 8


def _accounted(line: str) -> Task:
    called, state, exits, nodes = line.split("|")[:4]
    job, _, index = called.partition("_")
    state = state.split()[0] if state else ""  # CANCELLED by 1000
    return Task(job, int(index) if index.isdecimal() else None, state, _status(exits), 0, nodes)
