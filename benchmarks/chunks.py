"""Chunks: merging beside pyarrow and ``cat``, and what the machinery costs a chunk.

    python benchmarks/chunks.py [--chunks 200] [--mib 25] [--rounds 3] [--folder DIR]

Prints one line for each figure: what, the figure, its bound, whether it holds; the exit code is 1
when one does not. Each merge runs in a process of its own, whose peak memory is told; both sides
of a ratio alternate, and medians are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets_prep import chunks
from ground import MIB, Figure
from tieredstore import TieredStore, local_tier

ITEMS = 10  # to a chunk

MERGE = """
import resource, sys, time
from datasets_prep import chunks
from tieredstore import TieredStore, local_tier
store = TieredStore([local_tier(sys.argv[1])])
plan = chunks.existing(store, sys.argv[2], 0)
since = time.perf_counter()
[merged] = chunks.Merge(store, plan, chunks.MergeOptions(whole=True)).run()
seconds = time.perf_counter() - since
store.remove(merged.artifacts[0])
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
PYARROW = """
import pathlib, resource, sys, time
import pyarrow.parquet as pq
paths = sorted(pathlib.Path(sys.argv[1]).rglob("chunk_*/*.parquet"))
since = time.perf_counter()
with pq.ParquetWriter(sys.argv[2], pq.read_schema(paths[0])) as writer:
    for path in paths:
        writer.write_table(pq.read_table(path))
print(time.perf_counter() - since, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def program(code: str, *arguments: object) -> tuple[float, float]:
    """Seconds and peak memory in MiB that a program says of itself."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, memory = done.stdout.split()
    return float(seconds), float(memory)


def run_of(folder: Path, phase: str, count: int, make: Callable[[int, Path], None]) -> TieredStore:
    """A run whose chunks are all there."""
    store = TieredStore([local_tier(folder)])
    plan = chunks.Plan.cut(phase, 0, count * ITEMS - 1, ITEMS, 1)
    store.record(plan.record).create(plan.to_json())
    for number, chunk in enumerate(plan.chunks()):
        with store.create(chunk.artifact(plan.run)) as stage:
            make(number, stage.path)
    return store


def table(number: int, folder: Path, mib: int) -> None:
    rows = mib * 1000
    dice = np.random.default_rng(number)
    vectors = pa.array(dice.standard_normal(rows * 200).astype("f4"))
    words = [f"{n:x}" * 8 for n in dice.integers(0, 1 << 60, rows)]
    columns = {
        "item": np.arange(number * rows, (number + 1) * rows),
        "text": words,
        "score": pa.array([None if n % 7 == 0 else float(n) for n in range(rows)]),
        "vector": pa.FixedSizeListArray.from_arrays(vectors, 200),
    }
    pq.write_table(pa.table(columns), folder / "dataset.parquet")


def merge_beside_pyarrow(folder: Path, count: int, mib: int, rounds: int) -> list[Figure]:
    run_of(folder, "1", count, partial(table, mib=mib))
    size = sum(path.stat().st_size for path in folder.rglob("*.parquet")) // MIB
    theirs, ours, memory = [], [], []
    for _ in range(rounds):
        theirs.append(program(PYARROW, folder, folder / "theirs.parquet")[0])
        (folder / "theirs.parquet").unlink()
        seconds, peak = program(MERGE, folder, "1")
        ours.append(seconds)
        memory.append(peak)
    what = f"merge of {count} Parquet chunks, {size} MiB"
    ratio = statistics.median(ours) / statistics.median(theirs)
    return [
        Figure(f"{what}, over pyarrow reading and writing them", ratio, 1.0),
        Figure(f"{what}, peak memory", max(memory), 300.0, " MiB"),
    ]


def merge_beside_cat(folder: Path, count: int, mib: int, rounds: int) -> list[Figure]:
    def make(number: int, chunk: Path) -> None:
        (chunk / "data.bin").write_bytes(np.random.default_rng(number).bytes(mib * MIB))

    run_of(folder, "2", count, make)
    paths = sorted(map(str, folder.rglob("chunk_*/data.bin")))
    theirs, ours, memory = [], [], []
    for _ in range(rounds):
        with (folder / "theirs.bin").open("wb") as file:
            since = time.perf_counter()
            subprocess.run(["cat", *paths], stdout=file, check=True)
            os.fsync(file.fileno())
            theirs.append(time.perf_counter() - since)
        (folder / "theirs.bin").unlink()
        seconds, peak = program(MERGE, folder, "2")
        ours.append(seconds)
        memory.append(peak)
    what = f"merge of {count} .bin chunks, {count * mib} MiB"
    ratio = statistics.median(ours) / statistics.median(theirs)
    return [
        Figure(f"{what}, over cat and a flush", ratio, 1.1),
        Figure(f"{what}, peak memory", max(memory), 300.0, " MiB"),
    ]


WORK = """
def make(task):
    (task.folder / "data.bin").write_bytes(b"x")
"""


def overhead(folder: Path, count: int) -> Figure:
    """Seconds a chunk that is nothing to make, by a function that stays loaded."""
    folder.mkdir()
    (folder / "work.py").write_text(WORK)
    phase = chunks.Phase("3", callable="work.py:make")
    options = chunks.RunOptions(workers=1, chunk_size=1, folder=folder)
    store = TieredStore([local_tier(folder / "data")])
    since = time.perf_counter()
    outcome = chunks.run(phase, 0, count - 1, options, store)
    seconds = time.perf_counter() - since
    assert len(outcome.made) == count, outcome.failed
    return Figure(f"machinery of {count} chunks, a chunk", seconds / count * 1e3, 50.0, " ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--chunks", type=int, default=200)
    parser.add_argument("--mib", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where it works (default: memory)")
    args = parser.parse_args()
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    base = args.folder or (Path("/dev/shm") if Path("/dev/shm").is_dir() else None)
    figures = []
    for call in (
        partial(overhead, count=args.chunks),
        partial(merge_beside_cat, count=args.chunks, mib=args.mib, rounds=args.rounds),
        partial(merge_beside_pyarrow, count=args.chunks, mib=args.mib, rounds=args.rounds),
    ):
        with tempfile.TemporaryDirectory(dir=base) as temporary:
            found = call(Path(temporary) / "run")
        figures += found if isinstance(found, list) else [found]
    for figure in figures:
        print(figure)
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
