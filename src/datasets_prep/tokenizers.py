"""Text to token ids: GPT-2's by tiktoken, characters, bytes. Loaded when first used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from datasets_prep.errors import OptionError, VocabularyUnavailable, reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tokens = NDArray[np.unsignedinteger[Any]]

GPT2_VOCAB: Final = 50257
_DEADLINE: Final = 120.0  # seconds; tiktoken itself waits without a limit
_MAX_SYMBOLS: Final = 2048  # characters of a vocabulary that are kept with the recipe


class Tokenizer(Protocol):
    """What a preparer asks of one.

    Attributes
    ----------
    dtype : str
        ``uint8``, ``uint16`` or ``uint32``: how its tokens are stored.
    """

    dtype: str

    def encode(self, text: str) -> Tokens:
        """The tokens of a text, in the stored type."""

    def meta(self) -> dict[str, Any]:
        """What ``meta.pkl`` says of it."""

    def facts(self) -> dict[str, Any]:
        """The same as plain JSON, kept small: it travels with the recipe."""


class Gpt2:
    """GPT-2 byte-pair encoding, ordinary text only: no end-of-text token."""

    dtype = "uint16"

    def encode(self, text: str) -> Tokens:
        """See `Tokenizer.encode`."""
        import numpy as np

        return np.array(gpt2_encoding().encode_ordinary(text), dtype="<u2")

    def meta(self) -> dict[str, Any]:
        """See `Tokenizer.meta`."""
        return {"vocab_size": GPT2_VOCAB, "tokenizer": "gpt2"}

    def facts(self) -> dict[str, Any]:
        """See `Tokenizer.facts`."""
        return self.meta()


class Characters:
    """One token for each different character of a text, in their order.

    Parameters
    ----------
    text : str
        Whose characters are the vocabulary.
    """

    def __init__(self, text: str) -> None:
        self._symbols = sorted(set(text))
        self.dtype = "uint16" if len(self._symbols) <= 1 << 16 else "uint32"

    def encode(self, text: str) -> Tokens:
        """See `Tokenizer.encode`; every character must be in the vocabulary."""
        import numpy as np

        known = np.array([ord(c) for c in self._symbols], dtype="<u4")
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        places = np.searchsorted(known, points)
        if len(points) and not np.array_equal(known[np.minimum(places, len(known) - 1)], points):
            raise OptionError("the text has characters that are not in the vocabulary")
        return places.astype("<u2" if self.dtype == "uint16" else "<u4")

    def meta(self) -> dict[str, Any]:
        """See `Tokenizer.meta`."""
        meta: dict[str, Any] = {
            "vocab_size": len(self._symbols),
            "tokenizer": "char",
            "itos": dict(enumerate(self._symbols)),
            "stoi": {symbol: n for n, symbol in enumerate(self._symbols)},
        }
        if self.dtype != "uint16":
            meta["dtype"] = self.dtype
        return meta

    def facts(self) -> dict[str, Any]:
        """See `Tokenizer.facts`."""
        facts: dict[str, Any] = {"vocab_size": len(self._symbols), "tokenizer": "char"}
        if len(self._symbols) <= _MAX_SYMBOLS:
            facts["symbols"] = "".join(self._symbols)
        return facts


class Bytes:
    """The bytes of the text in UTF-8."""

    dtype = "uint8"

    def encode(self, text: str) -> Tokens:
        """See `Tokenizer.encode`."""
        import numpy as np

        return np.frombuffer(text.encode(), dtype="|u1")

    def meta(self) -> dict[str, Any]:
        """See `Tokenizer.meta`."""
        return {"vocab_size": 256, "tokenizer": "byte", "byte_level": True}

    def facts(self) -> dict[str, Any]:
        """See `Tokenizer.facts`."""
        return self.meta()


_BY_NAME: Final[Mapping[str, Callable[[str], Tokenizer]]] = {
    "gpt2": lambda _: Gpt2(),
    "char": Characters,
    "byte": lambda _: Bytes(),
}
NAMES: Final = tuple(_BY_NAME)


def tokenizer(name: str, text: str) -> Tokenizer:
    """The tokenizer of that name, for a text.

    Raises
    ------
    OptionError
        When there is none.
    """
    if name not in _BY_NAME:
        raise OptionError(f"tokenizer {name!r}: expected one of {', '.join(NAMES)}")
    return _BY_NAME[name](text)


def gpt2_encoding() -> Any:
    """The GPT-2 encoding of tiktoken, which tiktoken itself keeps once it is loaded.

    Raises
    ------
    VocabularyUnavailable
        When its vocabulary is neither in tiktoken's cache nor to be had from the internet.
    """
    hint = (
        "set TIKTOKEN_CACHE_DIR to a folder that holds it, or use --tokenizer char, "
        "which needs no vocabulary"
    )
    try:
        import tiktoken

        return _within(_DEADLINE, partial(tiktoken.get_encoding, "gpt2"))
    except ImportError as error:
        raise VocabularyUnavailable(
            f"tokenizer gpt2: {error}; pip install tiktoken, or use --tokenizer char"
        ) from None
    except Exception as error:  # noqa: BLE001 - requests, SSL and checks of its own
        why = " ".join(reason(error).split("(Caused by")[0].split())[:120]
        raise VocabularyUnavailable(
            f"tokenizer gpt2: its vocabulary cannot be loaded ({type(error).__name__}: {why}); "
            f"{hint}"
        ) from None


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """Call something that may hang, in a thread that is left behind when it does."""
    found: list[Any] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.append(call())
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            failed.append(error)

    thread = threading.Thread(target=work, name="datasets-prep-vocabulary", daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return found[0]
