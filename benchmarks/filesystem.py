"""`tiered://` beside fsspec's `blockcache::` on one web server, and beside a local file.

    python benchmarks/filesystem.py [--size-mib 1024] [--reads 400] [--rounds 5]

Random reads of 64 KiB from one file, both with blocks of 1 MiB, cold and then warm; the bytes that
the server has sent stand beside the times. Then a file that was restored, read from start to end,
beside the same file opened as what it is. Each measurement is a process of its own, which has read
from another file before; a time is that of opening, reading and closing. Nginx has to be installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tieredstore

MIB = 1 << 20
READ = 64 << 10
NAME = "large"
SMALL = "before/small"
SERVERS = Path(__file__).parents[1] / "tests" / "servers"


Taken = tuple[float, float]  # seconds of the clock, and of the processor


def random_reads(open_file: Callable[[], Any], size: int, reads: int) -> Taken:
    """So many reads at random places, which are the same each time."""
    rng = random.Random(12)
    places = [rng.randrange(size - READ) for _ in range(reads)]
    since, used = time.perf_counter(), time.process_time()
    with open_file() as file:
        for place in places:
            file.seek(place)
            if len(file.read(READ)) != READ:
                raise RuntimeError("a read came short")
    return time.perf_counter() - since, time.process_time() - used


def in_order(open_file: Callable[[], Any]) -> Taken:
    """A file from start to end, 1 MiB at a time."""
    since, used = time.perf_counter(), time.process_time()
    with open_file() as file:
        while file.read(MIB):
            pass
    return time.perf_counter() - since, time.process_time() - used


def measure(case: dict[str, Any]) -> Taken:
    """One measurement, in a process of its own."""
    if case["what"] == "local":
        return in_order(lambda: open(case["path"], "rb"))
    if case["what"] == "in order":
        fs = tieredstore.TieredFileSystem(case["config"])
        fs.cat_file(SMALL, 0, READ)
        return in_order(lambda: fs.open(f"set/{NAME}"))
    if case["what"] == "tiered":
        fs = tieredstore.TieredFileSystem(case["config"], restore="blocks")
        fs.cat_file(SMALL, 0, READ)
        return random_reads(lambda: fs.open(f"set/{NAME}"), case["size"], case["reads"])
    import fsspec

    cached = fsspec.filesystem(
        "blockcache",
        target_protocol="http",
        cache_storage=case["cache"],
        target_options={"block_size": MIB},
    )
    cached.cat_file(case["url"].replace(f"set/{NAME}", SMALL), 0, READ)
    return random_reads(
        lambda: cached.open(case["url"], block_size=MIB), case["size"], case["reads"]
    )


def run(case: dict[str, Any]) -> Taken:
    """The same, from outside."""
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, used = map(float, done.stdout.split())
    return seconds, used


class Bed:
    """A far tier behind nginx, and a first tier that may be emptied."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        self.tiers: list[dict[str, Any]] = [
            {"name": "near", "backend": "local", "path": str(folder / "near")},
            {"name": "far", "backend": "local", "path": str(folder / "far"), "durable": True},
        ]
        store = tieredstore.open_store({"tier": self.tiers})
        with store.create("set") as stage, (stage.path / NAME).open("wb") as file:
            for seed in range(0, size, 16 * MIB):
                file.write(random.Random(seed).randbytes(min(16 * MIB, size - seed)))
        with store.create("before") as stage:
            (stage.path / "small").write_bytes(bytes(2 * MIB))
        for name in ("set", "before"):
            store.promote(name)
            store.evict(name)
        module = _nginx()
        self.server = module.make(folder / "nginx", folder / "far")
        self.server.start()
        self.url = f"{self.server.url}/set/{NAME}"
        self.tiers[1] = {"name": "far", "backend": "http", "url": self.server.url}

    def sent(self) -> int:
        """Bytes that the server has sent so far."""
        time.sleep(0.2)
        return sum(size for _, _, size, _ in self.server.said())

    def case(self, what: str, reads: int = 0) -> dict[str, Any]:
        """What a process is told to measure."""
        near = self.folder / "near" / "set"
        return {
            "what": what,
            "config": {"tier": self.tiers},
            "url": self.url,
            "cache": str(self.folder / "cache"),
            "size": self.size,
            "reads": reads,
            "path": str(next(near.rglob(NAME), near)),
        }

    def forget(self) -> None:
        """Empty the caches of both."""
        for name in ("near", "cache"):
            shutil.rmtree(self.folder / name, ignore_errors=True)


def _nginx() -> Any:
    spec = importlib.util.spec_from_file_location("nginx", SERVERS / "nginx.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nginx"] = module
    spec.loader.exec_module(module)
    if module.missing():
        raise SystemExit(module.missing())
    return module


def compare(bed: Bed, reads: int, rounds: int) -> None:
    """Random reads, cold and warm, of the two side by side."""
    taken: dict[tuple[str, str], list[Taken]] = {}
    sent: dict[tuple[str, str], list[int]] = {}
    for number in range(rounds):
        bed.forget()
        peers = ["tiered", "blockcache"][:: 1 if number % 2 else -1]
        for state in ("cold", "warm"):
            for peer in peers:
                before = bed.sent()
                taken.setdefault((state, peer), []).append(run(bed.case(peer, reads)))
                sent.setdefault((state, peer), []).append(bed.sent() - before)
    print("| random reads | client | seconds (best) | cpu s | MiB sent | / blockcache |")
    print("|---|---|---|---|---|---|")
    for state in ("cold", "warm"):
        base, _ = _medians(taken[state, "blockcache"])
        for peer in ("tiered", "blockcache"):
            seconds, used = _medians(taken[state, peer])
            best = min(some for some, _ in taken[state, peer])
            mib = statistics.median(sent[state, peer]) / MIB
            print(f"| {state} | {peer} | {seconds:.3f} ({best:.3f}) | {used:.3f} |", end="")
            print(f" {mib:.1f} | {seconds / base:.2f} |")


def sequential(bed: Bed, rounds: int) -> None:
    """A restored file in order, beside the local file."""
    tieredstore.open_store({"tier": bed.tiers}).restore("set").close()
    taken: dict[str, list[Taken]] = {"local": [], "in order": []}
    for number in range(2 * rounds):
        for what in list(taken)[:: 1 if number % 2 else -1]:
            taken[what].append(run(bed.case(what)))
    (ours, used), (local, base) = _medians(taken["in order"]), _medians(taken["local"])
    print(f"\nin order, warm: {ours:.3f} s, cpu {used:.3f}; ", end="")
    print(f"the local file {local:.3f} s, cpu {base:.3f}; {ours / local:.2f}, {used / base:.2f}")


def _medians(some: Sequence[Taken]) -> Taken:
    return statistics.median(s for s, _ in some), statistics.median(u for _, u in some)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--reads", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.case:
        print(*measure(json.loads(chosen.case)))
        return
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        bed = Bed(Path(folder), chosen.size_mib * MIB)
        try:
            compare(bed, chosen.reads, chosen.rounds)
            sequential(bed, chosen.rounds)
        finally:
            bed.server.stop()


if __name__ == "__main__":
    main()
