"""Row groups of a Parquet file: a digest of what is written to each, and the file compared with it.

What is published has been read once as readers will read it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import xxhash

from datasets_prep.errors import MergeError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Digest = tuple[int, str]
_BUFFER: Final = 1 << 20  # bytes of a column that are read at once
_READERS: Final = 2


def opened(path: Path) -> pq.ParquetFile:
    """A Parquet file, to be read a little at a time.

    Raises
    ------
    MergeError
        When it is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER)
    except (pa.ArrowException, OSError) as error:
        raise MergeError(f"{path}: no Parquet file: {' '.join(str(error).split())}") from None


def digest(piece: pa.Table) -> Digest:
    """Its rows, and a digest of the values, not of how they happen to lie in memory or a file."""
    import pyarrow as pa

    if any(column.num_chunks > 1 for column in piece.columns):
        piece = piece.combine_chunks()
    sink = _Digesting()
    with pa.ipc.new_stream(pa.PythonFile(sink, "w"), piece.schema) as stream:
        stream.write_table(piece)
    return piece.num_rows, sink.digest.hexdigest()


class _Digesting(io.RawIOBase):
    """A file that keeps nothing but a digest of what is written to it."""

    def __init__(self) -> None:
        self.digest = xxhash.xxh3_128()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return len(data)


def compare(target: Path, digests: Sequence[Digest]) -> None:
    """Read back what was written, on two processors, and compare it with what was read.

    Parameters
    ----------
    target : Path
        The file.
    digests : sequence
        Of each row group, as `digest` gave them.

    Raises
    ------
    MergeError
        When they differ.
    """
    with opened(target) as file:
        found = file.metadata.num_row_groups
    if found != len(digests):
        raise MergeError(f"{target.name}: {found} row groups written, expected {len(digests)}")
    with ThreadPoolExecutor(_READERS) as pool:
        shares = [range(first, found, _READERS) for first in range(_READERS)]
        list(pool.map(partial(_compare_some, target, digests), shares))


def _compare_some(target: Path, digests: Sequence[Digest], numbers: Iterable[int]) -> None:
    with opened(target) as file:
        for number in numbers:
            if digest(file.read_row_group(number, use_threads=False)) != digests[number]:
                raise MergeError(
                    f"{target.name}: row group {number} was written otherwise than it was read; "
                    f"write it again, and suspect the disk or the memory"
                )
