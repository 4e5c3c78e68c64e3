"""Megatron-LM's indexed dataset: ``train.bin`` and ``train.idx``, one sequence a document.

The index is little-endian, without gaps:

==========================  ========================================================================
``MMIDIDX`` and two zeros   nine bytes
version                     uint64: 1
type                        uint8: how tokens are stored, 1 uint8, 4 int32, 8 uint16
sequences                   uint64: n
documents                   uint64: n + 1, how many numbers the last part has
lengths                     int32, n of them: tokens of each sequence
pointers                    int64, n of them: where each begins in ``.bin``, in bytes
document indices            int64, n + 1 of them: at which sequence each document begins; then n
==========================  ========================================================================

Source: ``_IndexWriter`` and ``_IndexReader`` of ``megatron/core/datasets/indexed_dataset.py`` in
https://github.com/NVIDIA/Megatron-LM at 00caa53. It has no uint32; of the same bytes int32 makes
the same tokens, all of which are below 2**31.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from datasets_prep.errors import OptionError
from datasets_prep.formats.raw import RawWriter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from datasets_prep.tokenizers.protocol import Lengths, Tokens

_MAGIC: Final = b"MMIDIDX\x00\x00"
_HEADER: Final = struct.Struct("<9sQBQQ")
_CODES: Final = {"uint8": 1, "uint16": 8, "uint32": 4}
_WIDTHS: Final = {"uint8": 1, "uint16": 2, "uint32": 4}  # bytes
_LONGEST: Final = (1 << 31) - 1  # tokens of a document
_CHUNK: Final = 1 << 18  # lengths that are read at once


class MegatronWriter(RawWriter):
    """Writes ``train.bin`` and ``train.idx``; lengths wait in an unnamed file beside them."""

    first = ("{}.bin", "{}.idx")

    def _open(self) -> None:
        super()._open()
        self._lengths = self._files.enter_context(_unnamed(self.folder))

    def _write(self, tokens: Tokens, lengths: Lengths) -> None:
        super()._write(tokens, lengths)
        self._lengths.write(_lengths32(lengths).data)

    def _finish(self) -> None:
        self._lengths.seek(0)
        path = self.folder / f"{self.split}.idx"
        write_index(path, self.dtype, _read(self._lengths), self.documents)


def write_index(
    path: Path, dtype: str, lengths: Iterable[NDArray[np.integer[Any]]], documents: int
) -> None:
    """Write the index of a ``.bin`` that is there already, or is composed of shards.

    Parameters
    ----------
    path : Path
        The ``.idx``.
    dtype : str
        How the tokens are stored: ``uint8``, ``uint16`` or ``uint32``.
    lengths : iterable of ndarray
        How many tokens each document has, in their order; read once.
    documents : int
        How many there are.

    Raises
    ------
    OptionError
        When there are not as many lengths, or one has more than 31 bits.
    """
    import numpy as np

    sizes, pointers = _HEADER.size, _HEADER.size + 4 * documents
    done, begin = 0, 0
    with path.open("wb") as file:
        file.write(_HEADER.pack(_MAGIC, 1, _CODES[dtype], documents, documents + 1))
        for part in lengths:
            chunk = _lengths32(part)
            ends = begin + np.cumsum(chunk, dtype="<i8") * _WIDTHS[dtype]
            if done + len(chunk) > documents:
                raise OptionError(f"{path.name}: more than {documents} lengths")
            _put(file, sizes + 4 * done, chunk)
            _put(file, pointers + 8 * done, ends - chunk.astype("<i8") * _WIDTHS[dtype])
            done += len(chunk)
            begin = int(ends[-1]) if len(ends) else begin
        if done != documents:
            raise OptionError(f"{path.name}: {done} lengths, expected {documents}")
        file.seek(pointers + 8 * documents)
        for first in range(0, documents + 1, _CHUNK):
            last = min(first + _CHUNK, documents + 1)
            file.write(np.arange(first, last, dtype="<i8").data)


def _unnamed(folder: Path) -> AbstractContextManager[BinaryIO]:
    return tempfile.TemporaryFile(dir=folder)


def _put(file: BinaryIO, offset: int, numbers: NDArray[Any]) -> None:
    file.seek(offset)
    file.write(numbers.data)


def _lengths32(lengths: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    import numpy as np

    if len(lengths) and int(lengths.max()) > _LONGEST:
        raise OptionError(f"a document of {lengths.max()} tokens; expected {_LONGEST} at most")
    return np.ascontiguousarray(lengths, dtype="<i4")


def _read(file: BinaryIO) -> Iterator[NDArray[np.int32]]:
    import numpy as np

    while data := file.read(4 * _CHUNK):
        yield np.frombuffer(data, dtype="<i4")
