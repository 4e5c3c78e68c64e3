"""What is asked for, and how ``datasets`` itself calls it: the key of its cache entry.

Nothing of its naming is repeated here: its own builder is asked, in a private folder.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from datasets_prep.errors import CacheError, OptionError, reason
from datasets_prep.hf_cache.source import Source

JSON: Final = "json"


@dataclass(frozen=True, slots=True)
class Request:
    """What ``load_dataset(builder, data_files=path, **options)`` asks for.

    Attributes
    ----------
    path : str
        A data file, absolute.
    builder : str
        A builder that ``datasets`` has built in: ``json``, ``csv``, ``parquet``, ``text``.
    options : mapping
        What else the builder is given: ``{"field": "test"}``.
    """

    path: str
    builder: str = JSON
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, path: str | os.PathLike[str], field: str | None = None, **others: Any) -> Self:
        """A request as people write it; without a field the whole file is asked for.

        Raises
        ------
        OptionError
            For options that are no plain JSON values.
        """
        builder = others.pop("builder", JSON)
        options = others if field is None else {"field": field, **others}
        try:
            json.dumps(options)
        except (TypeError, ValueError):
            raise OptionError(
                f"options {options!r}: expected plain values, of which a key can be made"
            ) from None
        return cls(os.path.abspath(os.path.expanduser(path)), builder, options)

    @property
    def shown(self) -> str:
        """The path, and which field of it."""
        named = self.options.get("field")
        return self.path if named is None else f"{self.path} (field {named!r})"


@dataclass(frozen=True, slots=True)
class Key:
    """How ``datasets`` calls a request.

    Attributes
    ----------
    entry : str
        The folder of its cache entry, below ``HF_DATASETS_CACHE``:
        ``json/default-…/0.0.0/…``. It follows from path, time of modification and options.
    module : str
        The digest of the builder's code.
    """

    entry: str
    module: str


def builder_of(request: Request, private: str) -> Any:
    """The builder of ``datasets`` for a request.

    Parameters
    ----------
    request : Request
        What is asked for.
    private : str
        A folder that nobody else works in, as its cache; it locks what it does there.

    Raises
    ------
    SourceError
        When there is no such file.
    CacheError
        When ``datasets`` knows no such builder or option.
    """
    Source.of(request.path)
    import datasets

    try:
        return datasets.load_dataset_builder(
            request.builder, data_files=request.path, cache_dir=private, **request.options
        )
    except (ValueError, TypeError, OSError) as error:
        raise CacheError(f"{request.shown}: refused by datasets: {reason(error)}") from None


def key_of(request: Request) -> Key:
    """Ask ``datasets`` how it calls a request.

    Raises
    ------
    SourceError, CacheError
        As `builder_of` says.
    """
    with tempfile.TemporaryDirectory(prefix="datasets-prep-") as private:
        builder = builder_of(request, private)
        return Key(os.path.relpath(builder.cache_dir, private), str(builder.hash))
