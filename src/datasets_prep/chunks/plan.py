"""What is to be done: a range of items, a slice of it for each GPU, each slice cut into chunks.

The plan is recorded with the first run and is what counts from then on, whoever works on it. Only
what can be known without doing any work belongs here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from datasets_prep.errors import OptionError, PlanError

FORMAT: Final = 1


@dataclass(frozen=True, slots=True, order=True)
class Chunk:
    """Items that are made together, as one artifact.

    Attributes
    ----------
    slice : int
        The slice that it belongs to, ``gpuN`` in its name; says nothing of who makes it.
    index, count : int
        Which chunk of how many of that slice, from 0.
    start, end : int
        The first and the last item.
    """

    slice: int
    index: int
    count: int
    start: int
    end: int

    @property
    def label(self) -> str:
        """Its name below the slice's folder: ``chunk_00000-00049``."""
        return f"chunk_{self.start:05d}-{self.end:05d}"

    def artifact(self, run: str) -> str:
        """The name of its artifact."""
        return f"{run}/chunks/gpu{self.slice}/{self.label}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A run, cut up.

    Attributes
    ----------
    phase : str
        The phase that makes the items.
    start, end : int
        The first and the last item.
    size : int
        Items to a chunk; the last chunk of a slice has what is left over as well.
    slices : tuple of tuple of int
        First and last item of each slice.
    """

    phase: str
    start: int
    end: int
    size: int
    slices: tuple[tuple[int, int], ...]

    @classmethod
    def cut(cls, phase: str, start: int, end: int, size: int, parts: int) -> Self:
        """Cut a range, both ends included, for so many GPUs.

        Raises
        ------
        OptionError
            For an empty range, and sizes below 1.
        """
        if start < 0 or end < start:
            raise OptionError(
                f"range {start}-{end}: expected a first item from 0 and a last one not before it"
            )
        if size < 1:
            raise OptionError(f"chunk size {size}: expected at least 1")
        if parts < 1:
            raise OptionError(f"{parts} workers: expected at least 1")
        parts = min(parts, end - start + 1)
        share = (end - start + 1) // parts
        firsts = [start + n * share for n in range(parts)]
        lasts = [first - 1 for first in firsts[1:]] + [end]
        return cls(phase, start, end, size, tuple(zip(firsts, lasts, strict=True)))

    @property
    def run(self) -> str:
        """The folder of its artifacts: ``phase1_0``, the phase and the first item."""
        return run_name(self.phase, self.start)

    @property
    def record(self) -> str:
        """The name of the record that holds it."""
        return plan_record(self.run)

    def chunks(self, number: int | None = None) -> list[Chunk]:
        """The chunks of all slices, or of one."""
        numbers = range(len(self.slices)) if number is None else [number]
        return [chunk for n in numbers for chunk in self._cut_slice(n)]

    def _cut_slice(self, number: int) -> list[Chunk]:
        first, last = self.slices[number]
        count = max(1, (last - first + 1) // self.size)
        firsts = [first + n * self.size for n in range(count)]
        lasts = [each - 1 for each in firsts[1:]] + [last]
        ends = zip(firsts, lasts, strict=True)
        return [Chunk(number, n, count, one, other) for n, (one, other) in enumerate(ends)]

    def to_json(self) -> dict[str, Any]:
        """The plan as it is recorded."""
        return {
            "format": FORMAT,
            "phase": self.phase,
            "start": self.start,
            "end": self.end,
            "size": self.size,
            "slices": [list(each) for each in self.slices],
        }

    @classmethod
    def parse(cls, value: object, where: str) -> Self:
        """Read a recorded plan.

        Raises
        ------
        PlanError
            When it is none, or its slices are not the range in order.
        """
        try:
            if not isinstance(value, Mapping) or value["format"] != FORMAT:
                raise ValueError("no plan of this format")
            start, end, size = value["start"], value["end"], value["size"]
            slices = tuple((first, last) for first, last in value["slices"])
            if not all(type(n) is int for n in (start, end, size, *sum(slices, ()))):
                raise ValueError("a number is none")
            plan = cls(str(value["phase"]), start, end, size, slices)
            plan._check()
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(f"{where}: no plan that can be read: {error}") from None
        return plan

    def _check(self) -> None:
        if self.size < 1 or self.start < 0 or not self.slices:
            raise ValueError("nothing in it")
        check_phase(self.phase)
        edges = [self.start - 1, *(last for _, last in self.slices)]
        firsts = [first for first, _ in self.slices]
        if firsts != [edge + 1 for edge in edges[:-1]] or edges[-1] != self.end:
            raise ValueError("its slices do not cover the range in order")
        if any(last < first for first, last in self.slices):
            raise ValueError("a slice is empty")


@dataclass(frozen=True, slots=True)
class Share:
    """The chunks of a plan that one of several makes.

    Attributes
    ----------
    number, of : int
        Which of how many, from 0.
    """

    number: int
    of: int

    def chunks(self, plan: Plan) -> tuple[Chunk, ...]:
        """Its chunks."""
        return tuple(plan.chunks()[self.number :: self.of])


def run_name(phase: str, start: int) -> str:
    """The folder of a run's artifacts."""
    return f"phase{check_phase(phase).replace('.', '_')}_{start}"


def plan_record(run: str) -> str:
    """The name of the record that holds a run's plan."""
    return f"{run}/plan.json"


def check_phase(phase: str) -> str:
    """A phase's name: letters, digits, dots and underscores.

    Raises
    ------
    OptionError
        For another one.
    """
    plain = phase.replace(".", "").replace("_", "")
    if not plain.isascii() or not plain.isalnum() or phase != phase.strip("._"):
        raise OptionError(f"phase {phase!r}: expected a name such as 1, 3.5 or embed")
    return phase


def slices_text(plan: Plan) -> Sequence[str]:
    """What each slice covers, a line each."""
    return [
        f"GPU {n}: Processing chunks for range {first}-{last}"
        for n, (first, last) in enumerate(plan.slices)
    ]
