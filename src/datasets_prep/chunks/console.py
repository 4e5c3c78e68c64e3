"""The lines that people see of a run, and a report of how it stands."""

from __future__ import annotations

from collections.abc import Callable

from datasets_prep.chunks.plan import Chunk, Plan, slices_text
from datasets_prep.chunks.running import Outcome
from datasets_prep.chunks.telling import ChunkReporter
from datasets_prep.console import label
from tieredstore import Reporter

_TAIL = 20  # lines of a failed chunk's log


class StoreWarnings(Reporter):
    """Of what the store does, tells only what is wrong with a tier.

    Parameters
    ----------
    warn : callable
        Writes one line.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn

    def skipped(self, tier: str, why: str) -> None:
        """See `Reporter.skipped`."""
        self._warn(f"{label(tier)} skipped: {why}")

    def corrupt(self, tier: str, what: str) -> None:
        """See `Reporter.corrupt`."""
        self._warn(f"{label(tier)} holds a damaged copy, not used: {what}")


class ChunkConsole(ChunkReporter):
    """Writes a line for each thing that happens.

    Parameters
    ----------
    line, warn : callable
        Write one line of what goes on, and of what goes wrong.
    """

    def __init__(self, line: Callable[[str], None], warn: Callable[[str], None]) -> None:
        self._line = line
        self._warn = warn

    def planned(self, plan: Plan, *, again: bool) -> None:
        """See `ChunkReporter.planned`."""
        if again:
            self._line(f"{plan.run}: the plan that was recorded counts: {plan.size} to a chunk")
        for text in slices_text(plan):
            self._line(text)

    def note(self, text: str) -> None:
        """See `ChunkReporter.note`."""
        self._line(text)

    def skipped(self, chunk: Chunk) -> None:
        """See `ChunkReporter.skipped`."""
        self._line(f"{_of(chunk)} [SKIPPED - Already completed]")

    def stale(self, chunk: Chunk, why: str) -> None:
        """See `ChunkReporter.stale`."""
        self._line(f"{_of(chunk)} [STALE - {why}]")

    def begun(self, chunk: Chunk, gpu: str) -> None:
        """See `ChunkReporter.begun`."""
        del gpu
        self._line(f"{_of(chunk)} [PROCESSING...]")

    def done(self, chunk: Chunk, gpu: str, seconds: float) -> None:
        """See `ChunkReporter.done`."""
        where = f" on GPU {gpu}" if gpu else ""
        self._line(f"{_of(chunk)} [DONE in {seconds:.1f} s{where}]")

    def failed(self, chunk: Chunk, gpu: str, why: str, left: int) -> None:
        """See `ChunkReporter.failed`."""
        then = f"tried again, {left} left" if left else "given up"
        where = f" on GPU {gpu}" if gpu else ""
        self._warn(f"{_of(chunk)} [FAILED{where}: {why}; {then}]")

    def not_saved(self, chunk: Chunk, why: str) -> None:
        """See `ChunkReporter.not_saved`."""
        self._warn(f"{_of(chunk)} made, and not saved: {why}")

    def elsewhere(self, chunks: int) -> None:
        """See `ChunkReporter.elsewhere`."""
        self._line(f"{chunks} chunks left, some of them being made by others; waiting for those")


def closing(outcome: Outcome) -> list[str]:
    """What came of a run, in a few lines; of failed chunks the end of the log."""
    total = outcome.wanted
    done = len(outcome.made) + len(outcome.skipped)
    lines = [f"{outcome.plan.run}: {done} of {total} chunks completed, {len(outcome.made)} now"]
    for failure in outcome.failed:
        lines.append(f"{_of(failure.chunk)} failed: {failure.why}")
        lines += [f"    {text}" for text in failure.log.splitlines()[-_TAIL:]]
    lines += [f"{name}: not saved: {why}" for name, why in sorted(outcome.not_saved.items())]
    return lines


def _of(chunk: Chunk) -> str:
    return f"Chunk {chunk.index}/{chunk.count}: {chunk.start}-{chunk.end}"
