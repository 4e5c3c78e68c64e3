"""Documents to tokens in a process that works for hours, without growing.

A fast tokenizer remembers every word that it has met. Of text that never ends there are ever new
ones, so it is made anew when it has grown too large.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from datasets_prep.tokenizers.protocol import utf8

if TYPE_CHECKING:
    from datasets_prep.documents import Text
    from datasets_prep.tokenizers import Encoded, Tokenizer

GROWTH: Final = 96 << 20  # bytes that the process may grow
BETWEEN: Final = 16 << 20  # bytes of text, at least, from one time it is made anew to the next


class Encoding:
    """A tokenizer at work; it can be sent to another process.

    Parameters
    ----------
    tokenizer : Tokenizer
        Documents are followed by its end-of-text token, where it has one.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._done = 0
        self._least = 0

    def __reduce__(self) -> Any:
        return Encoding, (self._tokenizer,)

    def encode(self, texts: Sequence[Text]) -> Encoded:
        """The tokens of documents."""
        data = [utf8(text) if isinstance(text, str) else text for text in texts]
        tokenizer = self._tokenizer
        ends = tokenizer.eot is not None
        encoded = tokenizer.encode_ended(data) if ends else tokenizer.encode_utf8(data)
        self._done += sum(map(len, data))
        if not self._least:
            self._least = resident()
        elif self._done >= BETWEEN and resident() - self._least > GROWTH:
            self._tokenizer = pickle.loads(pickle.dumps(tokenizer))  # noqa: S301 - our own
            self._done = 0
        return encoded


def resident() -> int:
    """Bytes of memory that this process has, as Linux counts them."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
