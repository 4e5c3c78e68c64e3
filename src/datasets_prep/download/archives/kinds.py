"""What an archive is, told by its content: how it is compressed, and whether it is a tar or zip."""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from datasets_prep.download.archives.tar import is_tar
from datasets_prep.errors import ArchiveError

HEAD: Final = 1 << 20  # bytes that are looked at: a whole block of bzip2 has to be there
ZIP: Final = "zip"
TAR: Final = "tar"

_MEMORY: Final = 128 << 20  # bytes that a decompressor may take for what it remembers
_SKIPPABLE: Final = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # frames of zstd
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_LOOK: Final = 512


class Decompressor(Protocol):
    """What all of them have in common; as `bz2.BZ2Decompressor`."""

    @property
    def eof(self) -> bool:
        """Whether the compressed stream has come to its end."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes without further bytes."""

    @property
    def unused_data(self) -> bytes:
        """What came after the end."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Up to so many bytes of what comes of further ``data``."""


Made = tuple[Decompressor, tuple[type[Exception], ...]]


@dataclass(frozen=True, slots=True)
class Codec:
    """One way to compress.

    Attributes
    ----------
    name : str
        As file names end with it.
    begins : callable
        Whether bytes are the beginning of a compressed stream.
    make : callable
        A decompressor and the errors that it raises for what is damaged.
    padded : bool
        Whether zeros may come after the end.
    """

    name: str
    begins: Callable[[bytes], bool]
    make: Callable[[], Made]
    padded: bool = False


class _Zlib:
    """`zlib` with the manners of `bz2`: only used where `isal` is not installed."""

    def __init__(self) -> None:
        self._made = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._made.eof

    @property
    def needs_input(self) -> bool:
        return not self._made.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._made.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._made.decompress(self._made.unconsumed_tail + data, max(max_length, 0))


def _gzip() -> Made:
    try:
        from isal import igzip_lib, isal_zlib
    except ImportError:
        return _Zlib(), (zlib.error,)
    error: Any = isal_zlib.error  # its stub takes the class for an instance
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP), (error,)


def _bzip2() -> Made:
    return bz2.BZ2Decompressor(), (OSError, ValueError)


def _xz() -> Made:
    made = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
    return made, (lzma.LZMAError, ValueError)


def _zstd() -> Made:
    zstd = _zstd_module()
    most = {zstd.DecompressionParameter.window_log_max: _MEMORY.bit_length() - 1}
    return zstd.ZstdDecompressor(options=most), (zstd.ZstdError,)


def _zstd_module() -> Any:
    import importlib

    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ArchiveError("zstd: pip install 'tieredstore[download]', or repack it as tar.gz")


def _begins(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(magics)


def _begins_zstd(data: bytes) -> bool:
    return data.startswith(b"\x28\xb5\x2f\xfd") or _SKIPPABLE.match(data) is not None


CODECS: Final = (
    Codec("gz", _begins(b"\x1f\x8b"), _gzip, padded=True),
    Codec("bz2", _begins(*(b"BZh%d" % level for level in range(1, 10))), _bzip2),
    Codec("xz", _begins(b"\xfd7zXZ\x00"), _xz, padded=True),
    Codec("zst", _begins_zstd, _zstd),
)
_SUFFIXES: Final = {"gz": (".gz", ".gzip", ".tgz"), "zst": (".zst", ".zstd", ".tzst")}
_SHORT: Final = {".tgz", ".tbz2", ".tbz", ".txz", ".tzst"}


def codec_of(head: bytes) -> Codec | None:
    """How the stream that begins so is compressed, if it is."""
    return next((codec for codec in CODECS if codec.begins(head)), None)


def is_zip(head: bytes) -> bool:
    """Whether a zip archive begins so."""
    return head.startswith(_ZIP)


def kind_of(head: bytes, name: str = "") -> str:
    """What a file is that begins so.

    Parameters
    ----------
    head : bytes
        Its beginning: `HEAD` bytes, or all of a shorter file.
    name : str
        Its name, which decides only whether a tar archive is compressed in it when that cannot be
        seen in ``head``.

    Returns
    -------
    str
        ``tar``, ``zip``, ``tar.gz``, ``tar.bz2``, ``tar.xz`` or ``tar.zst``; ``gz``, ``bz2``,
        ``xz`` or ``zst`` for a single compressed file; empty for anything else.
    """
    if is_zip(head):
        return ZIP
    codec = codec_of(head)
    if codec is None:
        return TAR if is_tar(head[:_LOOK]) else ""
    begun = _begun(codec, head)
    tar = is_tar(begun) if begun is not None else _named_tar(name)
    return f"{TAR}.{codec.name}" if tar else codec.name


def _begun(codec: Codec, head: bytes) -> bytes | None:
    """The first bytes that come of it; ``None`` when there are too few to tell."""
    decoder, errors = codec.make()
    found, data = b"", head
    try:
        while len(found) < _LOOK and not decoder.eof:
            got = decoder.decompress(data, _LOOK - len(found))
            data = b""
            found += got
            if not got and decoder.needs_input:
                break
    except errors:
        return found
    return found if len(found) == _LOOK or decoder.eof else None


def _named_tar(name: str) -> bool:
    lower = name.lower()
    stem, dot, last = lower.rpartition(".")
    return f"{dot}{last}" in _SHORT or stem.endswith(".tar")


def unpacked_name(name: str, codec: Codec) -> str:
    """What a single compressed file is called without its suffix."""
    base = name.rpartition("/")[2]
    for suffix in _SUFFIXES.get(codec.name, (f".{codec.name}",)):
        if base.lower().endswith(suffix) and len(base) > len(suffix):
            return base[: -len(suffix)]
    return base or "data"
