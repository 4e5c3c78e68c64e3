"""The ground: verified restore beside ``cp``, and what a hit costs. Ratios taken in one run.

    python benchmarks/ground.py [--size-mib 1024] [--files 79413] [--rounds 5]

Prints one line for each figure: what, the ratio or time, the bound, whether it holds; the exit
code is 1 when one does not. Both sides of a ratio alternate, and medians are compared, because
machines are noisy.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tieredstore import Layout, Tier, TieredStore, local_tier
from tieredstore.backends.local import LocalBackend

MIB = 1 << 20


@dataclass(frozen=True)
class Figure:
    """One measured figure and the bound it is held to."""

    what: str
    value: float
    bound: float
    unit: str = "x"

    @property
    def holds(self) -> bool:
        return self.value <= self.bound

    def __str__(self) -> str:
        sign = "ok  " if self.holds else "MISS"
        return f"{sign} {self.what}: {self.value:.3f}{self.unit} (bound {self.bound:g}{self.unit})"


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def store_of(folder: Path) -> TieredStore:
    volume = Tier("volume", LocalBackend(str(folder / "volume")), Layout(), durable=True)
    return TieredStore([local_tier(folder / "local"), volume])


def restore_beside_cp(folder: Path, size_mib: int, rounds: int) -> Figure:
    """Verified restore of one large file between two folders, and ``cp -r`` of the same."""
    source = TieredStore([local_tier(folder / "volume")])
    with source.create("big") as stage, (stage.path / "data.bin").open("wb") as file:
        for _ in range(size_mib):
            file.write(os.urandom(MIB))
    copied, restored = [], []
    copy = ["cp", "-r", str(folder / "volume" / "big"), str(folder / "copy")]
    for _ in range(rounds + 1):
        copied.append(timed(lambda: subprocess.run(copy, check=True)))
        shutil.rmtree(folder / "copy")
        restored.append(timed(lambda: store_of(folder).restore("big").close()))
        shutil.rmtree(folder / "local")
    ratio = statistics.median(restored[1:]) / statistics.median(copied[1:])
    return Figure(f"verified restore of {size_mib} MiB over cp", ratio, 1.0)


def restore(store: TieredStore, name: str, files: list[str] | None) -> None:
    store.restore(name, files).close()


def run(argv: list[str], folder: Path) -> None:
    # Both sides start as installed packages do: with their bytecode beside them.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(argv, cwd=folder, check=True, capture_output=True, env=environment)


def hit(folder: Path, files: int, rounds: int) -> list[Figure]:
    """A hit from Python: on a few files, and on very many."""
    store = TieredStore([local_tier(folder / "hits")])
    figures = []
    for name, count in (("few", 3), ("many", files)):
        with store.create(name) as stage:
            for number in range(count):
                (stage.path / f"{number:06d}.bin").write_bytes(b"%d" % number)
        asked = ["000000.bin", f"{count - 1:06d}.bin", f"{count // 2:06d}.bin"]
        for what, wanted in (("all", None), ("three files", asked)):
            call = partial(restore, store, name, wanted)
            times = [timed(call) for _ in range(rounds * 20)]
            label = f"hit on {count} files, {what} asked for"
            figures.append(Figure(label, statistics.median(times) * 1e3, 1.0, " ms"))
    with store.create("large") as stage, (stage.path / "000000.bin").open("wb") as file:
        file.truncate(18 << 30)  # a hole: its length is what counts here
    times = [timed(partial(restore, store, "large", None)) for _ in range(rounds * 20)]
    figures.append(Figure("hit on a file of 18 GiB", statistics.median(times) * 1e3, 1.0, " ms"))
    return figures


def command_hit(folder: Path, rounds: int) -> Figure:
    """A hit from the command line, beside importing numpy."""
    (folder / "data").mkdir()
    store = TieredStore([local_tier(folder / "data", Layout("{name}/{name}"))])
    with store.create("small") as stage:
        (stage.path / "a.bin").write_bytes(b"a")
    command = [str(Path(sys.executable).with_name("tieredstore")), "restore", "small"]
    numpy = [sys.executable, "-c", "import numpy"]
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(rounds * 2 + 1):
        ours.append(timed(partial(run, command, folder)))
        theirs.append(timed(partial(run, numpy, folder)))
    ratio = statistics.median(ours[1:]) / statistics.median(theirs[1:])
    return Figure("hit from the command line over `import numpy`", ratio, 3.0)


def import_time(rounds: int) -> Figure:
    """``import tieredstore``, less the interpreter's own start."""
    times: dict[str, list[float]] = {"pass": [], "import tieredstore": []}
    for _ in range(rounds * 2 + 1):
        for code, into in times.items():
            into.append(timed(partial(run, [sys.executable, "-c", code], Path.cwd())))
    bare, ours = (statistics.median(t[1:]) for t in times.values())
    return Figure("import tieredstore", (ours - bare) * 1e3, 100.0, " ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=79_413)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=base) as temporary:
        folder = Path(temporary)
        figures = [
            import_time(args.rounds),
            *hit(folder, args.files, args.rounds),
            command_hit(folder, args.rounds),
            restore_beside_cp(folder, args.size_mib, args.rounds),
        ]
    for figure in figures:
        print(figure)
    return 0 if all(figure.holds for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
