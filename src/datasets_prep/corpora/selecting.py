"""Which documents of which shard are needed for part of a corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datasets_prep.splits import Order, Run, Shuffled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]


def wanted_of(orders: Mapping[str, Order], counts: Sequence[int]) -> list[bytes]:
    """For each piece of so many documents the numbers of those that are needed, as bytes."""
    import numpy as np

    wanted = _needed(orders)
    firsts = np.cumsum([0, *counts])
    edges = wanted.searchsorted(firsts)
    return [
        (wanted[edges[n] : edges[n + 1]] - firsts[n]).astype("<i8").tobytes()
        for n in range(len(counts))
    ]


def renumbered(orders: Mapping[str, Order]) -> dict[str, Order]:
    """The same documents, numbered as if there were no others."""
    needed = _needed(orders)
    return {split: _renumbered(order, needed) for split, order in orders.items()}


def _renumbered(order: Order, needed: Numbers) -> Order:
    if isinstance(order, Shuffled):
        return Shuffled(needed.searchsorted(order.numbers))
    first = int(needed.searchsorted(order.start))
    return Run(first, first + len(order))


def _needed(orders: Mapping[str, Order]) -> Numbers:
    import numpy as np

    found: list[Any] = [
        order.numbers if isinstance(order, Shuffled) else np.arange(order.start, order.end)
        for order in orders.values()
    ]
    return np.sort(np.concatenate(found))
