"""Compressed files: the compressor or decompressor, and the file behind it, closed together."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any


class Compressed(io.BufferedIOBase):
    """What a codec of fsspec's makes of a file.

    Parameters
    ----------
    codec : file object
        Reads or writes the file compressed.
    file : file object
        The file; closed, or discarded, with this object.
    """

    def __init__(self, codec: Any, file: Any) -> None:
        self._codec = codec
        self._file = file

    def readable(self) -> bool:
        """Whether it is read."""
        return bool(self._file.readable()) and not hasattr(self._file, "discard")

    def writable(self) -> bool:
        """Whether it is written."""
        return hasattr(self._file, "discard")

    def seekable(self) -> bool:
        """As far as the codec can."""
        return bool(self._codec.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere else in what is not compressed."""
        return int(self._codec.seek(offset, whence))

    def tell(self) -> int:
        """Where the next byte is, of what is not compressed."""
        return int(self._codec.tell())

    def read(self, size: int | None = -1) -> bytes:
        """Bytes, decompressed."""
        return bytes(self._codec.read(-1 if size is None else size))

    def read1(self, size: int = -1) -> bytes:
        """Bytes, decompressed; no more than is easily had."""
        return bytes(getattr(self._codec, "read1", self._codec.read)(size))

    def write(self, data: Any) -> int:
        """Compress."""
        return int(self._codec.write(data))

    def close(self) -> None:
        """End what is compressed, and close the file."""
        if not self.closed:
            super().close()
            self._codec.close()
            self._file.close()

    def discard(self) -> None:
        """Drop what was written."""
        self._file.discard()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close it, or drop what was written when the block has raised."""
        if kind is not None and self.writable():
            self.discard()
            with suppress(ValueError, OSError):
                self._codec.close()
        self.close()

    def __del__(self) -> None:
        """Drop what was written, where nobody has closed it."""
        if not self.closed and self.writable():
            self.discard()
        with suppress(ValueError, OSError):
            self.close()
