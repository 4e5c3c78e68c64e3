"""The peers of the S3 benchmark: what each is called with to do one case, and its version."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

CLIENTS = Path(__file__).with_name("s3_clients.py")
PACKAGES = {
    "tieredstore": "tieredstore",
    "tieredstore-fsspec": "tieredstore",
    "s3fs": "s3fs",
    "msc": "multi-storage-client",
}
PROGRAMS = ("s5cmd", "rclone")


@dataclass(frozen=True)
class Job:
    """One thing to do.

    Attributes
    ----------
    verb : str
        ``restore`` or ``promote``.
    set : str
        Which files: ``large`` or ``small``.
    endpoint, bucket : str
        Where the server is.
    root : str
        The prefix below which a store keeps artifacts.
    prefix : str
        The prefix of the very files: what a client without a manifest is told.
    folder : str
        The folder on this machine: to restore to, or to promote from.
    """

    verb: str
    set: str
    endpoint: str
    bucket: str
    root: str
    prefix: str
    folder: str


class Peer:
    """A client that can do every case."""

    def __init__(self, name: str, program: str = "") -> None:
        self.name = name
        self.program = program

    @property
    def is_python(self) -> bool:
        """Whether it runs in our interpreter and can say how long the operation alone took."""
        return not self.program

    @property
    def keeps_manifest(self) -> bool:
        """Whether it works on artifacts; the others copy the files alone."""
        return self.name.startswith("tieredstore")

    @property
    def version(self) -> str:
        if self.is_python:
            return importlib.metadata.version(PACKAGES[self.name])
        said = subprocess.run([self.program, "version"], capture_output=True, text=True, check=True)
        return said.stdout.splitlines()[0].removeprefix("rclone ")

    def command(self, job: Job) -> list[str]:
        """The whole command line."""
        if self.is_python:
            return [sys.executable, str(CLIENTS), self.name, job.verb, json.dumps(asdict(job))]
        return _s5cmd(self.program, job) if self.name == "s5cmd" else _rclone(self.program, job)


def _s5cmd(program: str, job: Job) -> list[str]:
    there = f"s3://{job.bucket}/{job.prefix}/"
    ends = [f"{there}*", f"{job.folder}/"] if job.verb == "restore" else [f"{job.folder}/", there]
    return [program, "--endpoint-url", job.endpoint, "cp", *ends]


def _rclone(program: str, job: Job) -> list[str]:
    """With as many transfers at once as help it; its default is 4.

    Uploads go part by part in its S3 client and are not looked at afterwards: a sink that leaves
    the parts as they are could not show them. Nor is a file's MD5 made beforehand, for its speed.
    """
    server = f":s3,provider=Other,env_auth=true,list_version=2,endpoint='{job.endpoint}'"
    options = "no_check_bucket=true,no_head=true,disable_checksum=true,upload_concurrency=16"
    there = f"{server},{options}:{job.bucket}/{job.prefix}"
    command = [program, "--config", os.devnull, "copy", "--transfers", "64"]
    if job.verb == "restore":
        return [*command, there, job.folder]
    return [*command, "--multi-thread-cutoff", "1P", job.folder, there]


def find(names: list[str], programs: dict[str, str]) -> tuple[list[Peer], dict[str, str]]:
    """The peers that are installed, and why others are not there.

    Parameters
    ----------
    names : list of str
        Those wanted.
    programs : dict
        Where ``s5cmd`` and ``rclone`` are, where that was said.
    """
    found, missing = [], {}
    for name in names:
        if name in PROGRAMS:
            program = programs.get(name) or _program(name)
            if program is None:
                missing[name] = "no such program"
            else:
                found.append(Peer(name, program))
        elif _installed(PACKAGES[name]):
            found.append(Peer(name))
        else:
            missing[name] = f"pip install {PACKAGES[name]}"
    return found, missing


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _program(name: str) -> str | None:
    """A program; the one inside a Python package of its name, without the package's wrapper."""
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin is not None:
        inside = Path(spec.origin).parent / "bin" / name
        if inside.exists():
            return str(inside)
    return shutil.which(name)
