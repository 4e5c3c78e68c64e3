"""What the writers of all formats share: a stream of tokens in, counts and a digest out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import xxhash

from datasets_prep.errors import OptionError
from datasets_prep.meta import TYPES

if TYPE_CHECKING:
    from datasets_prep.tokenizers.protocol import Encoded, Lengths, Tokens


class SplitWriter(ABC):
    """Writes one split from batches of documents; memory is bounded by one batch.

    It is used in a ``with`` statement. Where that ends without an error the files are whole.

    Parameters
    ----------
    folder : Path
        Where to.
    split : str
        ``train`` or ``val``.
    dtype : str
        ``uint8``, ``uint16`` or ``uint32``.

    Attributes
    ----------
    first : tuple of str
        The files that there always are; ``{}`` stands for the split.
    """

    first: ClassVar[tuple[str, ...]]

    def __init__(self, folder: Path, split: str, dtype: str) -> None:
        if dtype not in TYPES:
            raise OptionError(f"dtype {dtype!r}: expected one of {', '.join(TYPES)}")
        self.folder = folder
        self.split = split
        self.dtype = dtype
        self.tokens = 0
        self.documents = 0
        self._files = ExitStack()
        self._digest = xxhash.xxh3_128()

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._files:
            if error is None:
                self._finish()

    def write(self, batch: Encoded) -> None:
        """Write the tokens of some documents.

        Raises
        ------
        OptionError
            When they are of another type than the file's, or not as many as their lengths say.
        """
        import numpy as np

        tokens, lengths = batch
        if tokens.dtype.name != self.dtype:
            raise OptionError(f"tokens are {tokens.dtype.name}, expected {self.dtype}")
        if int(lengths.sum()) != len(tokens):
            raise OptionError(f"{len(tokens)} tokens, but their documents have {lengths.sum()}")
        stored = np.ascontiguousarray(tokens, dtype=TYPES[self.dtype])
        self._digest.update(stored.data)
        self._write(stored, lengths)
        self.tokens += len(tokens)
        self.documents += len(lengths)

    def facts(self) -> dict[str, Any]:
        """What the recipe's facts say of this split: counts, and a digest of the tokens' bytes."""
        return {
            f"{self.split}_tokens": self.tokens,
            f"{self.split}_documents": self.documents,
            f"{self.split}_xxh3": self._digest.hexdigest(),
        }

    @abstractmethod
    def _open(self) -> None:
        """Begin; files are closed by ``self._files``."""

    @abstractmethod
    def _write(self, tokens: Tokens, lengths: Lengths) -> None:
        """Write tokens in the stored type, and how many each document has."""

    def _finish(self) -> None:  # noqa: B027 - most formats have nothing to write there
        """Write what comes after the last token."""
