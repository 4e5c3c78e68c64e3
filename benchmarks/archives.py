"""Very many small files from a tar.gz: this library beside ``tar xzf`` and ``sync -f``, in one run.

    python benchmarks/archives.py [--files 80000] [--rounds 5] [--work FOLDER] [--kind tar.gz]

Each measurement is a process of its own; sides alternate, and medians are compared. The library's
command extracts, digests each file, reads each record and looks for its image, writes a manifest,
flushes and publishes; tar writes files, and ``sync -f`` flushes them. Both write into an empty
folder of a file system that was flushed before. Nothing is removed until the end: ext4 does not
use inodes again for some minutes, and looks through all of them for each new file. Let as long
pass after a run. Prints a table and the ratio; the exit code is 1 when it, or the memory, is above
its bound.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RATIO: Final = 1.2
MEMORY: Final = 300.0  # MB
OWN: Final = "tieredstore"
TAR: Final = "tar"
SPEC: Final = """
name = "pages"
files = ["prompts.jsonl"]
folders = ["images"]
[[jsonl]]
file = "prompts.jsonl"
records = {files}
fields = ["prompt"]
image = "image"
[images]
folder = "images"
count = {files}
"""


@dataclass(frozen=True)
class Taken:
    """One run: seconds, those of processors, and the largest resident set in MB."""

    wall: float
    cpu: float
    peak: float


def make(folder: Path, files: int) -> Path:
    """A tar.gz with so many files of 2 to 6 kB, which compress no better than images do."""
    chance = random.Random(1)
    words = [f"{chance.getrandbits(40):x}" for _ in range(5000)]
    plain = folder / "pages.tar"
    lines: list[str] = []
    with tarfile.open(plain, "w") as archive:
        for n in range(files):
            name = f"images/{n:06d}.png"
            add(archive, name, chance.randbytes(chance.randint(2000, 6000)))
            lines.append(
                json.dumps({"image": name, "prompt": " ".join(chance.choices(words, k=20))})
            )
        add(archive, "prompts.jsonl", "\n".join(lines).encode())
    subprocess.run(["gzip", "-6", str(plain)], check=True)
    (folder / "pages.toml").write_text(SPEC.format(files=files), encoding="utf-8")
    return folder / "pages.tar.gz"


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), 1_700_000_000
    archive.addfile(info, io.BytesIO(data))


def measured(command: list[str]) -> Taken:
    """Run a command to its end; what its children used counts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with status {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(wall, cpu, used.ru_maxrss / 1000)


def run(side: str, archive: Path, into: Path) -> Taken:
    """One side, into a new folder."""
    into.mkdir()
    subprocess.run(["sync", "-f", str(into)], check=True)
    if side == TAR:
        script = 'tar xzf "$0" -C "$1" && sync -f "$1"'
        return measured(["sh", "-c", script, str(archive), str(into)])
    command = [sys.executable, "-m", "datasets_prep.cli", "download"]
    options = ["--local-path", str(archive), "--dest", str(into / "pages")]
    return measured([*command, *options, "--spec", str(archive.parent / "pages.toml")])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=80_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="archives-", dir=args.work))
    try:
        archive = make(folder, args.files)
        found: dict[str, list[Taken]] = {OWN: [], TAR: []}
        for n in range(args.rounds):
            for side in (OWN, TAR) if n % 2 else (TAR, OWN):
                found[side].append(run(side, archive, folder / f"out{n}-{side}"))
                print(f"round {n + 1} {side}: {found[side][-1]}", flush=True)
        return report(found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def report(found: dict[str, list[Taken]]) -> int:
    isal = "isal" if importlib.util.find_spec("isal") else "zlib"
    print(f"| side | wall s | cpu s | peak MB |\n|---|---|---|---|   ({isal})")
    middle: dict[str, Taken] = {}
    for side, runs in found.items():
        wall, cpu = (
            statistics.median(t) for t in zip(*((r.wall, r.cpu) for r in runs), strict=True)
        )
        middle[side] = Taken(wall, cpu, max(r.peak for r in runs))
        print(f"| {side} | {wall:.2f} | {cpu:.2f} | {middle[side].peak:.0f} |")
    ratio = middle[OWN].wall / middle[TAR].wall
    print(f"ratio {ratio:.2f} (bound {RATIO}), peak {middle[OWN].peak:.0f} MB (bound {MEMORY:.0f})")
    return int(ratio > RATIO or middle[OWN].peak > MEMORY)


if __name__ == "__main__":
    sys.exit(main())
