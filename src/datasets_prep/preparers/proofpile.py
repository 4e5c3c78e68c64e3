"""Proof-Pile: mathematical text, with files of its own for validation."""

from __future__ import annotations

from datasets_prep.preparers.corpus import Corpus
from datasets_prep.splits import Given


class ProofPile(Corpus):
    """Documents stay in the order of the files."""

    name = "proofpile"
    title = "Proof-Pile"
    location = "hf://datasets/hoskinson-center/proof-pile"
    split = Given(("*train*",), ("*val*", "*dev*"))
    about = "17 GB to read, 19 GB prepared"
