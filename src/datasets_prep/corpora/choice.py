"""What was chosen of a corpus's options: plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CorpusChoice:
    """What was chosen of a corpus's options.

    Attributes
    ----------
    location : str
        The source.
    tokenizer : str
        By name.
    subset : float
        Which share of each split, from 0 (excluded) to 1; at least one document.
    num_proc : int
        Processes that work at once; results do not depend on it.
    shuffle : bool
        Whether drawn documents are put into their random order.
    skip_bad : int
        Documents that cannot be used which are passed over.
    keep_shards : bool
        Whether shards are promoted, and kept when the corpus is there.
    """

    location: str
    tokenizer: str
    subset: float = 1.0
    num_proc: int = 1
    shuffle: bool = True
    skip_bad: int = 0
    keep_shards: bool = False
