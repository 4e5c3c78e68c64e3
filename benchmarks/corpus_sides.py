"""What ``corpus.py`` compares: the programs of other sides, the corpus, the tokenizer's file."""

from __future__ import annotations

import gzip
import json
import sysconfig
from collections.abc import Iterator
from itertools import cycle, pairwise
from pathlib import Path

HIDDEN = "raise ImportError('hidden, so that the reference does the work')\n"

# The steps and settings of nanoGPT's data/openwebtext/prepare.py, on files of this machine.
NANOGPT = """
import os, sys
import numpy as np
import tiktoken
from datasets import load_dataset

encoding = tiktoken.get_encoding("gpt2")

def process(example):
    ids = encoding.encode_ordinary(example["text"])
    ids.append(encoding.eot_token)
    return {"ids": ids, "len": len(ids)}

if __name__ == "__main__":
    source, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    rows = load_dataset("parquet", data_files=f"{source}/*.parquet", cache_dir=f"{out}/cache")
    parts = rows["train"].train_test_split(test_size=0.0005, seed=2357, shuffle=True)
    parts["val"] = parts.pop("test")
    tokenized = parts.map(process, remove_columns=["text"], num_proc=workers)
    for split, rows in tokenized.items():
        length = np.sum(rows["len"], dtype=np.uint64)
        target = np.memmap(f"{out}/{split}.bin", dtype=np.uint16, mode="w+", shape=(length,))
        batches, at = min(1024, len(rows)), 0
        for number in range(batches):
            batch = rows.shard(num_shards=batches, index=number, contiguous=True)
            ids = np.concatenate(batch.with_format("numpy")["ids"])
            target[at : at + len(ids)] = ids
            at += len(ids)
        target.flush()
"""

DATATROVE = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.tokens import DocumentTokenizer

if __name__ == "__main__":
    source, out, tokenizer, workers = sys.argv[1:]
    LocalPipelineExecutor(
        pipeline=[
            ParquetReader(source, glob_pattern="*.parquet"),
            DocumentTokenizer(
                output_folder=f"{out}/tokens",
                local_working_dir=f"{out}/work",
                tokenizer_name_or_path=tokenizer,
                eos_token="<|endoftext|>",
            ),
        ],
        tasks=4,
        workers=int(workers),
        logging_dir=f"{out}/logs",
    ).run()
"""

STEPS = """
import json, sys, tempfile, time
from pathlib import Path
from datasets_prep import documents, tokenizers
from tieredstore import TieredStore, local_tier, open_source

source = open_source(sys.argv[1])
pieces = documents.cut(source, documents.chosen(source.files()), "text")[:8]
slow = tokenizers.load("gpt2")
fast = tokenizers.fastest(slow, ["a sample"], print)
list(documents.read(source, pieces[0]))
found, since = {}, time.perf_counter()
batches = [list(map(bytes, b.texts)) for p in pieces for b in documents.read(source, p)]
size = sum(len(t) for b in batches for t in b) / 1e6
found["reading Parquet"] = size / (time.perf_counter() - since)
since = time.perf_counter()
encoded = [fast.encode_ended(batch) for batch in batches]
found[f"tokenizing, {fast.engine}"] = size / (time.perf_counter() - since)
since = time.perf_counter()
for batch in batches[: len(batches) // 8]:
    slow.encode_ended(batch)
found[f"tokenizing, {slow.engine}"] = size / 8 / (time.perf_counter() - since)
with tempfile.TemporaryDirectory(dir=Path(sys.argv[1]).parent) as folder:
    since = time.perf_counter()
    with TieredStore([local_tier(folder)]).create("x") as stage, stage.writer() as writer:
        with writer.open("tokens.bin") as file:
            for each in encoded:
                file.write(each.tokens.data.cast("B"))
    found["writing a shard, flushed to disk"] = size / (time.perf_counter() - since)
print(json.dumps(found))
"""


def write_corpus(folder: Path, size_mb: int) -> Path:
    """Text of this machine as documents of web pages' size, in four Parquet files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    texts = _documents()
    for number in range(4):
        left = size_mb * 1_000_000 // 4
        schema = pa.schema([("text", pa.string())])
        with pq.ParquetWriter(folder / f"train-{number:05d}.parquet", schema) as writer:
            while left > 0:
                group: list[str] = []
                while len(group) < 1000 and left > 0:
                    group.append(next(texts)[: max(left, 1)])
                    left -= len(group[-1])
                writer.write_table(pa.table({"text": group}, schema))
    return folder


def _documents() -> Iterator[str]:
    for path in cycle(_paths()):
        data = path.read_bytes()
        try:
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        except (OSError, EOFError, UnicodeDecodeError):
            continue
        for begin in range(0, len(text), 5000):
            yield text[begin : begin + 5000]


def _paths() -> list[Path]:
    roots = [Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib")]
    kinds = {".py", ".pyi", ".txt", ".md", ".rst", ".gz", ".h", ".html", ""}
    return [
        path
        for root in [*roots, Path("/usr/share/doc"), Path("/usr/share/perl")]
        for path in sorted(root.rglob("*"))
        if path.suffix in kinds and path.is_file() and path.stat().st_size < 2 << 20
    ]


def tokenizer_json(path: Path, vocabulary: Path) -> None:
    """GPT-2's vocabulary as Hugging Face's ``tokenizers`` reads it."""
    ranks = _ranks(vocabulary)
    shown = _shown()
    names = {token: "".join(shown[byte] for byte in token) for token in ranks}
    merges = [
        [names[part] for part in _halves(token, ranks)]
        for token in sorted(ranks, key=ranks.__getitem__)
        if len(token) > 1
    ]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "vocab": {**{names[token]: rank for token, rank in ranks.items()}, "<|endoftext|>": 50256},
        "merges": merges,
    }
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    end = {"id": 50256, "content": "<|endoftext|>", "special": True, "single_word": False}
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized"), False)
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**end, **flags}],
        "normalizer": None,
        "pre_tokenizer": {**level, "use_regex": True},
        "post_processor": None,
        "decoder": {**level, "use_regex": True},
        "model": model,
    }
    path.write_text(json.dumps(whole))


def _ranks(vocabulary: Path) -> dict[bytes, int]:
    """The tokens of GPT-2, by tiktoken's own cache or loader."""
    import os

    os.environ["TIKTOKEN_CACHE_DIR"] = str(vocabulary)
    import tiktoken

    ranks: dict[bytes, int] = tiktoken.get_encoding("gpt2")._mergeable_ranks  # noqa: SLF001
    return ranks


def _halves(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The two tokens that a token is merged from."""
    parts = [token[n : n + 1] for n in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(one + other, 1 << 30) for one, other in pairwise(parts)]
        best = min(range(len(pairs)), key=lambda n: (pairs[n] >= ranks[token], pairs[n]))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts


def _shown() -> dict[int, str]:
    """A printable character for each byte, as GPT-2's files have them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {
        **{byte: chr(byte) for byte in plain},
        **{byte: chr(256 + n) for n, byte in enumerate(others)},
    }


def compared(out: Path) -> None:
    """The files of the sides that make the same are the same."""
    files = {
        side.name: {path.name: path for path in side.rglob("*.bin")}
        for side in out.iterdir()
        if "datatrove" not in side.name
    }
    first, *others = files.values()
    for other in others:
        for name in ("train.bin", "val.bin"):
            if first[name].read_bytes() != other[name].read_bytes():
                raise SystemExit(f"{name}: {first[name]} and {other[name]} differ")
