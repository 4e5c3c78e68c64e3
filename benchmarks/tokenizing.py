"""Engines of one tokenizer side by side on one core.

    python benchmarks/tokenizing.py [--megabytes 40] [--rounds 4] [--tokenizer gpt2]

Text is what every Debian machine has: Python's sources and what lies in /usr/share/doc. Each round
runs every engine on text that it has not seen, so that caches of pieces are as cold as in use. The
seconds are the processor's, so that others who use the machine count less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

from datasets_prep import tokenizers
from datasets_prep.tokenizers import Tokenizer

BATCH = 4 << 20  # bytes
ENDINGS = {".py", ".txt", ".md", ".html", ".rst"}


def documents(size: int) -> list[bytes]:
    """Texts of this machine, so many bytes together."""
    found, left = [], size
    for path in _files():
        try:
            data = path.read_bytes()
            data.decode()
        except (OSError, UnicodeDecodeError):
            continue
        found.append(data)
        left -= len(data)
        if left <= 0:
            return found
    raise SystemExit(f"this machine has {left} bytes of text too few; give --megabytes")


def _files() -> Iterator[Path]:
    for root in (sysconfig.get_path("stdlib"), "/usr/share/doc", "/usr/lib/python3"):
        for path in sorted(Path(root).rglob("*")):
            if path.suffix in ENDINGS and path.is_file():
                yield path


def batches(texts: list[bytes]) -> Iterator[list[bytes]]:
    """About `BATCH` bytes at a time."""
    held: list[bytes] = []
    for text in texts:
        held.append(text)
        if sum(map(len, held)) >= BATCH:
            yield held
            held = []
    if held:
        yield held


def seconds(engine: Tokenizer, texts: list[bytes]) -> tuple[float, int]:
    """How long an engine takes, and how many tokens there are."""
    began, tokens = time.process_time(), 0
    for batch in batches(texts):
        tokens += len(engine.encode_ended(batch).tokens)
    return time.process_time() - began, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--tokenizer", default="gpt2")
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    began = time.process_time()
    reference = tokenizers.load(args.tokenizer)
    loaded = time.process_time()
    fast = tokenizers.fastest(reference, [], lambda text: print(text, file=sys.stderr))
    proven = time.process_time()
    print(f"load {loaded - began:.2f} s, prove {proven - loaded:.2f} s")
    texts = documents(args.megabytes << 20)
    share = -(-len(texts) // args.rounds)
    speeds: dict[str, list[float]] = {each.engine: [] for each in (reference, fast)}
    for begin in range(0, len(texts), share):
        part = texts[begin : begin + share]
        size = sum(map(len, part)) / 1e6
        counts = set()
        for engine in (reference, fast):
            took, tokens = seconds(engine, part)
            speeds[engine.engine].append(size / took)
            counts.add(tokens)
        if len(counts) != 1:
            raise SystemExit(f"the engines differ: {counts} tokens")
    for name, found in speeds.items():
        low, high = min(found), max(found)
        print(f"{name:12} {statistics.median(found):8.1f} MB/s ({low:.1f} to {high:.1f})")


if __name__ == "__main__":
    main()
