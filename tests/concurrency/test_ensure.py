"""Many processes ensure one artifact: one builds, dies or fails, and the others go on from that.

``TIEREDSTORE_TEST_ENSURE_ROUNDS`` is how often each is done by 32 processes. In CI it is done once,
by fewer where they would only contend for the processor.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("TIEREDSTORE_TEST_ENSURE_ROUNDS", "0"))
MANY = {"flock": 32, "none": 32, "soft": 32, "s3": 32 if ROUNDS else 6}

pytestmark = pytest.mark.timeout(120 + 60 * ROUNDS)


class Crowd:
    """Starts the processes of one round, and reads what they answered."""

    def __init__(self, moto):
        self._moto = moto
        self._bucket = 0

    def run(self, root, locks, how, **more):
        order = {"root": str(root), "locks": locks, "how": how, "takes": 0.2, "count": MANY[locks]}
        order |= more
        environment = dict(os.environ)
        if locks == "s3":
            server = self._moto()
            self._bucket += 1
            url = server.make_bucket(f"ensure-{os.getpid()}-{self._bucket}")
            order["s3"] = [url, server.url]
            environment |= server.environment
        (root / "far/.tieredstore/lease").mkdir(parents=True)
        (root / "far/.tieredstore/lease/length.json").write_text('{"seconds": 4}')
        process = subprocess.Popen(
            [sys.executable, str(HERE / "ensuring.py"), json.dumps(order)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        try:
            ends = time.monotonic() + 60
            while self.count(root, "ready") < order["count"] and time.monotonic() < ends:
                time.sleep(0.01)
            (root / "go").mkdir()
            (root / "go" / "now").touch()
            codes = json.loads(process.communicate(timeout=100)[0])
        finally:
            process.kill()
            process.wait(10)
        answers = [json.loads(p.read_text()) for p in sorted((root / "answers").iterdir())]
        return codes, answers

    @staticmethod
    def count(root, what):
        return len(os.listdir(root / what)) if (root / what).exists() else 0


@pytest.fixture
def crowd(request):
    return Crowd(lambda: request.getfixturevalue("moto"))


@pytest.fixture
def root():
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


def rounds(root):
    for number in range(max(ROUNDS, 1)):
        folder = root / str(number)
        folder.mkdir()
        yield folder
        shutil.rmtree(folder)


def whole():
    sys.path.insert(0, str(HERE))
    try:
        from ensuring import FILES
    finally:
        sys.path.remove(str(HERE))
    return hashlib.sha256(b"".join(FILES.values())).hexdigest()


def left(root):
    """What must not be there any more: stages and notes."""
    areas = root.glob("*/.tieredstore")
    found = [p for area in areas for p in (area / "stage").glob("*")]
    return [
        *found,
        *root.glob("*/.tieredstore/lease/*.note"),
        *root.glob("far/.tieredstore/*.lock"),
    ]


LOCKS = pytest.mark.parametrize("locks", ["flock", "soft", "s3"])


@LOCKS
def test_one_builds_and_all_get_equal_bytes(crowd, root, locks):
    for folder in rounds(root):
        codes, answers = crowd.run(folder, locks, "ends")
        assert codes == [0] * MANY[locks]
        assert [a.get("bytes", a) for a in answers] == [whole()] * MANY[locks]
        assert crowd.count(folder, "build") == 1
        assert left(folder) == []
        host = socket.gethostname()
        said = [a["waits"][0] for a in answers if a["waits"]]
        assert len(said) == MANY[locks] - 1
        assert any("set: built by process " in s and f" on {host}" in s for s in said), said


def test_without_locks_all_get_equal_bytes(crowd, root):
    for folder in rounds(root):
        codes, answers = crowd.run(folder, "none", "ends", takes=0.1)
        assert codes == [0] * MANY["none"]
        assert [a.get("bytes", a) for a in answers] == [whole()] * MANY["none"]
        assert 1 <= crowd.count(folder, "build") <= MANY["none"]


@LOCKS
def test_when_the_builder_is_killed_one_other_builds(crowd, root, locks):
    for folder in rounds(root):
        codes, answers = crowd.run(folder, locks, "dies")
        assert sorted(codes) == [-9] + [0] * (MANY[locks] - 1)
        assert [a.get("bytes", a) for a in answers] == [whole()] * (MANY[locks] - 1)
        assert crowd.count(folder, "build") == 2


@LOCKS
def test_when_the_build_raises_nobody_else_tries_and_all_are_told_why(crowd, root, locks):
    for folder in rounds(root):
        codes, answers = crowd.run(folder, locks, "raises")
        assert codes == [0] * MANY[locks]
        assert crowd.count(folder, "build") == 1
        (builder,) = [a for a in answers if "raised" in a]
        assert "ValueError: no such input" in builder["raised"]
        told = [a for a in answers if "failed" in a]
        assert len(told) == MANY[locks] - 1
        expected = ("ValueError: no such input: secret=…", socket.gethostname(), builder["own"])
        assert {(a["failed"], a["host"], a["pid"]) for a in told} == {expected}


def test_nodes_with_several_processes_each(crowd, root):
    """One of each node waits for the volume's lease, the others of the node wait for that one."""
    for folder in rounds(root):
        codes, answers = crowd.run(folder, "soft", "raises", count=12, nodes=3)
        assert codes == [0] * 12
        assert crowd.count(folder, "build") == 1
        assert len([a for a in answers if "failed" in a]) == 11
