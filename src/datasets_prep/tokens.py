"""Tokens to files: a text's two splits as ``train.bin``, ``val.bin`` and ``meta.pkl``.

And arrays and dataset rows to one file, a batch at a time. Little-endian everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from datasets_prep import meta as metas
from datasets_prep.errors import OptionError, SourceError
from datasets_prep.tokenizers import Tokenizer, tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.integer[Any]]

REQUIRED: Final = ("train.bin", "val.bin", metas.META)
TRAIN_SHARE: Final = 0.9
_CHUNK: Final = 1 << 22  # tokens of an array written at once


def decoded(data: bytes) -> str:
    """A text's bytes as text.

    Raises
    ------
    SourceError
        When they are no UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SourceError(f"the source is no UTF-8 text: byte {error.start}") from None


def splits_of(text: str, subset: float) -> dict[str, str]:
    """The first nine tenths and the rest, of each the first ``int(len * subset)`` characters."""
    cut = int(len(text) * TRAIN_SHARE)
    parts = {"train": text[:cut], "val": text[cut:]}
    return {name: part[: int(len(part) * subset)] for name, part in parts.items()}


def write_text(text: str, folder: Path, subset: float, tokenizer_name: str) -> dict[str, Any]:
    """Write a text's tokens and ``meta.pkl`` to a folder.

    Parameters
    ----------
    text : str
        All of it; a character vocabulary is taken from all of it too, whatever the subset.
    folder : Path
        Where to.
    subset : float
        Which share of each split, from 0 (excluded) to 1.
    tokenizer_name : str
        ``gpt2``, ``char`` or ``byte``.

    Returns
    -------
    dict
        Facts for the recipe: token counts and what ``meta.pkl`` says.

    Raises
    ------
    OptionError
        When a split would be empty.
    """
    chosen: Tokenizer = tokenizer(tokenizer_name, text)
    counts: dict[str, int] = {}
    for split, part in splits_of(text, subset).items():
        if not part:
            raise OptionError(
                f"subset {subset}: nothing of the {split} split of {len(text)} characters is left; "
                f"expected a larger one"
            )
        tokens = chosen.encode(part)
        counts[f"{split}_tokens"] = len(tokens)
        with (folder / f"{split}.bin").open("wb") as file:
            file.write(tokens.data)
    (folder / metas.META).write_bytes(metas.dumps(chosen.meta()))
    return {**chosen.facts(), **counts, "dtype": chosen.dtype}


def token_counts(folder: Path, facts: Mapping[str, Any]) -> tuple[int, int]:
    """How many tokens the two splits have: from the recipe's facts, else from the files.

    Parameters
    ----------
    folder : Path
        Where the files lie.
    facts : mapping
        What the recipe says; empty where it is unknown.

    Raises
    ------
    MetaError
        When ``meta.pkl`` has to be asked and cannot be believed.
    """
    known = [facts.get(f"{split}_tokens") for split in ("train", "val")]
    if all(type(n) is int and n >= 0 for n in known):
        return known[0], known[1]  # type: ignore[return-value]
    width = int(metas.type_of(facts or metas.read(folder) or {})[-1])
    train, val = ((folder / f"{s}.bin").stat().st_size // width for s in ("train", "val"))
    return train, val


class TokenFile:
    """Writes tokens to a file, checked against the type they are stored in.

    Parameters
    ----------
    dtype : str or None
        ``uint8``, ``uint16`` or ``uint32``; ``None``: whichever the first array calls for.
    """

    def __init__(self, dtype: str | None = None) -> None:
        if dtype is not None and dtype not in metas.TYPES:
            raise OptionError(f"dtype {dtype!r}: expected one of {', '.join(metas.TYPES)}")
        self.dtype = dtype
        self.count = 0

    def write(self, data: Any, file: BinaryIO, rows: int) -> None:
        """Write an array of tokens, or the ``ids`` of a dataset, ``rows`` rows at a time."""
        import numpy as np

        parts = _array_parts if isinstance(data, np.ndarray | list | tuple) else _row_parts
        for part in parts(data, rows):
            if self.dtype is None:
                self.dtype = _fitting(part, data)
            self._check(part)
            file.write(part.astype(metas.TYPES[self.dtype]).data)
            self.count += len(part)

    def _check(self, part: Numbers) -> None:
        import numpy as np

        assert self.dtype is not None
        limit = np.iinfo(self.dtype).max
        if len(part) and (int(part.min()) < 0 or int(part.max()) > limit):
            raise OptionError(
                f"token {int(part.min())} or {int(part.max())}: expected 0 to {limit}, which "
                f"{self.dtype} holds; write every split with dtype='uint32'"
            )


def _array_parts(data: Any, rows: int) -> Iterator[Numbers]:
    import numpy as np

    del rows
    array = np.asarray(data)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "ui"):
        raise OptionError(
            f"tokens of shape {array.shape} and type {array.dtype}: expected one row of integers"
        )
    if not array.size:
        array = array.astype("<u2") if array.dtype.kind not in "ui" else array
    for begin in range(0, max(len(array), 1), _CHUNK):
        yield array[begin : begin + _CHUNK]


def _row_parts(data: Any, rows: int) -> Iterator[Numbers]:
    import numpy as np

    for begin in range(0, len(data), rows):
        batch = data[begin : begin + rows]
        arrays = [np.asarray(ids) for ids in batch["ids"]]
        part = np.concatenate([a for a in arrays if len(a)] or [np.zeros(0, "<u2")])
        if "len" in batch and int(np.sum(batch["len"])) != len(part):
            raise OptionError(
                f"rows {begin} on: {len(part)} ids, but their lengths add up to "
                f"{int(np.sum(batch['len']))}"
            )
        yield part


def _fitting(part: Numbers, data: Any) -> str:
    """An unsigned array is stored as it is; anything else as the GPT-2 tokens people have."""
    import numpy as np

    if isinstance(data, np.ndarray) and data.dtype.name in metas.TYPES:
        return str(data.dtype.name)
    whole = np.asarray(data) if isinstance(data, np.ndarray | list | tuple) else part
    largest = int(whole.max()) if len(whole) else 0
    return "uint16" if largest < 1 << 16 else "uint32"
