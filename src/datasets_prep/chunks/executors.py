"""A run on any executor in the style of `concurrent.futures`: submitit, Dask, Ray, a pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from datasets_prep.chunks.engine import RunOptions, begin
from datasets_prep.chunks.phases import Phase
from datasets_prep.chunks.plan import Share
from datasets_prep.chunks.running import Outcome
from tieredstore import open_store


class Executor(Protocol):
    """What has a ``submit`` that gives a future."""

    def submit(self, call: Callable[..., Outcome], /, *args: Any) -> Any:
        """Call it somewhere, with these arguments."""


def submit(
    executor: Executor,
    phase: Phase,
    start: int,
    end: int,
    parts: int,
    options: RunOptions | None = None,
) -> list[Any]:
    """Make a range on an executor, a part of its chunks in each call.

    Parameters
    ----------
    executor : Executor
        Where calls are made; all see the same shared or durable tier.
    phase : Phase
        How items are made.
    start, end : int
        The first and the last item.
    parts : int
        In how many calls.
    options : RunOptions, optional
        How each of them works.

    Returns
    -------
    list of future
        Each gives an `Outcome`.
    """
    options = options or RunOptions()
    begin(phase, start, end, options, open_store(options.config))  # the plan, before any of them
    shares = [replace(options, share=Share(number, parts)) for number in range(parts)]
    return [executor.submit(_part, phase, start, end, each) for each in shares]


def _part(phase: Phase, start: int, end: int, options: RunOptions) -> Outcome:
    return begin(phase, start, end, options, open_store(options.config)).run()
