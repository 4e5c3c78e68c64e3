"""Make the chunks of a run on this machine, beside others who work on the same run elsewhere.

Each GPU has a thread here and a worker process. A chunk is claimed, made in a stage of the store,
published whole and promoted; what is not published when somebody dies is made again. One that
others have claimed is left to them, and looked at again until it is there.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from datasets_prep.chunks.board import Board
from datasets_prep.chunks.ledger import Ledger
from datasets_prep.chunks.phases import LOG, Phase
from datasets_prep.chunks.plan import Chunk, Plan
from datasets_prep.chunks.standing import COMPLETE, STALE, Stand, Standing
from datasets_prep.chunks.telling import SILENT, ChunkReporter
from datasets_prep.chunks.workers import GRACE, WorkerProcess
from datasets_prep.errors import reason
from tieredstore import PromoteFailed, TieredStore, TieredStoreError

POLL: Final = 2.0  # seconds between two looks at what others make
HOPELESS: Final = 3  # failures in a row, while others succeed, after which a GPU is given up
_TAIL: Final = 4000  # bytes of a log


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done, and how.

    Attributes
    ----------
    plan : Plan
        The run.
    phase : Phase
        How its chunks are made.
    gpus : tuple of str
        One worker for each; an empty name is a worker without a GPU of its own.
    folder : Path
        Where commands run, and where their code lies.
    retries : int
        How often a chunk that failed is tried again.
    chunks : tuple of Chunk or None
        Only these; all by default.
    replace : bool
        Replace also what a durable tier holds by the name of a chunk that nobody knows.
    """

    plan: Plan
    phase: Phase
    gpus: tuple[str, ...] = ("",)
    folder: Path = field(default_factory=Path.cwd)
    retries: int = 2
    chunks: tuple[Chunk, ...] | None = None
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A chunk that could not be made: why, and the end of its log."""

    chunk: Chunk
    why: str
    log: str


@dataclass(slots=True)
class Outcome:
    """What came of a run.

    Attributes
    ----------
    plan : Plan
        Of what.
    made, skipped : list of Chunk
        Those made here, and those that were, or became, completed otherwise.
    failed : list of Failure
        Those that could not be made.
    not_saved : dict
        Why a durable tier could not take a chunk, by its artifact's name.
    wanted : int
        How many chunks were to be there at the end.
    """

    plan: Plan
    made: list[Chunk] = field(default_factory=list)
    skipped: list[Chunk] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    not_saved: dict[str, str] = field(default_factory=dict)
    wanted: int = 0

    @property
    def complete(self) -> bool:
        """Whether every chunk of the plan is there, or of the share that was asked for."""
        return len(self.made) + len(self.skipped) == self.wanted


class Run:
    """One run on this machine.

    Parameters
    ----------
    store : TieredStore
        Where chunks are kept.
    job : Job
        What is to be done.
    reporter : ChunkReporter
        Told what happens.
    """

    def __init__(self, store: TieredStore, job: Job, reporter: ChunkReporter = SILENT) -> None:
        self._store = store
        self.job = job
        self._reporter = reporter
        self._ledger = Ledger(store, job.plan)
        self._standing = Standing(store, job.plan, job.phase, job.folder)
        self._outcome = Outcome(job.plan)
        self._workers = [WorkerProcess(gpu, job.phase, job.folder) for gpu in job.gpus]
        self._streaks = [0] * len(job.gpus)
        self._lock = threading.Lock()
        self._stopping = False
        self._told_elsewhere = False
        self._board = Board((), 0)

    def run(self) -> Outcome:
        """Make what is missing.

        Raises
        ------
        KeyboardInterrupt
            When it came; chunks that were being made are dropped by then.
        """
        job = self.job
        wanted = job.plan.chunks() if job.chunks is None else list(job.chunks)
        self._outcome.wanted = len(wanted)
        self._board = Board(self._to_make(wanted), len(self._workers))
        calls = [partial(self._work, number) for number in range(len(self._workers))]
        errors: list[BaseException] = []
        threads = [threading.Thread(target=_kept, args=(call, errors)) for call in calls]
        for thread in threads:
            thread.daemon = True
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
        except BaseException:
            self.drop()
            until = time.monotonic() + GRACE
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))
            raise
        finally:
            for worker in self._workers:
                worker.close()
        if errors:
            raise errors[0]
        return self._outcome

    def finish(self) -> None:
        """Begin no further chunk; those that are being made are finished. From any thread."""
        self._board.end()

    def drop(self) -> None:
        """Begin no further chunk, and drop those that are being made. From any thread."""
        self._stopping = True
        self._board.end()
        for worker in self._workers:
            worker.stop()

    # -- what there is to do --------------------------------------------------------------------

    def _to_make(self, wanted: Sequence[Chunk]) -> list[Chunk]:
        stands = self._standing.all(wanted)
        left = []
        for chunk, stand in stands.items():
            if stand.state == COMPLETE:
                self._skip(chunk, stand)
            else:
                left.append(chunk)
        return left

    def _skip(self, chunk: Chunk, stand: Stand) -> None:
        with self._lock:
            self._outcome.skipped.append(chunk)
        self._reporter.skipped(chunk)
        lacking = [t.name for t in self._store.tiers if t.durable and t.name not in stand.tiers]
        if lacking and self._store.tiers[0].name in stand.tiers:
            self._save(chunk, replace=False)  # whoever made it was stopped before that

    def _work(self, number: int) -> None:
        worker = self._workers[number]
        while (chunk := self._board.take(number)) is not None:
            try:
                self._try(chunk, worker, number)
            except BaseException:
                self._board.end()  # the others finish what they have begun
                raise
            if self._streaks[number] >= HOPELESS and self._given_up(number):
                return

    def _try(self, chunk: Chunk, worker: WorkerProcess, number: int) -> None:
        with self._store.claim(chunk.artifact(self.job.plan.run)) as mine:
            if mine:
                self._claimed(chunk, worker, number)
        if not mine:
            self._board.back(chunk, POLL)
            self._tell_elsewhere()

    def _tell_elsewhere(self) -> None:
        with self._lock:
            told, self._told_elsewhere = self._told_elsewhere, True
        if not told:
            self._reporter.elsewhere(self._board.left)

    def _given_up(self, number: int) -> bool:
        """Whether a GPU on which nothing succeeds is left alone, because others do succeed."""
        if not self._outcome.made or not self._board.gone(number):
            return False
        gpu = self._workers[number].gpu
        failures = self._streaks[number]
        self._reporter.note(f"GPU {gpu or number} is given up after {failures} failures in a row")
        return True

    # -- one chunk ------------------------------------------------------------------------------

    def _claimed(self, chunk: Chunk, worker: WorkerProcess, number: int) -> None:
        stand = self._standing.look(chunk)
        if stand.state == COMPLETE:
            self._skip(chunk, stand)
            self._board.over(chunk)
            return
        if stand.state == STALE:
            self._reporter.stale(chunk, stand.why)
        self._reporter.begun(chunk, worker.gpu)
        self._ledger.begun(chunk, worker.gpu)
        since = time.monotonic()
        try:
            generation = self._make(chunk, worker)
        except _NotMade as error:
            self._not_made(chunk, number, error)
            return
        except (OSError, TieredStoreError) as error:  # the store could not take it
            self._not_made(chunk, number, _NotMade(reason(error), ""))
            return
        seconds = round(time.monotonic() - since, 3)
        self._save(chunk, replace=stand.state == STALE)
        self._ledger.done(chunk, worker.gpu, seconds, generation)
        with self._lock:
            self._outcome.made.append(chunk)
            self._streaks[number] = 0
        self._reporter.done(chunk, worker.gpu, seconds)
        self._board.over(chunk)

    def _make(self, chunk: Chunk, worker: WorkerProcess) -> str:
        name = chunk.artifact(self.job.plan.run)
        with self._store.create(name, self._standing.recipe(chunk)) as stage:
            why = worker.make(chunk, stage.path) or self._lacking(stage.path)
            if self._stopping:
                raise _NotMade("was told to stop", "")
            if why:
                raise _NotMade(why, self._keep_log(chunk, stage.path / LOG))
        return stage.generation

    def _lacking(self, folder: Path) -> str:
        """What of the expected outputs is not there."""
        missing = [p for p in self.job.phase.outputs if next(folder.glob(p), None) is None]
        if missing:
            return f"it wrote no {', '.join(missing)}"
        if not any(each.name != LOG for each in folder.iterdir()):
            return f"it wrote nothing to {self.job.phase.variable}"
        return ""

    def _keep_log(self, chunk: Chunk, log: Path) -> str:
        """Keep a failed chunk's log where people find it, and give its end."""
        if not log.is_file():
            return ""
        first = self._store.tiers[0]
        folder = Path(first.backend.place, first.layout.inner(f"{self.job.plan.run}/failed"))
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, folder / f"{chunk.label}.log")
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            return file.read().decode(errors="replace")

    def _not_made(self, chunk: Chunk, number: int, error: _NotMade) -> None:
        if self._stopping:
            self._ledger.dropped(chunk)
            self._board.over(chunk)
            return
        gpu = self._workers[number].gpu
        left = self._board.again(chunk, number, self.job.retries)
        with self._lock:
            self._streaks[number] += 1
            if not left:
                self._outcome.failed.append(Failure(chunk, error.why, error.log))
        self._ledger.failed(chunk, gpu, error.why, error.log)
        self._reporter.failed(chunk, gpu, error.why, left)

    def _save(self, chunk: Chunk, *, replace: bool) -> None:
        """Promote a chunk; what a durable tier cannot take now is told, and made up for later."""
        name = chunk.artifact(self.job.plan.run)
        try:
            self._store.promote(name, replace=replace or self.job.replace)
        except (OSError, TieredStoreError) as error:
            why = str(error) if isinstance(error, PromoteFailed) else reason(error)
            with self._lock:
                self._outcome.not_saved[name] = why
            self._reporter.not_saved(chunk, why)


def missing(store: TieredStore, job: Job) -> list[Chunk]:
    """The chunks of a job that are not there, or stale."""
    wanted = job.plan.chunks() if job.chunks is None else job.chunks
    stands = Standing(store, job.plan, job.phase, job.folder).all(wanted)
    return [chunk for chunk, stand in stands.items() if stand.state != COMPLETE]


class _NotMade(Exception):
    """A chunk could not be made."""

    def __init__(self, why: str, log: str) -> None:
        self.why = why
        self.log = log
        super().__init__(why)


def _kept(call: Callable[[], None], errors: list[BaseException]) -> None:
    """Call something, and keep what it raises for the thread that waits."""
    try:
        call()
    except BaseException as error:  # noqa: BLE001
        errors.append(error)
