"""A worker process for one GPU, as the one that starts it sees it; see ``worker.py``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from datasets_prep.chunks import worker
from datasets_prep.chunks.phases import LOG, Phase
from datasets_prep.chunks.plan import Chunk

GRACE: Final = 10.0  # seconds that a command has to end by itself


class WorkerProcess:
    """One worker; started with its first task, and again when it has died.

    Parameters
    ----------
    gpu : str
        What ``CUDA_VISIBLE_DEVICES`` is to be; empty leaves it as it is.
    phase : Phase
        How chunks are made.
    folder : Path
        Where commands run.
    """

    def __init__(self, gpu: str, phase: Phase, folder: Path) -> None:
        self.gpu = gpu
        self._phase = phase
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._ending = threading.Lock()
        self._stopped = False

    def make(self, chunk: Chunk, output: Path) -> str:
        """Make one chunk's files in a folder, and say why it failed; nothing where it did not."""
        phase = self._phase
        return self._ask(
            {
                "folder": str(output),
                "log": str(output / LOG),
                "start": chunk.start,
                "end": chunk.end,
                "gpu": self.gpu,
                "command": phase.words(chunk),
                "callable": phase.callable,
                "environment": {**self._device(), phase.variable: str(output)},
                "cwd": str(self._folder),
            }
        )

    def make_all(self, start: int, end: int) -> str:
        """Run the phase's command once for a whole slice, its outputs where it puts them.

        What it prints goes where this process's errors go.
        """
        whole = Chunk(0, 0, 1, start, end)
        return self._ask(
            {
                "folder": str(self._folder),
                "log": "/dev/fd/2",
                "start": start,
                "end": end,
                "gpu": self.gpu,
                "command": self._phase.words(whole),
                "callable": self._phase.callable,
                "environment": self._device(),
                "cwd": str(self._folder),
            }
        )

    def _device(self) -> dict[str, str]:
        return {"CUDA_VISIBLE_DEVICES": self.gpu} if self.gpu else {}

    def stop(self) -> None:
        """End it, and what it runs: asked to at first, made to after a while. From any thread."""
        with self._ending:
            self._stopped = True
            process = self._process
        if process is None:
            return
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGTERM)

    def close(self) -> None:
        """End it at once."""
        with self._ending:
            process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        process.wait()

    def _ask(self, order: Mapping[str, Any]) -> str:
        process = self._started()
        if process is None:
            return "was told to stop"
        assert process.stdin is not None
        assert process.stdout is not None
        answer = ""
        with suppress(OSError):
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        if not answer:
            self.close()
            code = process.returncode
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            return f"the worker of {self.gpu or 'this machine'} {how}"
        error: str = json.loads(answer).get("error", "")
        return error

    def _started(self) -> subprocess.Popen[str] | None:
        with self._ending:
            if self._stopped:
                return None
            if self._process is None:
                self._process = subprocess.Popen(  # noqa: S603 - this library's own
                    # -P: modules beside worker.py must not hide those of the same name
                    [sys.executable, "-P", worker.__file__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=self._folder,
                    start_new_session=True,
                )
            return self._process
