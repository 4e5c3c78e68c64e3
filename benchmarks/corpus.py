"""A corpus prepared by this library, by nanoGPT's script and by datatrove, in one run.

    python benchmarks/corpus.py --vocabulary FOLDER [--mb 300] [--rounds 3] [--datatrove PYTHON]

Real text of this machine as Parquet, in four files. Each measurement is a process of its own; the
rounds of a side follow one another, because a machine that gets its memory anew, after a process
with much of it has ended, is slower for a while; medians are compared. ``peak`` is the largest sum
of the proportional set sizes of all processes of a side, looked at 30 times a second, in a run of
its own: looking takes time. Prints a table, where the time goes in one process, and ratios with
their bounds; the exit code is 1 when one does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from corpus_sides import (
    DATATROVE,
    HIDDEN,
    NANOGPT,
    STEPS,
    compared,
    tokenizer_json,
    write_corpus,
)

WORKERS = 2
FAST, SLOW, NANO, TROVE = "tieredstore, fast", "tieredstore, tiktoken", "nanoGPT", "datatrove"
MEMORY = 600.0  # MB


@dataclass(frozen=True)
class Taken:
    """What one run took: seconds, and seconds of processor time."""

    wall: float
    cpu: float


def measured(words: list[str], environment: dict[str, str], log: Path) -> Taken:
    """Run a command."""
    os.sync()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    since = time.perf_counter()
    with log.open("wb") as out:
        code = subprocess.run(
            words, env=environment, stdout=out, stderr=out, check=False
        ).returncode
    wall = time.perf_counter() - since
    if code:
        raise SystemExit(f"{words[:4]} failed:\n{log.read_text()[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(wall, cpu)


def peak_of(words: list[str], environment: dict[str, str], log: Path) -> float:
    """Run a command and look at the memory of its processes."""
    peak = 0.0
    with log.open("wb") as out:
        process = subprocess.Popen(words, env=environment, stdout=out, stderr=out)
        while process.poll() is None:
            peak = max(peak, sum(proportional(each) for each in family(process.pid)))
            time.sleep(1 / 30)
    if process.returncode:
        raise SystemExit(f"{words[:4]} failed:\n{log.read_text()[-3000:]}")
    return peak


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += family(int(child))
    except OSError:
        pass
    return found


def proportional(pid: int) -> float:
    """MB of a process, of shared pages its share."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1e3
    except OSError:
        pass
    return 0.0


class Bench:
    """Sides, by name, on one corpus."""

    def __init__(self, folder: Path, vocabulary: Path, datatrove: str) -> None:
        self.folder = folder
        self.datatrove = datatrove
        self.environment = {
            **os.environ,
            "TIKTOKEN_CACHE_DIR": str(vocabulary),
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        (folder / "hidden").mkdir()
        (folder / "hidden/gigatoken.py").write_text(HIDDEN)
        (folder / "nanogpt.py").write_text(NANOGPT)
        (folder / "trove.py").write_text(DATATROVE)
        if datatrove:
            tokenizer_json(folder / "gpt2.json", vocabulary)

    def run(self, side: str, corpus: Path) -> Taken:
        """One measurement; what it made lies in ``out`` afterwards."""
        return measured(*self.command(side, corpus), self.folder / "log")

    def peak(self, side: str, corpus: Path) -> float:
        """MB at most."""
        return peak_of(*self.command(side, corpus), self.folder / "log")

    def command(self, side: str, corpus: Path) -> tuple[list[str], dict[str, str]]:
        """What is run, and in which environment."""
        out = self.folder / "out" / side.replace(", ", "-")
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        words, environment = [sys.executable], dict(self.environment)
        ours = ["-m", "datasets_prep.cli", "prepare", "openwebtext", "--source", str(corpus)]
        if side in {FAST, SLOW}:
            words += [*ours, "--data-dir", str(out), "--num-proc", str(WORKERS)]
        elif side == NANO:
            words += [str(self.folder / "nanogpt.py"), str(corpus), str(out), str(WORKERS)]
        else:
            words = [self.datatrove, str(self.folder / "trove.py"), str(corpus), str(out)]
            words += [str(self.folder / "gpt2.json"), str(WORKERS)]
        if side == SLOW:
            environment["PYTHONPATH"] = str(self.folder / "hidden")
        return words, environment

    def compare(self, corpus: Path, rounds: int) -> dict[str, Taken]:
        """Medians of all sides."""
        sides = [FAST, SLOW, NANO, *([TROVE] if self.datatrove else [])]
        runs: dict[str, list[Taken]] = {side: [] for side in sides}
        for side in sides:
            for _ in range(rounds):
                runs[side].append(self.run(side, corpus))
                print(f"  {side}: {runs[side][-1].wall:.2f} s", file=sys.stderr)
        compared(self.folder / "out")
        return {side: middle(taken) for side, taken in runs.items()}

    def peaks(self, corpus: Path, sides: Iterable[str]) -> dict[str, float]:
        """What each side takes of memory."""
        return {side: self.peak(side, corpus) for side in sides}


def middle(taken: list[Taken]) -> Taken:
    return Taken(
        statistics.median(each.wall for each in taken),
        statistics.median(each.cpu for each in taken),
    )


def where_it_goes(corpus: Path, vocabulary: Path) -> None:
    """Reading, tokenizing and writing, each by itself, in one process."""
    environment = {**os.environ, "TIKTOKEN_CACHE_DIR": str(vocabulary)}
    words = [sys.executable, "-c", STEPS, str(corpus)]
    found = json.loads(
        subprocess.run(words, env=environment, check=True, capture_output=True).stdout
    )
    print("\n| step, in one process | MB of text a second |\n|---|---|")
    for step, speed in found.items():
        print(f"| {step} | {speed:,.0f} |")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--vocabulary", type=Path, required=True, help="tiktoken's cache")
    options.add_argument("--mb", type=int, default=300)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--datatrove", default="", help="a Python that has datatrove")
    options.add_argument("--memory", type=int, nargs="*", default=[100, 3000], help="MB of input")
    options.add_argument("--folder", type=Path)
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        bench = Bench(folder, args.vocabulary.resolve(), args.datatrove)
        corpus = write_corpus(folder / "corpus", args.mb)
        taken = bench.compare(corpus, args.rounds)
        held = bench.peaks(corpus, taken)
        print(
            f"\n| {args.mb} MB, {WORKERS} processes | wall s | cpu s | peak MB |\n|---|---|---|---|"
        )
        for side, each in taken.items():
            print(f"| {side} | {each.wall:.2f} | {each.cpu:.2f} | {held[side]:.0f} |")
        where_it_goes(corpus, args.vocabulary.resolve())
        peaks = {args.mb: held[FAST]}
        for size in args.memory:
            shutil.rmtree(folder / "corpus")
            peaks[size] = bench.peak(FAST, write_corpus(folder / "corpus", size))
    return verdict(taken, peaks)


def verdict(taken: dict[str, Taken], peaks: dict[int, float]) -> int:
    """Say what holds."""
    said = [
        (f"{other} over {own}: {ratio:.1f} (bound {bound:g})", ratio >= bound)
        for other, own, bound in ((NANO, FAST, 15.0), (NANO, SLOW, 1.3), (TROVE, FAST, 20.0))
        if other in taken
        for ratio in [taken[other].wall / taken[own].wall]
    ]
    for size, peak in sorted(peaks.items()):
        said.append((f"peak with {size} MB: {peak:.0f} MB (bound {MEMORY:g})", peak <= MEMORY))
    print()
    for line, holds in said:
        print(f"{'ok  ' if holds else 'MISS'} {line}")
    return 0 if all(holds for _, holds in said) else 1


if __name__ == "__main__":
    raise SystemExit(main())
