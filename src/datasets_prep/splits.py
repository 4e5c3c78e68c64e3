"""Which documents are for training and which for validation, and in which order: rules only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from datasets_prep.errors import SourceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

SPLITS: Final = ("train", "val")


@dataclass(frozen=True, slots=True)
class Drawn:
    """Validation is drawn from all documents, and the rest is put into a random order.

    The documents are ``numpy.random.default_rng(seed).permutation(n)``; the first
    ``ceil(share * n)`` of them are validation. That is what ``train_test_split`` of Hugging Face's
    ``datasets`` does, and so nanoGPT. Unshuffled, documents stay in their order and the last
    ``ceil(share * n)`` are validation, as it does with ``shuffle=False``.

    Attributes
    ----------
    share : float
        Of all documents, for validation.
    seed : int
        Of the permutation.
    """

    share: float = 0.0005
    seed: int = 2357

    def __str__(self) -> str:
        return f"drawn, {self.share:g} with seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Given:
    """Each split has files of its own; documents stay in their order.

    Attributes
    ----------
    train, val : tuple of str
        Patterns of paths, such as ``train/*``.
    """

    train: tuple[str, ...] = ("*train*",)
    val: tuple[str, ...] = ("*val*", "*dev*")

    def __str__(self) -> str:
        return f"given, train {' '.join(self.train)}, val {' '.join(self.val)}"


Rule = Drawn | Given


@dataclass(frozen=True, slots=True)
class Run:
    """Documents in their order: from ``start`` up to, not including, ``end``."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def first(self, count: int) -> Run:
        """The first so many of them."""
        return Run(self.start, self.start + count)


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Documents in an order of their own, by their numbers."""

    numbers: Numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def first(self, count: int) -> Shuffled:
        """The first so many of them."""
        return Shuffled(self.numbers[:count])


Order = Run | Shuffled


def drawn(rule: Drawn, documents: int, *, shuffle: bool) -> dict[str, Order]:
    """The splits of so many documents.

    Raises
    ------
    SourceError
        When there are too few for two splits.
    """
    from math import ceil

    count = ceil(rule.share * documents)
    if documents - count < 1:
        raise SourceError(
            f"{documents} documents, of which {count} are validation: none are left for training"
        )
    if not shuffle:
        return {"train": Run(0, documents - count), "val": Run(documents - count, documents)}
    import numpy as np

    numbers = np.random.default_rng(rule.seed).permutation(documents)
    return {"train": Shuffled(numbers[count:]), "val": Shuffled(numbers[:count])}


def given(train: int, val: int) -> dict[str, Order]:
    """The splits of files of which the first hold ``train`` documents, the others ``val``.

    Raises
    ------
    SourceError
        When one is empty.
    """
    for split, count in (("train", train), ("val", val)):
        if not count:
            raise SourceError(f"the files of the {split} split hold no documents")
    return {"train": Run(0, train), "val": Run(train, train + val)}


def subset_of(orders: dict[str, Order], share: float) -> dict[str, Order]:
    """The first ``share`` of each split, at least one document."""
    return {split: order.first(max(1, int(len(order) * share))) for split, order in orders.items()}
