"""Processes that work on one store at once. `crew` starts functions of ``work.py`` in processes."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

WORK = Path(__file__).with_name("work.py")


class Crew:
    """Starts processes, and collects what each of them answered."""

    def __init__(self, root):
        self.root = root
        self.processes = []

    def start(self, function, **options):
        order = json.dumps({"function": function, "root": str(self.root), **options})
        process = subprocess.Popen(
            [sys.executable, str(WORK), order], stdout=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        return process

    def answer(self, process, timeout=100):
        out, _ = process.communicate(timeout=timeout)
        assert process.returncode == 0, f"{process.args[-1]} ended with {process.returncode}"
        return json.loads(out)

    def all(self, *orders, timeout=100):
        started = [self.start(function, **options) for function, options in orders]
        return [self.answer(process, timeout) for process in started]

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(10)
            process.stdout.close()


@pytest.fixture
def root():
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def crew(root):
    crew = Crew(root)
    yield crew
    crew.stop()


@pytest.fixture
def moto(tmp_path):
    path = WORK.parents[1] / "servers" / "moto.py"
    spec = importlib.util.spec_from_file_location("concurrency_moto", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    why = module.missing()
    if why:
        pytest.skip(why)
    server = module.start(tmp_path)
    yield server
    server.stop()
