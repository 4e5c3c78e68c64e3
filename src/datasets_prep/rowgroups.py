"""Row groups of a Parquet file: a digest of what is written to each, and the file compared with it.

What is published has been read once as readers will read it.
"""

from __future__ import annotations

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
    """Its rows, and a digest of the values, not of how they happen to lie in memory or a file.

    What memory holds below a null or behind the last value is no value, and differs from one
    reader to the next.
    """
    import pyarrow as pa

    total = xxhash.xxh3_128()
    for field, column in zip(piece.schema, piece.columns, strict=True):
        total.update(f"{field.name}\0{field.type}\0".encode())
        whole = column.combine_chunks()
        for array in whole.chunks if isinstance(whole, pa.ChunkedArray) else [whole]:
            _feed(total, array)
    return piece.num_rows, total.hexdigest()


def _feed(total: Any, array: pa.Array) -> None:
    """Where an array has nulls; then what it has elsewhere."""
    import numpy as np
    import pyarrow as pa

    array = _plain(array)
    kind = array.type
    total.update(f"{len(array)}\0{array.null_count}\0".encode())
    valid: Any = slice(None)
    if array.null_count:
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        total.update(np.packbits(valid).data)
    if pa.types.is_struct(kind):
        for each in array.flatten():
            _feed(total, each)
    elif isinstance(array, pa.ListArray | pa.LargeListArray):
        lengths = np.diff(array.offsets.to_numpy()).astype("<i8")[valid]
        total.update(lengths.data)
        _feed(total, array.flatten())
    elif pa.types.is_fixed_size_list(kind):
        _feed(total, array.flatten())
    elif not pa.types.is_null(kind):
        _feed_values(total, array.drop_null())


def _plain(array: pa.Array) -> pa.Array:
    """The same values without a type that is another one's, or refers to them."""
    import pyarrow as pa

    if isinstance(array, pa.ExtensionArray):
        return _plain(array.storage)
    if isinstance(array, pa.DictionaryArray):
        return array.dictionary_decode()
    if isinstance(array, pa.StringViewArray | pa.BinaryViewArray):
        return array.cast(pa.large_binary())
    if isinstance(array, pa.MapArray):
        return array.cast(pa.list_(pa.struct([array.type.key_field, array.type.item_field])))
    if isinstance(array, pa.ListViewArray | pa.LargeListViewArray):
        return pa.array(array.to_pylist(), pa.large_list(array.type.value_type))  # no cast is right
    return array


def _feed_values(total: Any, array: pa.Array) -> None:
    """Values that are no lists or structs, without nulls."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_boolean(kind):
        total.update(np.packbits(array.to_numpy(zero_copy_only=False)).data)
        return
    try:
        width = kind.bit_width // 8
    except ValueError:  # texts and bytes, each as long as it is
        array = array.cast(pa.large_binary())
        total.update(pc.binary_length(array).to_numpy().astype("<i8").data)
        _, places, data = array.buffers()
        ends = np.frombuffer(places, "<i8")[array.offset : array.offset + len(array) + 1]
        if data is not None and len(ends):
            total.update(memoryview(data)[int(ends[0]) : int(ends[-1])])
        return
    if len(array):
        data = memoryview(array.buffers()[1])
        total.update(data[array.offset * width : (array.offset + len(array)) * width])


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
