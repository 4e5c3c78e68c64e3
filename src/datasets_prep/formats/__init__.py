"""Tokens to files that training programs read: one format a file, each written from a stream.

====================  ===========================================  =================================
format                files of a split                             read by
====================  ===========================================  =================================
``nanogpt``           ``train.bin``                                nanoGPT: ``np.memmap``
``megatron``          ``train.bin``, ``train.idx``                 Megatron-LM, NeMo, GPT-NeoX
``npy``               ``train_000000.npy``, ``train_000001.npy``…  ``np.load``, one at a time
====================  ===========================================  =================================

Beside them lies ``meta.pkl``. The ``.bin`` of the first two is the same: tokens, nothing else; so
it may be composed of shards, and its index written afterwards, see `megatron.write_index`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from datasets_prep.errors import OptionError
from datasets_prep.formats.megatron import MegatronWriter, write_index
from datasets_prep.formats.npy import NpyWriter
from datasets_prep.formats.raw import RawWriter
from datasets_prep.formats.writing import SplitWriter
from datasets_prep.meta import META

__all__ = ["FORMATS", "SplitWriter", "required", "write_index", "writer"]
_WRITERS: Final[dict[str, type[SplitWriter]]] = {
    "nanogpt": RawWriter,
    "megatron": MegatronWriter,
    "npy": NpyWriter,
}
FORMATS: Final = tuple(_WRITERS)


def writer(name: str, folder: Path, split: str, dtype: str) -> SplitWriter:
    """What writes one split in a format.

    Parameters
    ----------
    name : str
        One of `FORMATS`.
    folder : Path
        Where to.
    split : str
        ``train`` or ``val``.
    dtype : str
        ``uint8``, ``uint16`` or ``uint32``.

    Raises
    ------
    OptionError
        For a format that is none.
    """
    return _WRITERS[_known(name)](folder, split, dtype)


def required(name: str, splits: tuple[str, ...] = ("train", "val")) -> tuple[str, ...]:
    """The files that a dataset has at least.

    Raises
    ------
    OptionError
        For a format that is none.
    """
    first = _WRITERS[_known(name)].first
    return (*(each.format(split) for split in splits for each in first), META)


def _known(name: str) -> str:
    if name not in _WRITERS:
        raise OptionError(f"format {name!r}: expected one of {', '.join(FORMATS)}")
    return name
