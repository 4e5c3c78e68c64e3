"""Downloads that are cut off, by the command in a process of its own, and gone on with.

A bed is a place to download from; how it is cut is a method of `Cutting`. What had arrived is read
from the disk, compared with the file itself, so that nothing is believed that the process notes.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

MIB = 1 << 20
CONNECTIONS = 4
HEAD = 2 * MIB  # bytes that are looked at before, to see what it is
PATIENCE = 60.0  # seconds


class NginxBed:
    """A file on nginx, behind a proxy that is slow enough to be cut."""

    counted = True
    ways = ("killed", "reset", "server", "full")

    def __init__(self, nginx, proxy, data):
        self.nginx, self.proxy, self.data = nginx, proxy, data
        (nginx.root / "data.bin").write_bytes(data)
        self.proxy.down.bandwidth = 40e6

    @property
    def source(self):
        return ["--url", f"{self.proxy.url}/data.bin"]

    environment: ClassVar = {}

    def fetched(self, since):
        said = self.nginx.said()[since:]
        return sum(size for method, status, size, _ in said if method == "GET" and status == 206)

    def mark(self):
        return len(self.nginx.said())

    def reset(self):
        self.proxy.reset_all()

    def kill_server(self):
        self.nginx.stop(signal.SIGKILL)
        self.proxy.reset_all()
        time.sleep(0.5)
        self.nginx.start()


class HubBed:
    """A large file of a repository."""

    counted = True
    ways = ("killed", "reset", "server", "full")

    def __init__(self, hub, fault, data):
        self.hub, self.data = hub, data
        hub.put("me/it", "data.bin", data)
        self.fault = fault
        hub.faults.append(fault("GET /storage", before=lambda: time.sleep(0.1)))

    source: ClassVar = ["--hf-repo", "me/it", "--hf-file", "data.bin"]

    @property
    def environment(self):
        return {"HF_ENDPOINT": self.hub.url, "HF_TOKEN": self.hub.token}

    def fetched(self, since):
        spans = [s.range for s in self.hub.log[since:] if s.path.startswith("/storage/")]
        ends = [s.removeprefix("bytes=").split("-") for s in spans if s]
        return sum(int(end) - int(start) + 1 for start, end in ends)

    def mark(self):
        return len(self.hub.log)

    def reset(self):
        """Several of the next answers break off."""
        cut = random.Random(self.mark()).randrange(30 * MIB)
        self.hub.faults.insert(0, self.fault("GET /storage", cut=cut, times=3))

    def kill_server(self):
        self.hub.stop()
        time.sleep(0.5)
        self.hub.start()


class FolderBed:
    """A file on this machine."""

    counted = False  # nobody counts what is read of a disk
    ways = ("killed", "full")
    environment: ClassVar = {}

    def __init__(self, folder, data):
        folder.mkdir()
        self.path = folder / "data.bin"
        self.path.write_bytes(data)
        self.data = data

    @property
    def source(self):
        return ["--local-path", str(self.path)]

    def mark(self):
        return 0


class Cutting:
    """One download to ``work/out`` that is cut off and gone on with."""

    def __init__(self, bed, work: Path):
        self.bed, self.work = bed, work

    def start(self):
        words = [sys.executable, "-m", "datasets_prep.cli", "download", *self.bed.source]
        words += ["--dest", "out", "--no-extract", "--connections", str(CONNECTIONS)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TIEREDSTORE_")}
        return subprocess.Popen(
            words,
            cwd=self.work,
            env={**environment, "NO_PROXY": "*", **self.bed.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, process, size):
        """Wait until so many bytes have been noted, or the process has ended."""
        until = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < until:
            logs = list(self.work.glob(".tieredstore/part/*/arrived"))
            if logs and self._length(logs[0]) // 28 * MIB >= size:
                return
            time.sleep(0.002)

    @staticmethod
    def _length(path):
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0

    def arrived(self):
        """Bytes of the file that are right on the disk, block by block."""
        parts = [
            *self.work.glob(".tieredstore/part/*/wip/data.bin"),
            *self.work.glob(".tieredstore/part/*/files/data.bin"),
        ]
        if not parts:
            return 0
        there, whole, right = parts[0].read_bytes(), self.bed.data, 0
        for at in range(0, len(there), MIB):
            block = there[at : at + MIB]
            right += len(block) if block == whole[at : at + MIB] else 0
        return right

    def cut(self, how, at):
        """Run, cut off when ``at`` bytes have arrived; its exit status and words."""
        process = self.start()
        self.wait_for(process, at)
        if how == "killed":
            process.send_signal(signal.SIGKILL)
        elif how == "reset":
            self.bed.reset()
        elif how == "server":
            self.bed.kill_server()
        else:
            self._fill_disk(process)
        said = process.communicate(timeout=PATIENCE)[0]
        (self.work / "ballast").unlink(missing_ok=True)
        return process.returncode, said

    def _fill_disk(self, process):
        """Put so much on the disk that nothing more fits."""
        with (self.work / "ballast").open("wb", buffering=0) as ballast:
            while process.poll() is None:
                try:
                    ballast.write(bytes(MIB))
                except OSError:
                    return

    def go_on(self):
        """Run to the end; what was fetched beyond what had not arrived, in bytes."""
        arrived, mark = self.arrived(), self.bed.mark()
        process = self.start()
        said = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0, said
        found = hashlib.sha256((self.work / "out/data.bin").read_bytes()).digest()
        assert found == hashlib.sha256(self.bed.data).digest()
        assert not list(self.work.glob(".tieredstore/part/*"))
        if not self.bed.counted:
            return 0
        return self.bed.fetched(mark) - (len(self.bed.data) - arrived)
