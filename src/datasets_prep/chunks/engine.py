"""From what a user asks for to a run: the plan, the workers, the run itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets_prep.chunks.phases import Phase
from datasets_prep.chunks.plan import Plan, Share
from datasets_prep.chunks.planning import chosen_gpus, recorded
from datasets_prep.chunks.running import Job, Outcome, Run
from datasets_prep.chunks.telling import SILENT, ChunkReporter
from datasets_prep.chunks.workers import WorkerProcess
from datasets_prep.errors import ChunksFailed
from tieredstore import TieredStore, open_store


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is done; none of it changes what comes out.

    Attributes
    ----------
    gpus : sequence of str or None
        GPUs by number; all that are visible by default.
    workers : int or None
        So many workers without a GPU of their own, instead.
    visible : sequence of str or None
        What ``CUDA_VISIBLE_DEVICES`` leaves to this process; see `datasets_prep.config`.
    chunk_size : int
        Items to a chunk; counts for the first run only, which makes the plan.
    retries : int
        How often a chunk that failed is tried again.
    folder : path
        Where commands run, and where their code lies.
    replace : bool
        Replace also what a durable tier holds by the name of a chunk that nobody knows.
    share : Share or None
        Only these chunks; all by default.
    config : path, mapping or None
        The tiers, see `tieredstore.open_store`.
    """

    gpus: Sequence[str] | None = None
    workers: int | None = None
    visible: Sequence[str] | None = None
    chunk_size: int = 50
    retries: int = 2
    folder: str | os.PathLike[str] = field(default_factory=Path.cwd)
    replace: bool = False
    share: Share | None = None
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None

    @property
    def devices(self) -> tuple[str, ...]:
        """What ``CUDA_VISIBLE_DEVICES`` is for each worker."""
        return chosen_gpus(self.gpus, self.workers, self.visible)


def run(
    phase: Phase,
    start: int,
    end: int,
    options: RunOptions | None = None,
    store: TieredStore | None = None,
    reporter: ChunkReporter = SILENT,
) -> Outcome:
    """Make all chunks of a range that are not there yet.

    Parameters
    ----------
    phase : Phase
        How items are made.
    start, end : int
        The first and the last item.
    options : RunOptions, optional
        The usual ones by default.
    store : TieredStore, optional
        Where chunks are kept; what the configuration says by default.
    reporter : ChunkReporter, optional
        Told what happens; silent by default.

    Returns
    -------
    Outcome
        What was made, skipped, and failed.

    Raises
    ------
    OptionError, PlanError
        Before anything is made.
    """
    options = options or RunOptions()
    store = store or open_store(options.config)
    return begin(phase, start, end, options, store, reporter).run()


def begin(
    phase: Phase,
    start: int,
    end: int,
    options: RunOptions,
    store: TieredStore,
    reporter: ChunkReporter = SILENT,
) -> Run:
    """Record the plan of a run, or find it, for a caller that may end the run early; see `run`."""
    devices = options.devices
    asked = Plan.cut(phase.name, start, end, options.chunk_size, len(devices))
    plan, again = recorded(store, asked)
    reporter.planned(plan, again=again)
    only = None if options.share is None else options.share.chunks(plan)
    job = Job(plan, phase, devices, Path(options.folder), options.retries, only, options.replace)
    return Run(store, job, reporter)


def run_whole(phase: Phase, start: int, end: int, options: RunOptions) -> None:
    """Run a phase without chunks, once for each GPU's slice; its outputs go where it puts them.

    Raises
    ------
    ChunksFailed
        When a slice failed.
    """
    from concurrent.futures import ThreadPoolExecutor

    devices = options.devices
    plan = Plan.cut(phase.name, start, end, options.chunk_size, len(devices))
    workers = [WorkerProcess(gpu, phase, Path(options.folder)) for gpu in devices]
    pairs = list(zip(workers, plan.slices, strict=False))
    pool = ThreadPoolExecutor(len(pairs))
    try:
        said = list(pool.map(lambda pair: pair[0].make_all(*pair[1]), pairs))
    finally:
        for worker in workers:
            worker.close()
        pool.shutdown(wait=False)
    failed = [
        f"{first}-{last}: {why}" for (_, (first, last)), why in zip(pairs, said, strict=True) if why
    ]
    if failed:
        raise ChunksFailed(f"phase {phase.name} failed for {'; '.join(failed)}")
