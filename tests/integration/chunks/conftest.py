"""A project with a small runner, a volume beside its disk, and the command to run it in chunks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tieredstore import TieredStore, open_store

RUNNER = '''
"""Makes items: one number for each, and a line of what it was told."""
import os, pathlib, sys, time

start, end = int(sys.argv[1]), int(sys.argv[2])
out = pathlib.Path(os.environ.get("PHASE1_OUTPUT_DIR", "plain"))
out.mkdir(exist_ok=True)
print(f"items {start} to {end}, GPU {os.environ.get('CUDA_VISIBLE_DEVICES', 'none')}", flush=True)
notes = pathlib.Path("notes")
notes.mkdir(exist_ok=True)
(notes / f"{start}-{os.getpid()}").touch()
time.sleep(float(os.environ.get("SLOW", "0")))
failing = os.environ.get("FAIL", "")
if failing and failing in {str(start), "gpu" + os.environ.get("CUDA_VISIBLE_DEVICES", "")}:
    print("a long story", file=sys.stderr)
    print("it went wrong here", file=sys.stderr)
    raise SystemExit(3)
data = b"".join(n.to_bytes(4, "little") for n in range(start, end + 1))
(out / "data.bin").write_bytes(data[: len(data) // 2])
time.sleep(float(os.environ.get("SLOW", "0")))
with open(out / "data.bin", "ab") as file:
    file.write(data[len(data) // 2 :])
'''


class Project:
    """Where a run is started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "volume").mkdir()
        (folder / "run.py").write_text(RUNNER)
        (folder / "tieredstore.toml").write_text(
            '[[tier]]\nname = "local"\nbackend = "local"\npath = "data"\n'
            '[[tier]]\nname = "volume"\nbackend = "local"\npath = "volume"\ndurable = true\n'
        )
        self.command = ["--output", "*.bin", "--", sys.executable, "run.py", "{start}", "{end}"]

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start the command ``datasets-prep chunks``."""
        return subprocess.Popen(
            [sys.executable, "-m", "datasets_prep.cli", "chunks", *arguments],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run it to its end: its exit status, and all that it says."""
        with self.start(*arguments, **environment) as process:
            said, _ = process.communicate(timeout=100)
        return process.returncode, said

    def run(self, *options: str, end: int = 99, **environment: str) -> tuple[int, str]:
        """Run a range in chunks of ten."""
        return self.call(*self.words(*options, end=end), **environment)

    def words(self, *options: str, end: int = 99) -> list[str]:
        """The arguments of that."""
        which = ["run", "--phase", "1", "--end", str(end), "--chunk-size", "10"]
        workers = [] if {"--gpus", "--workers"} & set(options) else ["--workers", "2"]
        return [*which, *workers, *options, *self.command]

    def store(self) -> TieredStore:
        """Its store."""
        return open_store(self.folder / "tieredstore.toml")

    def notes(self) -> list[int]:
        """The first item of every chunk that was begun, as often as it was."""
        return sorted(int(note.name.split("-")[0]) for note in (self.folder / "notes").iterdir())

    def merged(self) -> bytes:
        """All merged ``.bin`` files, in order."""
        found = sorted((self.folder / "data" / "phase1_0").glob("dataset_*.bin"))
        return b"".join(path.read_bytes() for path in found)


def items(end: int = 99) -> bytes:
    """What a run of so many items has to give."""
    return b"".join(n.to_bytes(4, "little") for n in range(end + 1))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)
