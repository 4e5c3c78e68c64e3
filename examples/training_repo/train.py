"""Trains a small language model on a prepared dataset and prints its loss.

    python train.py config/train_shakespeare.py --max_iters=50

The data is found here, restored from another tier, or else prepared; then it is read through
np.memmap, a few tokens at a time.
"""

import sys
import time
from dataclasses import dataclass

import numpy as np
from configurator import configure_or_exit
from model import Adam, NGramModel, Tokens

from datasets_prep import find_dataset, token_type
from tieredstore import TieredStoreError

VOCABULARY_FROM = 10_000_000  # tokens; what occurs only later counts as unknown


@dataclass(frozen=True)
class Settings:
    """What config files and ``--key=value`` may set."""

    dataset: str = "shakespeare"
    data_root: str = "data"
    max_iters: int = 1000
    eval_interval: int = 100  # iterations
    eval_iters: int = 10  # batches of each split
    log_interval: int = 10
    batch_size: int = 256
    context: int = 12  # tokens that the next one is predicted from
    width: int = 24  # numbers for each token
    hidden: int = 128
    learning_rate: float = 3e-3
    seed: int = 1337

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if type(value) is int and value < (0 if key == "seed" else 1):
                raise ValueError(f"{key} is {value}, expected at least 1")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate is {self.learning_rate}, expected between 0 and 1")


class Batches:
    """Random batches of one split, its tokens numbered by a vocabulary."""

    def __init__(self, tokens: Tokens, known: Tokens, settings: Settings, seed: int) -> None:
        if len(tokens) <= settings.context:
            sys.exit(
                f"error: {len(tokens)} tokens, expected more than the context of "
                f"{settings.context}; prepare a larger subset"
            )
        self._tokens = tokens
        self._known = known
        self._size = settings.batch_size
        self._window = np.arange(settings.context + 1)
        self._random = np.random.default_rng(seed)

    def next(self) -> tuple[Tokens, Tokens]:
        """Contexts and the token that follows each."""
        last = len(self._tokens) - len(self._window)
        starts = self._random.integers(0, last + 1, self._size)
        found = self._tokens[starts[:, None] + self._window]
        places = np.searchsorted(self._known, found)
        near = np.minimum(places, len(self._known) - 1)
        numbers = np.where(self._known[near] == found, places, len(self._known))  # last: unknown
        return numbers[:, :-1], numbers[:, -1]


def mean_loss(model: NGramModel, batches: Batches, count: int) -> float:
    return sum(model.loss(*batches.next()) for _ in range(count)) / count


def open_splits(name: str, root: str) -> list[Tokens]:
    """The training and the validation split, mapped rather than read."""
    folder = find_dataset(name, root=root)
    print(f"data: {folder}")
    kind = token_type(folder)
    return [np.memmap(folder / f"{s}.bin", dtype=kind, mode="r") for s in ("train", "val")]


def train(settings: Settings, splits: list[Tokens]) -> None:
    known = np.unique(splits[0][:VOCABULARY_FROM])
    train_split, val_split = (
        Batches(tokens, known, settings, settings.seed + n) for n, tokens in enumerate(splits)
    )
    model = NGramModel(
        len(known) + 1, settings.context, settings.width, settings.hidden, settings.seed
    )
    adam = Adam(model.parameters, settings.learning_rate)
    size = sum(p.size for p in model.parameters.values())
    print(f"{len(splits[0]):,} tokens, {len(known):,} different; {size:,} parameters")

    spent = 0.0
    for step in range(settings.max_iters + 1):
        if step % settings.eval_interval == 0 or step == settings.max_iters:
            losses = [mean_loss(model, b, settings.eval_iters) for b in (train_split, val_split)]
            print(f"step {step}: train loss {losses[0]:.4f}, val loss {losses[1]:.4f}", flush=True)
        if step == settings.max_iters:
            break
        begin = time.perf_counter()
        loss, gradients = model.gradients(*train_split.next())
        adam.step(gradients)
        spent += time.perf_counter() - begin
        if step % settings.log_interval == 0:
            print(f"iter {step}: loss {loss:.4f}, {spent / (step + 1) * 1e3:.1f} ms an iteration")


def main() -> None:
    settings = configure_or_exit(Settings(), sys.argv[1:])
    try:
        splits = open_splits(settings.dataset, settings.data_root)
    except (TieredStoreError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    train(settings, splits)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
