"""One conversion: found as it is, restored, or else written, compared, published and promoted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from datasets_prep.console import Console
from datasets_prep.errors import OptionError, SourceError, reason
from datasets_prep.tabular import json_rows, other_rows
from datasets_prep.tabular.grouping import write
from datasets_prep.tabular.inputs import JSON, Inputs, inputs
from datasets_prep.tabular.options import ParquetOptions
from tieredstore import (
    ArtifactNotFound,
    ConfigError,
    Got,
    NoSuchFile,
    Recipe,
    RecipeConflict,
    TieredStore,
    local_tier,
    open_source,
    open_store,
)

if TYPE_CHECKING:
    import pyarrow as pa

VERSION: Final = "1"  # changes whenever the same input and options give other bytes
_EACH: Final = 10.0  # seconds between two lines of progress


@dataclass(frozen=True, slots=True)
class Converted:
    """A Parquet file that is there now.

    Attributes
    ----------
    path : Path
        The file.
    rows, groups : int
        How many rows and row groups it has.
    made : bool
        Whether it was written now.
    """

    path: Path
    rows: int
    groups: int
    made: bool


def to_parquet(
    location: str,
    target: str | os.PathLike[str],
    options: ParquetOptions | None = None,
    console: Console | None = None,
) -> Converted:
    """Convert tables in other formats to one Parquet file.

    Parameters
    ----------
    location : str
        JSON, JSON lines or CSV (each also with gzip or zstd), a folder of them, or a dataset that
        `datasets` saved; wherever `tieredstore.open_source` finds it.
    target : path
        The file, which is published as an artifact of its folder.
    options : ParquetOptions, optional
        The usual ones by default.
    console : Console, optional
        Told what happens; prints by default.

    Raises
    ------
    OptionError
        For an option that does not go with the input, and a file that something else made.
    SourceError
        When the input cannot be read, or a record does not fit: with the file and the line.
    MergeError
        When what was written is not what was read.
    """
    return _Conversion(location, Path(target), options or ParquetOptions(), console).run()


class _Conversion:
    """One conversion."""

    def __init__(
        self, location: str, target: Path, options: ParquetOptions, console: Console | None
    ) -> None:
        self._options = options
        self._console = console or Console()
        self._target = Path(os.path.abspath(target))
        if self._target.is_dir():
            raise OptionError(f"{target}: is a folder, expected a file such as rows.parquet")
        try:
            self._inputs: Inputs = inputs(open_source(location), options.split)
        except ConfigError as error:
            raise OptionError(str(error)) from None
        except FileNotFoundError as error:
            raise SourceError(f"{location}: {reason(error)}") from None
        first = local_tier(self._target.parent)
        self._store: TieredStore = open_store(options.config, first=first, reporter=self._console)

    def run(self) -> Converted:
        name = self._target.name
        recipe = Recipe("parquet", VERSION, self._options.recipe(), self._inputs.tags())
        got = None if self._options.force else self._found(name, recipe)
        if got is not None:
            with got:
                facts = got.recipe.facts if got.recipe else {}
                self._console.line(f"✅ {self._target} is there already")
                return Converted(self._target, facts["rows"], facts["groups"], made=False)
        schema = self._schema()
        with self._store.create_file(name, recipe) as stage:
            done = write(stage.file, schema, self._tables(schema), self._options)
            stage.facts.update(rows=done.rows, groups=done.groups, source=self._inputs.source.shown)
        self._promote(name)
        self._console.line(f"✅ {self._target}: {done.rows:,} rows in {done.groups:,} row groups")
        return Converted(self._target, done.rows, done.groups, made=True)

    def _found(self, name: str, recipe: Recipe) -> Got | None:
        here = self._store.tiers[0].locate(name)
        if self._target.exists() and here.recipe is None:
            raise OptionError(
                f"{self._target}: is there already, and nobody knows what it was made from; "
                f"name another file, or replace it with --force"
            )
        try:
            return self._store.restore(name, recipe=recipe)
        except (ArtifactNotFound, NoSuchFile):
            return None

    def _promote(self, name: str) -> None:
        try:
            self._store.promote(name, replace=self._options.force)
        except RecipeConflict:
            return  # the reporter has been told

    def _schema(self) -> pa.Schema:
        rows = json_rows if self._inputs.kind == JSON else other_rows
        return rows.schema_of(self._inputs, self._options)

    def _tables(self, schema: pa.Schema) -> Iterator[pa.Table]:
        rows = json_rows if self._inputs.kind == JSON else other_rows
        count, told = 0, time.monotonic()
        for number, path in enumerate(self._inputs.paths, 1):
            for table in rows.tables(self._inputs, path, schema, self._options):
                yield table
                count += table.num_rows
                if time.monotonic() - told > _EACH:
                    told = time.monotonic()
                    of = f"file {number:,} of {len(self._inputs.paths):,}"
                    self._console.line(f"🔄 {count:,} rows, {of}")
