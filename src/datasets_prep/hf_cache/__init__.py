"""Caches of Hugging Face ``datasets`` that never collide: built once, and a private one a job.

::

    from datasets_prep import hf_cache

    dataset = hf_cache.load("test.json", field="test")  # in place of load_dataset

    with hf_cache.job_cache():  # or a cache of this process's own, for what calls load_dataset
        ...

Needs the extra ``caches``. ``datasets`` is loaded when something is built, opened or named.
"""

from __future__ import annotations

from datasets_prep.hf_cache.advising import Advice, advise
from datasets_prep.hf_cache.getting import load, open_cache_store
from datasets_prep.hf_cache.jobs import JobCache, job_cache
from datasets_prep.hf_cache.prebuilding import Summary, prebuild

__all__ = [
    "Advice",
    "JobCache",
    "Summary",
    "advise",
    "job_cache",
    "load",
    "open_cache_store",
    "prebuild",
]
