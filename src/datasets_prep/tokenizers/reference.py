"""tiktoken's encodings by tiktoken itself: what every other engine is compared with."""

from __future__ import annotations

import threading
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from datasets_prep.errors import OptionError, VocabularyUnavailable, reason
from datasets_prep.tokenizers.protocol import (
    BytePairs,
    Encoded,
    Traits,
    gathered,
    without_surrogates,
)
from datasets_prep.tokenizers.ranks import lines
from datasets_prep.tokenizers.stored import artifact, files_of, reads_from, reads_quickly
from tieredstore import Recipe

if TYPE_CHECKING:
    from tieredstore import Build, Got, TieredStore

EOT: Final = "<|endoftext|>"
_DEADLINE: Final = 120.0  # seconds; tiktoken itself waits without a limit


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What one of tiktoken's encodings is made of, as it is sent to other processes.

    Attributes
    ----------
    name : str
        The encoding's.
    pattern : str
        The regular expression that cuts a text into pieces.
    ranks : bytes
        The mergeable tokens in the order of their ranks, in tiktoken's file format: a line for
        each, its bytes in base64 and its rank.
    special : mapping
        Tokens that no text gives.
    """

    name: str
    pattern: str
    ranks: bytes
    special: Mapping[str, int]


class Tiktoken(BytePairs):
    """One of tiktoken's encodings, ordinary text only: a special token's text stays text.

    Parameters
    ----------
    encoding : tiktoken.Encoding
        See `encoding`.
    """

    engine = "tiktoken"

    def __init__(self, encoding: Any) -> None:
        self._encoding = encoding
        # A special token that a text may hold is of tiktoken's own list, whatever else there is.
        special = encoding.special_tokens_set
        eot = int(encoding.eot_token) if EOT in special else None
        super().__init__(Traits(encoding.name, int(encoding.n_vocab), eot))

    def encode_batch(self, texts: Sequence[str]) -> Encoded:
        """See `Tokenizer.encode_batch`."""
        return gathered([self._encode(text) for text in texts], self.dtype)

    def _encode(self, text: str) -> Any:
        try:
            return self._encoding.encode_to_numpy(text, disallowed_special=())
        except UnicodeEncodeError:
            return self._encode(without_surrogates(text))

    def vocabulary(self) -> Vocabulary:
        """What it is made of."""
        encoding = self._encoding  # its README names these three for encodings made of others
        ranks = lines(encoding._mergeable_ranks)  # noqa: SLF001
        return Vocabulary(self.name, encoding._pat_str, ranks, dict(encoding._special_tokens))  # noqa: SLF001

    def __reduce__(self) -> Any:
        return _rebuilt, (self.vocabulary(),)


def _rebuilt(vocabulary: Vocabulary) -> Tiktoken:
    import tiktoken

    lines = (line.split() for line in vocabulary.ranks.splitlines())
    made = tiktoken.Encoding(
        vocabulary.name,
        pat_str=vocabulary.pattern,
        mergeable_ranks={b64decode(token): int(rank) for token, rank in lines},
        special_tokens=dict(vocabulary.special),
    )
    return Tiktoken(made)


def encodings() -> list[str]:
    """The names of tiktoken's encodings; none where it is not installed."""
    try:
        import tiktoken
    except ImportError:
        return []
    return sorted(tiktoken.list_encoding_names())


def encoding(name: str, store: TieredStore | None = None) -> Any:
    """One of tiktoken's encodings, which tiktoken itself keeps once it is loaded.

    Parameters
    ----------
    name : str
        ``gpt2``, ``cl100k_base`` and so on.
    store : TieredStore, optional
        Asked for the vocabulary before the internet is.

    Raises
    ------
    OptionError
        When tiktoken has none of that name.
    VocabularyUnavailable
        When its vocabulary is neither in tiktoken's cache, nor in the store, nor to be had from
        the internet.
    """
    return _telling(name, partial(_loaded, name, store))


def keep(store: TieredStore, name: str) -> Got:
    """Have the vocabulary of an encoding in the store, durable tiers included.

    Parameters
    ----------
    store : TieredStore
        Where to.
    name : str
        ``gpt2``, ``cl100k_base`` and so on.

    Raises
    ------
    OptionError, VocabularyUnavailable
        As `encoding`.
    PromoteFailed
        When a durable tier could not take it.
    """
    files = partial(_telling, name, partial(files_of, name))

    def build(stage: Build) -> None:
        for file, data in files().items():
            (stage.path / file).write_bytes(data)

    return store.ensure(artifact(name), build, Recipe("tiktoken", "1", {"encoding": name}))


def _telling(name: str, call: Callable[[], Any]) -> Any:
    """Do something with tiktoken; what fails is told in one line, what hangs is left."""
    hint = (
        f"set TIKTOKEN_CACHE_DIR to a folder that holds it, keep it in the store with "
        f"datasets-prep vocabulary {name}, or use --tokenizer char, which needs no vocabulary"
    )
    try:
        import tiktoken

        if name not in tiktoken.list_encoding_names():
            raise OptionError(f"tokenizer {name!r}: tiktoken has no such encoding")
        return _within(_DEADLINE, call)
    except OptionError:
        raise
    except ImportError as error:
        raise VocabularyUnavailable(
            f"tokenizer {name}: {error}; pip install tiktoken, or use --tokenizer char"
        ) from None
    except Exception as error:  # noqa: BLE001 - requests, SSL and checks of its own
        why = " ".join(reason(error).split("(Caused by")[0].split())[:120]
        raise VocabularyUnavailable(
            f"tokenizer {name}: its vocabulary cannot be loaded ({type(error).__name__}: {why}); "
            f"{hint}"
        ) from None


def _loaded(name: str, store: TieredStore | None) -> Any:
    import tiktoken

    with reads_quickly():
        if store is None:
            return tiktoken.get_encoding(name)
        with reads_from(store, name):
            return tiktoken.get_encoding(name)


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
