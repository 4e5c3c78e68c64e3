"""Jobs of a SLURM cluster: described, written as scripts, checked, submitted and watched.

::

    from datasets_prep.slurm import Job, Queue, submit

    prepare = Job("prepare", ("datasets-prep", "prepare", "shakespeare"), time="30")
    train = Job("train", ("python", "train.py"), gpus="1", after=("prepare",))
    ids = submit([prepare, train])
    tasks = Queue().tasks(ids.values())
"""

from __future__ import annotations

from datasets_prep.errors import InvalidJob, NoSlurm, SlurmFailed
from datasets_prep.slurm.checking import check
from datasets_prep.slurm.job import Job, Promote, Restore, Staging
from datasets_prep.slurm.queue import Queue, Task
from datasets_prep.slurm.reading import load
from datasets_prep.slurm.rendering import Script, render
from datasets_prep.slurm.submitting import ordered, submit
from datasets_prep.slurm.writing import overwrite, write

__all__ = [
    "InvalidJob",
    "Job",
    "NoSlurm",
    "Promote",
    "Queue",
    "Restore",
    "Script",
    "SlurmFailed",
    "Staging",
    "Task",
    "check",
    "load",
    "ordered",
    "overwrite",
    "render",
    "submit",
    "write",
]
