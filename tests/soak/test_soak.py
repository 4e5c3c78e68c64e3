"""The soak for some seconds: that nothing is torn, lost or raised that has no name.

Whether memory and open files stay flat shows only in a long run, ``soak.py`` by itself.
``TIEREDSTORE_TEST_SOAK`` says how many seconds (CI: 12).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(7200)
SECONDS = float(os.environ.get("TIEREDSTORE_TEST_SOAK", "12"))


@pytest.fixture
def folder():
    memory = Path("/dev/shm")
    made = tempfile.mkdtemp(prefix="soak-", dir=memory if memory.is_dir() else None)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_mixed_work_among_faults(folder, load_server, monkeypatch):
    why = load_server("moto").missing()
    if why:
        pytest.skip(why)
    path = Path(__file__).with_name("soak.py")
    spec = importlib.util.spec_from_file_location("tieredstore_soak", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    for key in load_server("moto").Moto(None, "").environment:
        monkeypatch.setenv(key, "")
    findings, report = module.Soak(folder, SECONDS).run()
    assert not findings, "\n".join([*report, *findings])
    assert "operations" in report[0]
