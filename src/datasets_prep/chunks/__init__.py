"""Long work on a range of items, cut into chunks that survive crashes, on any number of GPUs.

::

    from datasets_prep import chunks

    phase = chunks.Phase("1", command=("python", "run.py", "{start}", "{end}"))
    outcome = chunks.run(phase, 0, 488, chunks.RunOptions(gpus=("0", "1", "2")))

``plan`` says what is to be done, ``phases`` how, ``running`` does it on this machine.
"""

from datasets_prep.chunks.engine import RunOptions, begin, run, run_whole
from datasets_prep.chunks.executors import submit
from datasets_prep.chunks.ledger import Ledger
from datasets_prep.chunks.merging import Merge, Merged, MergeOptions
from datasets_prep.chunks.phases import Phase
from datasets_prep.chunks.plan import Chunk, Plan, Share
from datasets_prep.chunks.planning import existing
from datasets_prep.chunks.progress import Progress, progress
from datasets_prep.chunks.running import Failure, Job, Outcome, Run
from datasets_prep.chunks.telling import ChunkReporter
from datasets_prep.chunks.worker import Task

__all__ = [
    "Chunk",
    "ChunkReporter",
    "Failure",
    "Job",
    "Ledger",
    "Merge",
    "MergeOptions",
    "Merged",
    "Outcome",
    "Phase",
    "Plan",
    "Progress",
    "Run",
    "RunOptions",
    "Share",
    "Task",
    "begin",
    "existing",
    "progress",
    "run",
    "run_whole",
    "submit",
]
