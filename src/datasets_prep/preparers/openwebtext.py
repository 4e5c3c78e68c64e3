"""OpenWebText as nanoGPT has it: 8,013,769 documents, 0.05 % of them drawn for validation."""

from __future__ import annotations

from datasets_prep.preparers.corpus import Corpus
from datasets_prep.splits import Drawn


class OpenWebText(Corpus):
    """The validation documents and the order are those of nanoGPT."""

    name = "openwebtext"
    title = "OpenWebText"
    location = "hf://datasets/Skylion007/openwebtext"
    split = Drawn(0.0005, 2357)
    about = "24 GB to read, 18 GB prepared"
