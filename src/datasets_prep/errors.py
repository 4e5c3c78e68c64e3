"""What this package raises on purpose; each also inherits the builtin that a caller would catch.

::

    PrepError
    ├── OptionError             ValueError   an option that cannot be used
    │   └── UnknownDataset                   no preparer of that name
    ├── MetaError               ValueError   a meta.pkl that is no plain data
    ├── SourceError             OSError      an input that cannot be had, or is another one
    └── VocabularyUnavailable   OSError      a tokenizer's vocabulary cannot be loaded
"""

from __future__ import annotations


class PrepError(Exception):
    """Base of everything that this package raises on purpose."""


class OptionError(PrepError, ValueError):
    """An option that cannot be used."""


class UnknownDataset(OptionError):
    """No preparer has that name."""


class MetaError(PrepError, ValueError):
    """A ``meta.pkl`` that is damaged, too large, or more than plain data."""


class SourceError(PrepError, OSError):
    """An input that cannot be had, or is not the one that was expected."""


class VocabularyUnavailable(PrepError, OSError):
    """A tokenizer's vocabulary is neither in its cache nor to be had from the internet."""


def reason(error: BaseException) -> str:
    """Say in one line why something failed."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())
