"""Seeding a job's cache of Hugging Face ``datasets`` beside building it.

    python benchmarks/hf_cache.py [--size 1GB] [--rounds 5] [--work FOLDER]

Times only; what is right is tested elsewhere. Everything lies below ``--work`` and goes afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from datasets_prep.hf_cache import advising, prebuilding, seeding
from datasets_prep.hf_cache.entries import Entry, entries
from datasets_prep.hf_cache.getting import open_cache_store

ROW = 1000  # bytes of one line


def write_data(path: Path, size: int) -> None:
    """JSON lines of different texts."""
    with path.open("w") as file:
        for n in range(size // ROW):
            text = f"{n:012d} " * 70
            file.write(json.dumps({"n": n, "text": text, "label": f"{n % 7}"}) + "\n")


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes; nothing is flushed to the disk, as ``datasets`` does not."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def build(data: Path, cache: Path) -> None:
    """What a job without any cache does."""
    import datasets

    shutil.rmtree(cache, ignore_errors=True)
    datasets.load_dataset("json", data_files=str(data), split="train", cache_dir=str(cache))


def seeded(found: Sequence[Entry], cache: Path, ways: Sequence[seeding.Way]) -> None:
    """A job's cache, from the pre-built one."""
    assert seeding.seed(found, cache, ways).entries == 1


def job_env(prebuilt: Path, scratch: Path) -> None:
    """The same as a job script does it: a process of its own."""
    env = {**os.environ, "HF_DATASETS_CACHE": str(prebuilt)}
    command = [sys.executable, "-m", "datasets_prep.cli", "cache", "job-env", "--scratch"]
    subprocess.run([*command, str(scratch)], env=env, check=True, capture_output=True)


def again(rounds: int, work: Callable[[], object], left: Path) -> list[float]:
    """The times of several rounds, each on an empty place."""
    taken = []
    for _ in range(rounds):
        shutil.rmtree(left, ignore_errors=True)
        taken.append(timed(work))
    shutil.rmtree(left, ignore_errors=True)
    return taken


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="1GB", help="of the data (1GB)")
    parser.add_argument("--rounds", type=int, default=5, help="of each way to seed (5)")
    parser.add_argument("--work", type=Path, default=Path.cwd(), help="where to work")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        measure(Path(folder), advising.parse_size(args.size), args.rounds)


def measure(folder: Path, size: int, rounds: int) -> None:
    """One build each way, then the seeds."""
    import datasets

    datasets.disable_progress_bars()
    data, prebuilt, job = folder / "data.jsonl", folder / "prebuilt", folder / "job"
    os.environ["HF_DATASETS_CACHE"] = str(prebuilt)
    write_data(data, size)
    rows = {"built by load_dataset": again(3, lambda: build(data, job), job)}

    def pre_build() -> None:
        store = open_cache_store()
        done = prebuilding.prebuild([str(data)], None, store, prebuilt, lambda _: None)
        assert done.status == prebuilding.ALL, done.failed

    rows["pre-built, verified, kept and seeded"] = [timed(pre_build)]
    found = entries(prebuilt)
    for name, ways in (
        ("seeded by hard link", (seeding.hard_link,)),
        ("seeded by copy", (seeding.copy,)),
        ("seeded by links to a shared cache", (seeding.symlink,)),
    ):

        def seed(ways: Sequence[seeding.Way] = ways) -> None:
            seeded(found, job, ways)

        rows[name] = again(rounds, seed, job)
    job.mkdir()
    scratch = job / "scratch"

    def whole() -> None:
        scratch.mkdir(parents=True)
        job_env(prebuilt, scratch)

    rows["`cache job-env`, the whole process"] = again(rounds, whole, scratch)
    told(rows, size)


def told(rows: dict[str, list[float]], size: int) -> None:
    """The table."""
    base = statistics.median(next(iter(rows.values())))
    print(f"| {size / advising.GB:g} GB of JSON lines | s, median | least | built = 1 |")
    print("|---|---|---|---|")
    for name, taken in rows.items():
        middle = statistics.median(taken)
        print(f"| {name} | {middle:.3f} | {min(taken):.3f} | {middle / base:.4f} |")


if __name__ == "__main__":
    main()
