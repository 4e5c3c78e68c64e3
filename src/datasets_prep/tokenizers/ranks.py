"""GPT-2's vocabulary from OpenAI's two files of 2019, in a fifth of the time that tiktoken takes.

``vocab.bpe`` names each merge in an alphabet of printable characters. Undoing that for all at once
gives the same ranks as tiktoken's ``r50k_base.tiktoken``, of which tiktoken knows the sha256: what
is read here counts only when it has that digest.
"""

from __future__ import annotations

import hashlib
from binascii import b2a_base64
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

_R50K: Final = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"

Ranks = dict[bytes, int]


def quick(usual: Callable[..., Ranks], read: Callable[[str, str | None], bytes]) -> Any:
    """A function that does what tiktoken's ``data_gym_to_mergeable_bpe_ranks`` does.

    Parameters
    ----------
    usual : callable
        tiktoken's, for any other files.
    read : callable
        Gives a file of a URL, whose sha256 is compared.
    """

    def ranks_of(
        vocab_bpe_file: str,
        encoder_json_file: str,
        vocab_bpe_hash: str | None = None,
        encoder_json_hash: str | None = None,
        **more: Any,
    ) -> Ranks:
        if vocab_bpe_hash and encoder_json_hash and not more:
            read(encoder_json_file, encoder_json_hash)  # says the same once more
            tokens = _merged(read(vocab_bpe_file, vocab_bpe_hash).decode())
            ranks = {token: rank for rank, token in enumerate(tokens)}
            if hashlib.sha256(lines(ranks)).hexdigest() == _R50K:
                return ranks
        found: Ranks = usual(
            vocab_bpe_file, encoder_json_file, vocab_bpe_hash, encoder_json_hash, **more
        )
        return found

    return ranks_of


def lines(ranks: Ranks) -> bytes:
    """Tokens in the order of their ranks, in tiktoken's file format.

    A line for each: its bytes in base64, and its rank.
    """
    ordered = sorted(ranks.items(), key=itemgetter(1))
    return b"".join([b"%b %d\n" % (b2a_base64(token, newline=False), n) for token, n in ordered])


def _merged(text: str) -> list[bytes]:
    """The tokens of ``vocab.bpe``, single bytes first."""
    shown = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    hidden = [byte for byte in range(256) if byte not in shown]
    table = {256 + n: byte for n, byte in enumerate(hidden)}
    merges = text.split("\n")[1:-1]
    return [bytes([byte]) for byte in shown + hidden] + [
        merge.replace(" ", "").translate(table).encode("latin-1", "replace") for merge in merges
    ]
