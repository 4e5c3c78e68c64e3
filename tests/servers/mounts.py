"""What the network file systems of this folder share: processes, mount points, two of them.

Each of them gives a `Cluster`: one file system that is mounted twice on this machine, as two nodes
would see it. Only starting, waiting for and ending belong here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

PATH = f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin"


def missing_program(programs: dict[str, str]) -> str:
    """Why file systems cannot be mounted here, or an empty text; programs with their packages."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse"
    for program, package in programs.items():
        if shutil.which(program, path=PATH) is None:
            return f"{program} is not installed (apt-get install {package})"
    return ""


def find(program: str) -> str:
    """Where a program lies."""
    found = shutil.which(program, path=PATH)
    assert found is not None, f"{program} is not installed"
    return found


@dataclass
class Cluster:
    """One file system, mounted twice.

    Attributes
    ----------
    folder : Path
        Its configuration and logs.
    mounts : tuple of Path
        The two mounts of it.
    processes : dict
        What was started, by name; mounts are ``A`` and ``B``.
    """

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def mounts(self) -> tuple[Path, Path]:
        """Where it is mounted."""
        return self.folder / "A", self.folder / "B"

    def spawn(self, name: str, *command: str) -> None:
        """Start a daemon, in the foreground of its own process."""
        with (self.folder / f"{name}.out").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [find(command[0]), *command[1:]], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def mount(self, name: str, *command: str) -> None:
        """Start a daemon that mounts, and return when its folder is a mount."""
        point = self.folder / name
        point.mkdir(exist_ok=True)
        self.spawn(name, *command)
        until = time.monotonic() + 30
        while not os.path.ismount(point):
            if self.processes[name].poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} did not mount: {self.said(name)}")
            time.sleep(0.02)

    def said(self, name: str) -> str:
        """The end of what a daemon printed."""
        return (self.folder / f"{name}.out").read_text(errors="replace")[-500:]

    def stop(self) -> None:
        """Take the mounts away and end the processes that were started, and no others."""
        for point in self.mounts:
            if os.path.ismount(point):
                subprocess.run(["umount", "-l", str(point)], check=False, capture_output=True)
        for name in reversed(list(self.processes)):
            process = self.processes.pop(name)
            process.kill()
            process.wait(10)
