"""A small vocabulary made here, with each of tiktoken's patterns; and strange texts."""

from __future__ import annotations

import base64
import json
import random
import sys
import unicodedata
from functools import cache

from datasets_prep.tokenizers import Tiktoken, TokenizerJson
from datasets_prep.tokenizers.fast import SEPARATOR

EOT = "<|endoftext|>"
SIZE = 2000  # of the small vocabulary


@cache
def trained() -> str:
    """A byte-level ``tokenizer.json``, learnt from texts that every Python brings."""
    from pydoc_data.topics import topics

    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    more = ["漢字かな 한국어 العربية Ελληνικά кириллица naïve e\u0301 <|endoftext|>    \n\n\t"] * 50
    made.train_from_iterator([*(topics[key] for key in sorted(topics)), *more], trainer)
    made.add_special_tokens([EOT])
    return made.to_str()


def ranks() -> dict[bytes, int]:
    """The same vocabulary as tiktoken wants it."""
    alone = dict(_byte_of())
    vocab = json.loads(trained())["model"]["vocab"]
    return {bytes(alone[c] for c in token): number for token, number in vocab.items()}


def _byte_of():
    """GPT-2's names of the bytes: printable ones themselves, the others from U+0100 on."""
    further = 0
    for byte in range(256):
        if chr(byte).isprintable() and chr(byte) != " ":
            yield chr(byte), byte
        else:
            yield chr(256 + further), byte
            further += 1


def encoding(name: str):
    """An encoding with the name, pattern and special tokens of tiktoken's, else the small one."""
    import tiktoken
    import tiktoken_ext.openai_public as public

    usual = public.load_tiktoken_bpe, public.data_gym_to_mergeable_bpe_ranks
    public.load_tiktoken_bpe = public.data_gym_to_mergeable_bpe_ranks = lambda *_, **__: ranks()
    try:
        made = public.ENCODING_CONSTRUCTORS[name]()
    finally:
        public.load_tiktoken_bpe, public.data_gym_to_mergeable_bpe_ranks = usual
    made.pop("explicit_n_vocab", None)
    if name == "gpt2":  # so that it is the same as the tokenizer.json
        made["special_tokens"] = {EOT: len(ranks())}
    return tiktoken.Encoding(**made)


def reference(name: str = "gpt2") -> Tiktoken:
    return Tiktoken(encoding(name))


def tokenizer_json() -> TokenizerJson:
    return TokenizerJson("tokenizer.json", trained().encode())


def rank_file() -> bytes:
    """The small vocabulary as a file of tiktoken's."""
    return b"".join(b"%b %d\n" % (base64.b64encode(t), n) for t, n in ranks().items())


_PIECES = (
    EOT,
    "<|fim_prefix|>",
    "<|endofprompt|>",
    "<|endoftext",
    SEPARATOR,
    SEPARATOR[:4],
    SEPARATOR[-4:],
    "'s",
    "'LL",
    "'ſ",
    "n't",
    "don't",
    "👩\u200d👩\u200d👧",
    "e\u0301\u0323",
    "\ud83d\ude00",
    "\ud83d",
    "\udc00",
    "\ufeff",
    "\r\n",
    "http://a.b/c?d=1&e",
    "1234567",
    "ſt",
    "ß",
    "İi̇",
)
_SPACES = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000\u200b"


def strings(count: int, seed: int):
    """Strange texts, others for each seed."""
    by_category: dict[str, list[str]] = {}
    for point in range(sys.maxunicode + 1):
        by_category.setdefault(unicodedata.category(chr(point)), []).append(chr(point))
    draw = random.Random(seed)
    for number in range(count):
        yield _string(draw, by_category, long=number % 97 == 0)


def _string(draw: random.Random, by_category: dict[str, list[str]], *, long: bool) -> str:
    parts = []
    for _ in range(draw.randrange(400 if long else 14)):
        kind = draw.randrange(8)
        if kind == 0:
            parts.append(draw.choice(_PIECES))
        elif kind == 1:
            parts.append("".join(draw.choices(_SPACES, k=draw.randrange(1, 6))))
        elif kind == 2:
            parts.append(draw.choice("a 1!\n=\u0301é漢'_\x00") * draw.randrange(1, 300))
        elif kind == 3:
            parts.append(chr(draw.randrange(0x80)) * draw.randrange(1, 4))
        elif kind == 4:
            parts.append(" " + "".join(draw.choices("etaoinshrdlucmfw", k=draw.randrange(1, 12))))
        else:
            near = by_category[draw.choice(list(by_category))]
            parts.append("".join(draw.choices(near, k=draw.randrange(1, 5))))
    return "".join(parts)
