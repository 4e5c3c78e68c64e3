"""What this package raises on purpose; each also inherits the builtin that a caller would catch.

::

    PrepError
    ├── OptionError             ValueError   an option that cannot be used
    │   ├── InvalidJob                       a job that cannot be expressed or checked
    │   └── UnknownDataset                   no preparer of that name
    ├── PlanError               ValueError   a plan that does not fit, or cannot be read
    ├── ChunksFailed            RuntimeError chunks that could not be made, or are missing
    ├── MergeError              ValueError   outputs that cannot become one
    ├── MetaError               ValueError   a meta.pkl that is no plain data
    ├── ArchiveError            ValueError   an archive that is damaged, or holds what is refused
    ├── VerificationFailed      ValueError   files that are not what a specification says
    ├── DownloadError           OSError      a download that cannot be begun, or ended
    ├── SourceError             OSError      an input that cannot be had, or is another one
    ├── CacheError              OSError      a cache of `datasets` that cannot be built or used
    │   └── FieldMissing                     the data file has no field of that name
    ├── SlurmFailed             OSError      SLURM refuses, or does not answer in time
    │   └── NoSlurm                          there is none, or its controller is down
    └── VocabularyUnavailable   OSError      a tokenizer's vocabulary cannot be loaded
"""

from __future__ import annotations


class PrepError(Exception):
    """Base of everything that this package raises on purpose."""


class OptionError(PrepError, ValueError):
    """An option that cannot be used."""


class UnknownDataset(OptionError):
    """No preparer has that name."""


class PlanError(PrepError, ValueError):
    """A plan of chunks that cannot be read, or is not the one that is asked for."""


class ChunksFailed(PrepError, RuntimeError):
    """Chunks could not be made, or are missing where all are needed."""


class InvalidJob(OptionError):
    """A job, its configuration or its template cannot be used."""


class SlurmFailed(PrepError, OSError):
    """A command of SLURM's fails, or does not answer in time."""


class NoSlurm(SlurmFailed):
    """There is no SLURM here, or nobody answers for it."""


class MergeError(PrepError, ValueError):
    """Outputs of chunks that cannot become one, or did not become what they were."""


class MetaError(PrepError, ValueError):
    """A ``meta.pkl`` that is damaged, too large, or more than plain data."""


class ArchiveError(PrepError, ValueError):
    """An archive is damaged, too large, or holds what is refused; the message names the member."""


class VerificationFailed(PrepError, ValueError):
    """Files are not what a specification says of them."""


class DownloadError(PrepError, OSError):
    """A download that cannot be begun, or does not come to its end."""


class SourceError(PrepError, OSError):
    """An input that cannot be had, or is not the one that was expected."""


class CacheError(PrepError, OSError):
    """A cache of Hugging Face ``datasets`` cannot be built, or is not whole."""


class FieldMissing(CacheError):
    """A data file has no field of the name that was asked for."""


class VocabularyUnavailable(PrepError, OSError):
    """A tokenizer's vocabulary is neither in its cache nor to be had from the internet."""


def reason(error: BaseException) -> str:
    """Say in one line why something failed."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())
