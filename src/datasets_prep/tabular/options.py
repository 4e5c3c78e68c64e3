"""What can be chosen of a conversion, checked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from datasets_prep.errors import OptionError

TYPES: Final = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float32",
    "float64",
    "string",
    "large_string",
)


@dataclass(frozen=True, slots=True)
class ParquetOptions:
    """How tables become a Parquet file.

    Attributes
    ----------
    field : str
        Where the array of records stands in a JSON object; keys inwards with dots between them.
    columns : tuple of str
        Only these, in this order; all by default.
    types : mapping
        Column to type (one of `TYPES`), for those whose first records do not show it.
    split : str
        Which split of a saved dataset that has several.
    group_rows : int
        Rows of a row group; 0: as many as have about 32 MiB.
    level : int
        Of zstd, from 1 to 22.
    force : bool
        Write anew even if the file is there, and replace what durable tiers have.
    config : path or None
        A configuration of the tiers, see `tieredstore.open_store`.

    Raises
    ------
    OptionError
        For a number out of range, a type that is none, and a column that is named twice.
    """

    field: str = ""
    columns: tuple[str, ...] = ()
    types: Mapping[str, str] = dataclasses.field(default_factory=dict)
    split: str = ""
    group_rows: int = 0
    level: int = 3
    force: bool = False
    config: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.group_rows < 0:
            raise OptionError(f"row groups of {self.group_rows} rows: expected at least 1")
        if not 1 <= self.level <= 22:  # noqa: PLR2004 - zstd's own limit
            raise OptionError(f"level {self.level}: expected 1 to 22")
        if len(set(self.columns)) != len(self.columns) or not all(self.columns):
            raise OptionError(f"columns {', '.join(self.columns)}: expected each name once")
        for column, name in self.types.items():
            if name not in TYPES:
                raise OptionError(f"type {name!r} of {column}: expected one of {', '.join(TYPES)}")
            if self.columns and column not in self.columns:
                raise OptionError(f"type of {column}: it is not among the columns")

    @property
    def path(self) -> tuple[str, ...]:
        """The keys of ``field``."""
        return tuple(self.field.split(".")) if self.field else ()

    def recipe(self) -> dict[str, Any]:
        """What changes the file's bytes."""
        return {
            "field": self.field,
            "columns": list(self.columns),
            "types": dict(self.types),
            "split": self.split,
            "group_rows": self.group_rows,
            "level": self.level,
        }
