"""One large file from nginx on loopback: this library beside curl and aria2c, in one run.

    python benchmarks/downloads.py [--mib 1024] [--rounds 5] [--work /dev/shm]

Each measurement is a process of its own; sides alternate and medians are compared. The library's
command digests every block while it moves, keeps a note of those that have arrived, flushes and
publishes; the others write a file. ``with sha256`` it also compares a digest of the whole file,
and curl and aria2c are followed by sha256sum. Bytes are compared outside the time. Prints a table
and ratios.
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import importlib.util
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVERS = Path(__file__).parents[1] / "tests" / "servers"
OWN = "tieredstore"


@dataclass(frozen=True)
class Taken:
    """Seconds of one run, and of processor time."""

    wall: float
    cpu: float


def nginx(folder: Path, root: Path) -> Any:
    """The server that the tests use."""
    spec = importlib.util.spec_from_file_location("nginx_for_benchmarks", SERVERS / "nginx.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if module.missing():
        raise SystemExit(module.missing())
    return module.make(folder, root)


def sides(url: str, sha256: str) -> dict[str, str]:
    """Commands by name; each leaves ``out/data.bin`` in the folder that it runs in."""
    here = f"{sys.executable} -m datasets_prep.cli download --url {url} --dest out --no-extract"
    plain = {
        "curl": f"mkdir out && curl -sS -o out/data.bin {url}",
        "aria2c": f"aria2c -q -x8 -s8 --file-allocation=none -d out -o data.bin {url}",
        OWN: here,
    }
    summed = {f"{n}, sha256": f"{c} && sha256sum out/data.bin" for n, c in plain.items()}
    summed[f"{OWN}, sha256"] = f"{here} --sha256 {sha256}"
    found = {**plain, **summed}
    return {n: c for n, c in found.items() if shutil.which(n.partition(",")[0]) or OWN in n}


def measured(command: str, folder: Path, source: Path) -> Taken:
    """Run a command in a new folder, and look that it has brought the file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.sync()
    before, since = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "NO_PROXY": "*"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run(
        command, shell=True, check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    wall, after = time.perf_counter() - since, resource.getrusage(resource.RUSAGE_CHILDREN)
    if not filecmp.cmp(folder / "out/data.bin", source, shallow=False):
        raise SystemExit(f"another file: {command}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    shutil.rmtree(folder)
    return Taken(wall, cpu)


def shown(taken: dict[str, list[Taken]]) -> None:
    """Print the table."""
    middle = {n: statistics.median(t.wall for t in found) for n, found in taken.items()}
    print("| side | wall s (best) | cpu s | wall / curl | wall / aria2c |")
    print("|---|---|---|---|---|")
    for name, found in taken.items():
        ending = name.partition(",")[1] + name.partition(",")[2]
        ratios = [
            f"{middle[name] / middle[peer + ending]:.2f}" if peer + ending in middle else ""
            for peer in ("curl", "aria2c")
        ]
        cpu = statistics.median(t.cpu for t in found)
        best = min(t.wall for t in found)
        print(f"| {name} | {middle[name]:.2f} ({best:.2f}) | {cpu:.2f} | {' | '.join(ratios)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Downloads beside curl and aria2c.")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("/dev/shm"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work, prefix="downloads-") as made:
        work = Path(made)
        (work / "served").mkdir()
        source, digest = work / "served/data.bin", hashlib.sha256()
        with source.open("wb") as file:
            for _ in range(args.mib):
                block = os.urandom(1 << 20)
                digest.update(block)
                file.write(block)
        server = nginx(work / "nginx", work / "served")
        server.start()
        try:
            chosen = sides(f"{server.url}/data.bin", digest.hexdigest())
            taken: dict[str, list[Taken]] = {name: [] for name in chosen}
            for number in range(args.rounds):
                names = list(chosen)
                first = number % len(names)
                for name in [*names[first:], *names[:first]]:
                    taken[name].append(measured(chosen[name], work / "run", source))
        finally:
            server.stop()
        shown(taken)


if __name__ == "__main__":
    main()
