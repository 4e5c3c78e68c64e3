"""Killed while room is made for a restore: nothing is lost, and the next one has its room."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

EACH = 1 if os.environ.get("TIEREDSTORE_TEST_CRASH_ALL") else 6


@pytest.fixture
def fast():
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


def test_a_restore_that_evicts_is_killed_at_any_step(fast):
    script = str(Path(__file__).with_name("evicting.py"))
    done = subprocess.run(
        [sys.executable, script, str(fast), str(EACH)], stdout=subprocess.PIPE, check=True
    )
    said = json.loads(done.stdout)
    assert said["bad"] == []
    assert said["steps"] >= 50
    assert said["killed"] >= said["steps"] // EACH - 2
