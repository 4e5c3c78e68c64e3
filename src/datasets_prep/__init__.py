"""Training data prepared once, kept by tieredstore, found by training scripts.

::

    from datasets_prep import find_dataset

    folder = find_dataset("shakespeare")
"""

from __future__ import annotations

from datasets_prep.download import Downloaded, DownloadOptions, download
from datasets_prep.errors import (
    MetaError,
    OptionError,
    PrepError,
    SourceError,
    UnknownDataset,
    VocabularyUnavailable,
)
from datasets_prep.finding import find_dataset
from datasets_prep.meta import token_type
from datasets_prep.options import add_num_proc_arg, get_common_parser
from datasets_prep.prep import DataPrep
from datasets_prep.preparers import Choice, Preparer
from datasets_prep.preparers.corpus import Corpus
from datasets_prep.preparing import Prepared, PrepareOptions, prepare
from datasets_prep.sources import Source
from datasets_prep.splits import Drawn, Given

__all__ = [
    "Choice",
    "Corpus",
    "DataPrep",
    "DownloadOptions",
    "Downloaded",
    "Drawn",
    "Given",
    "MetaError",
    "OptionError",
    "PrepError",
    "PrepareOptions",
    "Prepared",
    "Preparer",
    "Source",
    "SourceError",
    "UnknownDataset",
    "VocabularyUnavailable",
    "add_num_proc_arg",
    "download",
    "find_dataset",
    "get_common_parser",
    "prepare",
    "token_type",
]
