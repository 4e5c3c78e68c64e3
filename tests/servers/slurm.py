"""A real SLURM cluster on this host: one controller and several nodes, on loopback.

Only the cluster belongs here: starting it, stopping it, and what happens to its nodes. Its daemons
run in the foreground as processes of this one, without munge, cgroups or services of the system,
and are ended by their ids; so is what still runs in jobs. There is no accounting (``sacct``).
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin"
_PROGRAMS = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
_CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=1
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait={grace}
ReturnToService=2
MaxArraySize=1001
MinJobAge=3600
SlurmctldTimeout=30
SlurmdTimeout=30
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefMemPerCPU=100 PriorityTier=1 State=UP
PartitionName=urgent Nodes=ALL MaxTime=60 DefMemPerCPU=100 PriorityTier=9 PreemptMode=OFF State=UP
"""
_NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
    "CPUs={cpus} RealMemory=4000 Gres=gpu:2 State=UNKNOWN"
)
# SLURM wants a device for each GPU, and asks nothing of it: CUDA_VISIBLE_DEVICES is set.
_GRES = "NodeName=n[1-{nodes}] Name=gpu File=/dev/{device}\n"


def missing() -> str:
    """Why the cluster cannot be started here, or an empty text."""
    for program, package in _PROGRAMS.items():
        if shutil.which(program, path=_PATH) is None:
            return f"{program} is not installed (apt-get install {package})"
    return ""


@dataclass
class Slurm:
    """A running cluster.

    Attributes
    ----------
    folder : Path
        Its configuration, logs and state.
    nodes : list of str
        Names of the nodes: ``n1``, ``n2``, …
    processes : dict
        What was started, by name: ``slurmctld``, and each node.
    """

    folder: Path
    nodes: list[str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def env(self) -> dict[str, str]:
        """An environment in which SLURM's commands talk to this cluster."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        return {**kept, "PATH": _PATH, "SLURM_CONF": str(self.conf)}

    def call(self, *command: str, check: bool = True) -> str:
        """What one of SLURM's commands prints."""
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def submit(self, *arguments: str) -> str:
        """Submit what ``sbatch`` takes; its id."""
        return self.call("sbatch", "--parsable", *arguments)

    def state(self, job: str) -> str:
        """The state of a job or of each of its tasks, in alphabetical order: ``COMPLETED``."""
        rows = self.call("squeue", "-h", "--states=all", "-j", job, "-o", "%T").split()
        return ",".join(sorted(set(rows)))

    def wait(self, job: str, *states: str, seconds: float = 60) -> str:
        """Wait until all of a job is in one of these states; by default, until it has ended."""
        wanted = set(states or ENDED)
        return until(lambda: set((now := self.state(job)).split(",")) <= wanted and now, seconds)

    # -- what happens to nodes ------------------------------------------------------------------

    def drain(self, node: str) -> None:
        """Let a node take no more jobs."""
        self.call("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")

    def down(self, node: str) -> None:
        """Declare a node dead: its jobs are requeued or end, whatever still runs there."""
        self.call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")

    def resume(self, node: str) -> None:
        """Let a node that was drained or declared dead take jobs again."""
        self.call("scontrol", "update", f"NodeName={node}", "State=RESUME")

    def hurry(self, job: str) -> None:
        """Let a job that was requeued begin; SLURM lets it wait two minutes."""

        def begun() -> bool:
            self.call("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)
            return self.state(job) not in {"PENDING", "COMPLETING"}

        until(begun, 30)

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon; what it has started goes on."""
        process = self.processes.pop(node)
        process.kill()
        process.wait(10)

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        self._start(node, "slurmd", "-D", "-f", str(self.conf), "-N", node)

    # -- the whole ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the cluster; all nodes are idle when this returns."""
        self._start("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        for node in self.nodes:
            self.start_node(node)
        try:
            until(self._idle, 30)
        except TimeoutError:
            self.stop()
            log = (self.folder / "slurmctld.out").read_text(errors="replace")[-1000:]
            raise RuntimeError(f"SLURM did not start: {log}") from None

    def _idle(self) -> bool:
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name}: {(self.folder / f'{name}.out').read_text()[-1000:]}")
        states = self.call("sinfo", "-h", "-p", "main", "-N", "-o", "%T", check=False).split()
        return states == ["idle"] * len(self.nodes)

    def clear(self) -> None:
        """Cancel all jobs, kill what runs in them, and wait until none is left."""
        mine = ("--user", getpass.getuser())
        self.call("scancel", "--state=PENDING", *mine, check=False)
        self.call("scancel", "--signal=KILL", "--full", *mine, check=False)
        self.call("scancel", *mine, check=False)
        with suppress(TimeoutError):
            until(lambda: not self.call("squeue", "-h", "-o", "%i", check=False), 20)

    def stop(self) -> None:
        """End all that was started here, and what runs in its jobs; nothing else."""
        if "slurmctld" in self.processes:
            self.clear()
        for pid in self._steps():
            for each in (*_below(pid), pid):
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self.processes.clear()

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def _steps(self) -> Iterator[int]:
        """What the nodes' daemons have started: they outlive them."""
        mine = b"SLURM_CONF=" + os.fsencode(self.conf)
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                ours = mine in (entry / "environ").read_bytes().split(b"\0")
                if ours and (entry / "comm").read_text().startswith("slurmstepd"):
                    yield int(entry.name)


ENDED = {
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "OUT_OF_MEMORY",
    "DEADLINE",
}


def until(look: Callable[[], T], seconds: float) -> T:
    """Look again and again until there is something, and give it."""
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.05)
    return found


def _below(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [found for child in map(int, children) for found in (*_below(child), child)]


def _ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def start(folder: Path, nodes: int = 4, cpus: int = 4, grace: int = 5) -> Slurm:
    """Start a cluster.

    Parameters
    ----------
    folder : Path
        For its configuration, logs and state; made where it is missing.
    nodes : int
        How many nodes.
    cpus : int
        Processors that each node claims to have.
    grace : int
        Seconds between the signal that ends a job and the one that kills it (``KillWait``).
    """
    (folder / "state").mkdir(parents=True)
    host = socket.gethostname().partition(".")[0]
    names = [f"n{n}" for n in range(1, nodes + 1)]
    port, *ports = _ports(nodes + 1)
    rows = [
        _NODE.format(name=name, host=host, port=p, cpus=cpus)
        for name, p in zip(names, ports, strict=True)
    ]
    said = {"host": host, "port": port, "user": getpass.getuser(), "grace": grace}
    config = _CONFIG.format(folder=folder, nodes="\n".join(rows), **said)
    (folder / "slurm.conf").write_text(config)
    gpus = [_GRES.format(nodes=nodes, device=device) for device in ("null", "zero")]
    (folder / "gres.conf").write_text("".join(gpus))
    cluster = Slurm(folder, names)
    cluster.start()
    return cluster
