"""A run on a SLURM cluster: an array of jobs over the missing chunks, and a merge after it.

Each task of the array is a run of its own, of the chunks whose numbers leave its number when they
are divided; so an array never grows over what the cluster allows, and a task that is requeued
makes what is missing of the same chunks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from datasets_prep import slurm
from datasets_prep.chunks.plan import Chunk, Plan

WARNING: Final = 120  # seconds before the time limit at which a task drops what it makes
_PLACES: Final = re.compile(r"\{(job|task|scratch)\}")


@dataclass(frozen=True, slots=True)
class Cluster:
    """How jobs are made for a run.

    Attributes
    ----------
    keys : mapping
        Keys of a job, such as ``partition`` and ``time``; see `datasets_prep.slurm`.
    config : path or None
        A TOML or YAML file of such keys.
    folder : path
        Where the jobs run.
    """

    keys: Mapping[str, Any]
    config: Path | None = None
    folder: Path = Path()

    def jobs(
        self,
        plan: Plan,
        missing: Iterable[Chunk],
        work: Sequence[str],
        merge: Sequence[str],
        most: int,
    ) -> list[slurm.Job]:
        """The jobs that make what is missing, and merge it.

        Parameters
        ----------
        plan : Plan
            The run.
        missing : iterable of Chunk
            What has to be made.
        work, merge : sequence of str
            Commands: of one task, with ``{share}`` for its share, and of the merge; an empty one
            is left out.
        most : int
            The number that indices of arrays stay below.

        Returns
        -------
        list of Job
            Nothing of an array where nothing is missing.
        """
        chunks = plan.chunks()
        of = min(len(chunks), most)
        numbers = sorted({chunks.index(chunk) % of for chunk in missing})
        found = []
        if numbers:
            words = [plain(word).replace("{share}", f"{{task}}/{of}") for word in work]
            more = {"array": _ranges(numbers), "requeue": True, "warning": WARNING}
            more["on_warning"] = "requeue"  # what is left of its share is made then
            found.append(self.job(f"{plan.run}-chunks", words, more))
        if merge:
            after = {"after": [f"afterany:{found[0].name}"]} if found else {}
            found.append(self.job(f"{plan.run}-merge", [plain(word) for word in merge], after))
        return found

    def job(self, name: str, words: Sequence[str], more: Mapping[str, Any]) -> slurm.Job:
        """One job of that name, with ``more`` keys."""
        fixed = {"name": name, "command": list(words), **more}
        fixed["folder"] = str(self.folder.resolve())
        if self.config is not None:
            [job] = slurm.load(self.config, {**self.keys, **fixed})
            return job
        return slurm.reading.job({**self.keys, **fixed}, "--slurm")


def plain(word: str) -> str:
    """A word in which braces stand for themselves."""
    return _PLACES.sub(r"{{\1}}", word)


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers as SLURM writes them: ``0-3,7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
