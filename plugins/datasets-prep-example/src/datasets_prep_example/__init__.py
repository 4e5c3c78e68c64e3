"""TinyStories for datasets-prep: where the documents are, and which of them are validation."""

from __future__ import annotations

from datasets_prep.preparers.corpus import Corpus
from datasets_prep.splits import Given

__all__ = ["TinyStories"]


class TinyStories(Corpus):
    """Short stories for small models, with files of their own for validation."""

    name = "tinystories"
    title = "TinyStories"
    location = "hf://datasets/roneneldan/TinyStories/data"
    split = Given(("train*",), ("validation*",))
    about = "1 GB to read, 1 GB prepared"
