"""Tables in other formats to one Parquet file, streamed, each record checked against the schema.

::

    from datasets_prep.tabular import ParquetOptions, to_parquet

    to_parquet("rows.jsonl.gz", "rows.parquet", ParquetOptions(columns=("id", "text")))
"""

from __future__ import annotations

from datasets_prep.tabular.converting import Converted, to_parquet
from datasets_prep.tabular.options import ParquetOptions

__all__ = ["Converted", "ParquetOptions", "to_parquet"]
