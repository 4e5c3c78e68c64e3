"""What is told of a run while it goes on; every method does nothing by default."""

from __future__ import annotations

from datasets_prep.chunks.plan import Chunk, Plan


class ChunkReporter:
    """Receives what a run of chunks does. Methods may be called from several threads at once."""

    def planned(self, plan: Plan, *, again: bool) -> None:
        """The plan that counts; ``again`` where it was recorded before."""

    def note(self, text: str) -> None:
        """Something that is worth a line."""

    def skipped(self, chunk: Chunk) -> None:
        """A chunk is completed already."""

    def stale(self, chunk: Chunk, why: str) -> None:
        """A chunk is there, made from something else."""

    def begun(self, chunk: Chunk, gpu: str) -> None:
        """A chunk is being made."""

    def done(self, chunk: Chunk, gpu: str, seconds: float) -> None:
        """A chunk is made and published."""

    def failed(self, chunk: Chunk, gpu: str, why: str, left: int) -> None:
        """A chunk could not be made; it will be tried ``left`` times more."""

    def not_saved(self, chunk: Chunk, why: str) -> None:
        """A chunk is made, and a durable tier could not take it."""

    def elsewhere(self, chunks: int) -> None:
        """What is left is being made by others."""


SILENT = ChunkReporter()
