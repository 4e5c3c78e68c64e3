"""The soak: eight processes do mixed work on three or four tiers while everything around fails.

    python tests/soak/soak.py --minutes 30

Four nodes of two processes each have a first tier of their own; all share a volume, a small tmpfs
that is soon full (where it can be mounted) and S3 (moto, behind a proxy). Every few seconds one
thing goes wrong: connections break or stall, the server is slow or refuses, the volume is gone, a
process is killed and another takes its place. Six of the eight are never killed: their memory and
open files are measured every second, and the mean of the last third of the run is compared with
that of the second. In the end all tiers are looked at by the checker of ``tests/crash``, which
shares no code with the store: nothing is torn, nothing promised is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
WORKERS, KILLED = 8, 2  # of them are killed now and then
SMALL = "6m"  # size of the tmpfs that is soon full
PAGE = os.sysconf("SC_PAGE_SIZE")
FLAT = 1.05  # what the last third may take of what the second took
SLACK = 4 << 20  # bytes; what a heap grows and shrinks by is no leak
FLAT_AFTER = 300.0  # seconds that a run has to take before flatness says anything


def load(name, path):
    """A module by its file."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class Sample:
    """What one process took at one moment: bytes of memory, open files."""

    at: float
    rss: int
    files: int


@dataclass
class Process:
    """A worker, and what was measured of it."""

    number: int
    process: subprocess.Popen
    samples: list = field(default_factory=list)
    kinds: Counter = field(default_factory=Counter)

    def measure(self, at):
        with suppress(OSError, ValueError):
            proc = Path("/proc", str(self.process.pid))
            rss = int((proc / "statm").read_text().split()[1]) * PAGE
            files = os.listdir(proc / "fd")
            self.samples.append(Sample(at, rss, len(files)))
            self.kinds = Counter(map(_kind, self._links(proc, files)))

    @staticmethod
    def _links(proc, files):
        for file in files:
            with suppress(OSError):
                yield os.readlink(proc / "fd" / file)

    def thirds(self, what):
        """The means of the second and the last third of the run."""
        values = [getattr(s, what) for s in self.samples]
        third = max(1, len(values) // 3)
        return statistics.mean(values[third : 2 * third]), statistics.mean(values[-third:])


def _kind(link):
    """What an open file is: ``socket``, ``pipe``, or the name that it has among its siblings."""
    kind = link.partition(":")[0]
    return re.sub(r"[0-9a-f]{6,}|[0-9]+", "#", kind.partition("soak-")[2] or kind)


class Soak:
    """One run.

    Parameters
    ----------
    folder : path
        Everything lies below it; in memory at best.
    seconds : float
        How long.
    """

    def __init__(self, folder, seconds):
        self.root, self.seconds = Path(folder), seconds
        self.random = random.Random(0)
        self.faults, self.made_anew = Counter(), []
        self.vol, self.away = self.root / "vol", self.root / "vol.away"

    def run(self):
        """Do it all; the findings, none of them at best, and a report."""
        tests = HERE.parent
        moto = load("soak_moto", tests / "servers" / "moto.py").start(self.root)
        os.environ.update(moto.environment)
        moto.make_bucket("soak")
        proxies = load("soak_tcpfault", tests / "servers" / "tcpfault.py")
        self.proxy = proxies.FaultProxy(int(moto.url.rpartition(":")[2]))
        try:
            with self.small_tmpfs():
                self.prepare()
                self.workers = [self.start(n) for n in range(WORKERS)]
                self.wait_for_all()
                self.go_on()
                self.end()
                return self.look(moto)
        finally:
            for worker in getattr(self, "workers", ()):
                worker.process.kill()
            self.proxy.stop()
            moto.stop()

    def small_tmpfs(self):
        soak = self

        class Mounted:
            def __enter__(self):
                at = soak.root / "small"
                at.mkdir()
                mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(at)]
                done = subprocess.run(mount, capture_output=True, check=False)
                soak.small = at if done.returncode == 0 else None

            def __exit__(self, *_):
                if soak.small:
                    subprocess.run(["umount", "-l", str(soak.small)], check=True)

        return Mounted()

    def prepare(self):
        for tier in (self.vol, self.small):
            if tier:
                leases = tier / ".tieredstore" / "lease"
                leases.mkdir(parents=True)
                (leases / "length.json").write_text('{"seconds": 3.0}')

    def start(self, number):
        order = {
            "root": str(self.root),
            "number": number,
            "node": number // 2,
            "workers": WORKERS,
            "small": bool(self.small),
            "url": self.proxy.url,
        }
        command = [sys.executable, str(HERE / "worker.py"), json.dumps(order)]
        return Process(number, subprocess.Popen(command))

    def wait_for_all(self):
        """Until each worker has begun: eight that start at once take their time."""
        until = time.monotonic() + 120
        files = [self.root / f"count-{w.process.pid}" for w in self.workers]
        while not all(file.exists() for file in files) and time.monotonic() < until:
            time.sleep(0.1)

    # -- while it runs ----------------------------------------------------------------------------

    def go_on(self):
        begin = time.monotonic()
        next_fault, healing = begin + 2, None
        while (now := time.monotonic()) < begin + self.seconds:
            for worker in self.workers:
                worker.measure(now - begin)
            if now >= next_fault:
                self.heal()
                healing = None if healing else self.fail()
                next_fault = now + self.random.uniform(1, 4)
            time.sleep(1 if self.seconds > FLAT_AFTER else 0.2)

    def fail(self):
        fault = self.random.choice(
            ("reset", "stall", "slow", "refuse", "flaky", "no volume", "kill", "kill")
        )
        self.faults[fault] += 1
        if fault in {"reset", "stall"}:
            self.proxy.down.fail(fault, after=self.random.randrange(100_000), times=5)
        elif fault == "flaky":
            self.proxy.up.fail("reset", after=self.random.randrange(2000), times=3)
        elif fault == "slow":
            self.proxy.down.latency = 0.2
        elif fault == "refuse":
            self.proxy.refuse()
        elif fault == "no volume":
            self.vol.rename(self.away)
        else:
            self.kill()
        return fault

    def heal(self):
        self.proxy.up.heal()
        self.proxy.down.heal()
        self.proxy.accept()
        if self.away.exists():
            if self.vol.exists():  # nobody may do that: what is promoted there is lost
                self.made_anew.append("the volume's folder was made anew while it was gone")
                self.vol.rename(f"{self.vol}.{len(self.made_anew)}")
            self.away.rename(self.vol)

    def kill(self):
        """Kill one of those that may be, and start another in its place."""
        number = self.random.randrange(WORKERS - KILLED, WORKERS)
        self.workers[number].process.send_signal(signal.SIGKILL)
        self.workers[number].process.wait()
        self.workers[number] = self.start(number)

    def end(self):
        """Heal everything, and let each finish what it is at."""
        self.heal()
        (self.root / "stop").touch()
        for worker in self.workers:
            worker.process.wait(120)

    # -- afterwards -------------------------------------------------------------------------------

    def look(self, moto):
        """What is wrong, a list of lines; and the report."""
        checking = load("soak_checking", HERE / "checking.py")
        findings = [f["why"] for f in self.lines("findings")]
        findings += checking.look(self.root, moto, self.lines("promised"), small=bool(self.small))
        findings += [*self.made_anew, *self.grown()]
        return findings, self.report()

    def grown(self):
        """Whose memory or open files were not flat."""
        if self.seconds < FLAT_AFTER:
            return []
        found = []
        for worker in self.workers[: WORKERS - KILLED]:
            for what, slack in (("rss", SLACK), ("files", 3)):
                second, last = worker.thirds(what)
                if last > second * FLAT + slack:
                    found.append(f"worker {worker.number}: {what} grew from {second} to {last}")
        return found

    def lines(self, name):
        with suppress(FileNotFoundError):
            return [json.loads(line) for line in (self.root / name).read_text().splitlines()]
        return []

    def report(self):
        counts = [p.read_text().split() for p in self.root.glob("count-*")]
        kinds = Counter(f"{e['verb']}: {e['kind']}" for e in self.lines("errors"))
        lines = [
            (
                f"{self.seconds:.0f} s, {sum(int(c[0]) for c in counts if c)} operations, "
                f"{sum(kinds.values())} of them refused with an error"
            ),
            f"faults: {dict(self.faults)}",
            f"errors: {dict(kinds.most_common())}",
        ]
        for worker in self.workers[: WORKERS - KILLED]:
            rss, files = worker.thirds("rss"), worker.thirds("files")
            lines.append(
                f"worker {worker.number}: memory {rss[0] / 2**20:.1f} MiB in the second third, "
                f"{rss[1] / 2**20:.1f} in the last; open files {files[0]:.1f}, {files[1]:.1f}, "
                f"in the end {dict(worker.kinds.most_common())}"
            )
        return lines


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--keep", action="store_true", help="leave the folder, to look at it")
    options = parser.parse_args()
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="soak-", dir=memory if memory.is_dir() else None)
    findings, report = Soak(folder, options.minutes * 60).run()
    lines = [*report, *(f"FOUND: {f}" for f in findings), f"{len(findings)} findings"]
    sys.stdout.write("\n".join([*lines, folder if options.keep else "", ""]))
    if not options.keep:
        shutil.rmtree(folder)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
