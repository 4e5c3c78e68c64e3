"""nanoGPT's format: the tokens of a split one after the other, little-endian, nothing else.

Source: ``data/openwebtext/prepare.py`` and ``train.py`` of https://github.com/karpathy/nanoGPT,
which map the file with ``np.memmap(..., dtype=np.uint16)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from datasets_prep.formats.writing import SplitWriter

if TYPE_CHECKING:
    from datasets_prep.tokenizers.protocol import Lengths, Tokens


class RawWriter(SplitWriter):
    """Writes ``train.bin``."""

    first: ClassVar[tuple[str, ...]] = ("{}.bin",)

    def _open(self) -> None:
        self._bin = self._files.enter_context((self.folder / f"{self.split}.bin").open("wb"))

    def _write(self, tokens: Tokens, lengths: Lengths) -> None:
        del lengths
        self._bin.write(tokens.data)
