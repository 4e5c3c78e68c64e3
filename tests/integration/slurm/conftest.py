"""What tests of job scripts share: a folder, the queue of a real cluster, tiers for its jobs."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import tieredstore
from datasets_prep import slurm as scripts
from datasets_prep.slurm import Job, Queue, Task


class Bed:
    """A folder for jobs, and the cluster on which they run.

    Attributes
    ----------
    path : Path
        The folder; jobs find ``python`` and ``tieredstore`` as this process does.
    config : Path
        Tiers for jobs: the first in the job's own scratch, the second durable.
    """

    def __init__(self, path: Path, cluster: SimpleNamespace) -> None:
        self.path = path
        self.cluster = cluster
        found = f"{os.path.dirname(sys.executable)}{os.pathsep}{cluster.env['PATH']}"
        kept = {k: v for k, v in cluster.env.items() if not k.startswith("TIEREDSTORE_")}
        self.env = {**kept, "PATH": found}
        self.queue = Queue(env=self.env)
        self.config = path / "tiers.toml"
        self.config.write_text(
            '[[tier]]\nname = "node"\nbackend = "local"\npath = "${JOB_SCRATCH}/data"\n'
            '[[tier]]\nname = "far"\nbackend = "local"\npath = "durable"\ndurable = true\n'
        )

    @property
    def far(self) -> tieredstore.TieredStore:
        """The durable tier, as somebody elsewhere sees it."""
        return tieredstore.TieredStore([tieredstore.local_tier(self.path / "durable")])

    @property
    def left(self) -> list[Path]:
        """What jobs have left in their scratch folders, and of their caches."""
        scratch = self.path / "local"
        return [*scratch.glob("[!.]*"), *scratch.glob(".cache/*")]

    def text(self, name: str, file: str) -> str:
        """What a file of an artifact in the durable tier holds."""
        return (self.far.restore(name).path / file).read_text()

    def submit(self, job: Job) -> str:
        return scripts.submit([job], self.queue)[job.name]

    def ended(self, job: Job) -> Task:
        """Submit a job, and wait until it has ended."""
        number = self.submit(job)
        self.cluster.wait(number)
        return self.task(number)

    def task(self, number: str) -> Task:
        [task] = self.queue.tasks([number])
        return task

    def log(self, job: Job) -> str:
        """What a job has said."""
        files = sorted(Path(job.folder, job.logs).iterdir())
        return "".join(path.read_text() for path in files)

    def until(self, look: Callable[[], object]) -> None:
        """Wait until something is so."""
        end = time.monotonic() + 60
        while not look():
            assert time.monotonic() < end, "not within a minute"
            time.sleep(0.05)


@pytest.fixture
def bed(tmp_path: Path, slurm: SimpleNamespace) -> Bed:
    return Bed(tmp_path, slurm)
