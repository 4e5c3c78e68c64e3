"""NumPy's format in shards: one array of tokens a file, each but the last of the same length.

Source: "NPY format", version 1.0, https://numpy.org/doc/stable/reference/generated/
numpy.lib.format.html. The header is written first with room to grow, and again when the length is
known.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from datasets_prep.errors import OptionError
from datasets_prep.formats.writing import SplitWriter
from datasets_prep.meta import TYPES

if TYPE_CHECKING:
    from datasets_prep.tokenizers.protocol import Lengths, Tokens

SHARD: Final = 100_000_000  # tokens


class NpyWriter(SplitWriter):
    """Writes ``train_000000.npy`` and so on; a split without tokens has one of none.

    Parameters
    ----------
    folder, split, dtype
        See `SplitWriter`.
    shard : int
        Tokens of each file but the last.
    """

    first = ("{}_000000.npy",)

    def __init__(self, folder: Path, split: str, dtype: str, shard: int = SHARD) -> None:
        super().__init__(folder, split, dtype)
        if shard < 1:
            raise OptionError(f"shards of {shard} tokens: expected at least 1")
        self._shard = shard
        self._count = 0
        self._room = 0
        self._file: BinaryIO
        self._open_file = ExitStack()

    def _open(self) -> None:
        self._files.enter_context(self._open_file)
        self._next()

    def _write(self, tokens: Tokens, lengths: Lengths) -> None:
        del lengths
        begin = 0
        while begin < len(tokens):
            if not self._room:
                self._finish()
                self._next()
            part = tokens[begin : begin + self._room]
            self._file.write(part.data)
            self._room -= len(part)
            begin += len(part)

    def _next(self) -> None:
        self._open_file.close()
        path = self.folder / f"{self.split}_{self._count:06}.npy"
        self._file = self._open_file.enter_context(path.open("wb"))
        self._count += 1
        self._room = self._shard
        self._header()

    def _finish(self) -> None:
        end = self._file.tell()
        self._file.seek(0)
        self._header()
        self._file.seek(end)

    def _header(self) -> None:
        from numpy.lib import format as npy

        shape = (self._shard - self._room,)
        header = {"descr": TYPES[self.dtype], "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self._file, header)
