"""A download that was cut off anywhere is gone on with: next to nothing is fetched twice."""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_BESIDE = importlib.util.spec_from_file_location(
    "tieredstore_tests_cutting", Path(__file__).with_name("cutting.py")
)
cutting = importlib.util.module_from_spec(_BESIDE)
sys.modules[_BESIDE.name] = cutting
_BESIDE.loader.exec_module(cutting)

CUTS = int(os.environ.get("TIEREDSTORE_DOWNLOAD_CUTS", "4"))  # 50 by hand
SIZE = 48 * cutting.MIB + 12345
_WAYS = [  # the first few are what runs in CI
    ("nginx", "killed"),
    ("hub", "killed"),
    ("nginx", "reset"),
    ("folder", "full"),
    ("hub", "server"),
    ("nginx", "server"),
    ("folder", "killed"),
    ("hub", "reset"),
    ("nginx", "full"),
    ("hub", "full"),
]


@pytest.fixture
def work(tmp_path):
    """A small disk of its own, where one can be had."""
    where = tmp_path / "work"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(where)]
    done = shutil.which("mount") and subprocess.run(mount, check=False, capture_output=True)
    mounted = done and not done.returncode
    yield where, bool(mounted)
    if mounted:
        subprocess.run(["umount", str(where)], check=True)


@pytest.fixture
def bed(tmp_path, load_server, make_proxy):
    """Make one by its name."""
    ends = []

    def made(name, data):
        if name == "folder":
            return cutting.FolderBed(tmp_path / "from", data)
        if name == "hub":
            pytest.importorskip("huggingface_hub", reason="needs the extra 'hf'")
            hub = load_server("hub").Hub()
            hub.start()
            ends.append(hub.stop)
            return cutting.HubBed(hub, sys.modules["hub_data"].Fault, data)
        module = load_server("nginx")
        if module.missing():
            pytest.skip(module.missing())
        nginx = module.make(tmp_path / "nginx", tmp_path / "served")
        nginx.start()
        ends.append(nginx.stop)
        return cutting.NginxBed(nginx, make_proxy(nginx.port), data)

    yield made
    for end in ends:
        end()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", range(CUTS))
def test_cut_off_and_gone_on_with(number, work, bed):
    place, how = _WAYS[number % len(_WAYS)]
    where, small = work
    if how == "full" and not small:
        pytest.skip("no small disk can be mounted here")
    chance = random.Random(f"{number}")
    data = chance.randbytes(SIZE)
    one = cutting.Cutting(bed(place, data), where)
    at = chance.randrange(SIZE)
    code, said = one.cut(how, at)
    if code == 0:  # it has gone on by itself, or was done before
        assert (where / "out/data.bin").read_bytes() == data
        return
    assert not (where / "out").exists()
    assert "Traceback" not in said
    if how == "full":
        assert code == 1
        assert "No space left" in said
    twice = one.go_on()
    logging.getLogger(__name__).warning("%s %s at %s: %s bytes twice", place, how, at, twice)
    assert twice <= cutting.CONNECTIONS * cutting.MIB + cutting.HEAD
