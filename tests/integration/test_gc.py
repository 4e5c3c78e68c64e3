"""``gc`` in mounted places: beside work that goes on, and against those that were stopped.

`TIEREDSTORE_TEST_GC_SECONDS` says for how long sixteen processes work beside a collector.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tieredstore import Tier, TieredStore
from tieredstore.backends.local import LocalBackend
from tieredstore.cli import run
from tieredstore.mounted import alive, vigil
from tieredstore.mounted import litter as mounted_litter

SECONDS = float(os.environ.get("TIEREDSTORE_TEST_GC_SECONDS", "5"))
PROCESSES, KILLS = 16, max(4, int(SECONDS))
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def looking():
    """The independent look at what is left."""
    path = HERE.parent / "crash" / "left_over.py"
    spec = importlib.util.spec_from_file_location("gc_left_over", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def elsewhere(monkeypatch):
    """Collect as another machine does, which knows nothing of this one's processes."""
    monkeypatch.setattr(alive, "lives", lambda name: None)
    monkeypatch.setattr(vigil, "SILENT", 0.0)
    monkeypatch.setattr(mounted_litter, "SILENT", 0.0)
    monkeypatch.setattr(vigil, "WATCH", 0.5)


def store_at(root):
    return TieredStore([Tier("here", LocalBackend(str(root)))])


def make(store, name, tag):
    with store.create(name, recipe={"tag": tag}) as stage:
        for n in range(5):
            (stage.path / f"{n}.bin").write_bytes(f"{tag} {n} ".encode() * 5000)


def tag_of(root, name):
    """The one generation that all files are of; fails where they are of several."""
    head = json.loads((root / name / ".tieredstore.json").read_bytes())
    tag = head["recipe"]["options"]["tag"]
    for n in range(5):
        data = (root / name / f"{n}.bin").read_bytes()
        assert data == f"{tag} {n} ".encode() * 5000, f"{n}.bin is not of {tag}"
    return tag


BUILDER = """
import os, signal, sys
from tieredstore import Tier, TieredStore
from tieredstore.mounted import alive
from tieredstore.backends.local import LocalBackend
from tieredstore.mounted.stage import Mount
alive.BEAT = 0.1
root, where = sys.argv[1:]
def stop():
    print("stopped", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
if where in {"publish", "place"}:
    real = getattr(Mount, {"publish": "publish", "place": "_place"}[where])
    def stopped(*args):
        stop()
        return real(*args)
    setattr(Mount, "publish" if where == "publish" else "_place", stopped)
store = TieredStore([Tier("here", LocalBackend(root))])
with store.create("set", recipe={"tag": "new"}) as stage:
    for n in range(5):
        (stage.path / f"{n}.bin").write_bytes(f"new {n} ".encode() * 5000)
        if where == "write" and n == 2:
            print("writing", flush=True)
            sys.stdin.readline()
            stop()
print("published", flush=True)
"""


class Builder:
    """A build that stops itself where it is told to."""

    def __init__(self, root, where):
        self.process = subprocess.Popen(
            [sys.executable, "-c", BUILDER, str(root), where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def said(self, word):
        line = self.process.stdout.readline()
        assert line.strip() == word, line + self.process.stderr.read()

    def stopped(self):
        self.said("stopped")
        stat = Path(f"/proc/{self.process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.01)

    def goes_on(self):
        self.process.send_signal(signal.SIGCONT)
        out, error = self.process.communicate(timeout=60)
        return "published" in out, error


STOPS = (
    ("write", "nothing"),
    ("publish", "old"),
    ("place", "nothing"),
    ("place", "old"),
    ("place", "beside"),
)


@pytest.mark.parametrize(("where", "there"), STOPS)
def test_a_stopped_builder_whose_stage_was_collected_publishes_nothing(
    tmp_path, elsewhere, looking, where, there
):
    store = store_at(tmp_path)
    if there != "nothing":
        make(store, "set", "old")
    if there == "beside":
        (tmp_path / "set" / "mine.py").write_bytes(b"mine")
    builder = Builder(tmp_path, where)
    if where == "write":
        builder.said("writing")
        (found,) = store.collect(grace=0.0)  # it lives: its sign changes while it is watched
        assert [left.what for left in found.dropped] == []
        builder.process.stdin.write("\n")
        builder.process.stdin.flush()
    builder.stopped()
    (found,) = store.collect(grace=0.0)
    assert "stage" in [left.what for left in found.dropped]
    published, error = builder.goes_on()
    assert not published
    assert "Traceback" in error
    if there == "nothing":
        assert not (tmp_path / "set" / ".tieredstore.json").exists()
    else:
        assert tag_of(tmp_path, "set") == "old"
    store.collect(grace=0.0)
    assert looking.left_over(tmp_path) == []


def test_a_builder_that_goes_on_while_its_stage_is_deleted(tmp_path, elsewhere, looking):
    """The collector is stopped half-way: what it has left is nowhere that a builder looks."""
    store = store_at(tmp_path)
    builder = Builder(tmp_path, "place")
    builder.stopped()
    real, seen = mounted_litter._delete, []

    def half(area, path):
        folder = tmp_path / ".tieredstore" / path / "files"
        if folder.is_dir():
            (folder / "3.bin").unlink()
            seen.append(builder.goes_on())
        real(area, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mounted_litter, "_delete", half)
        store.collect(grace=0.0)
    assert [published for published, _ in seen] == [False]
    assert not (tmp_path / "set").exists()
    store.collect(grace=0.0)
    assert looking.left_over(tmp_path) == []


WORKER = """
import os, random, sys, time
from tieredstore import Tier, TieredStore, errors
from tieredstore.backends.local import LocalBackend
root, number = sys.argv[1], int(sys.argv[2])
tiers = [Tier("here", LocalBackend(f"{root}/{number % 4}")),
         Tier("below", LocalBackend(f"{root}/below"), durable=True)]
store, choose = TieredStore(tiers), random.Random(number)
def build(stage):
    for n in range(5):
        (stage.path / f"{n}.bin").write_bytes(f"{stage.recipe.options['tag']} {n} ".encode() * 5000)
    time.sleep(choose.random() / 10)
done = failed = 0
print("ready", flush=True)
until = float(sys.stdin.readline())
while time.monotonic() < until:
    name, tag = f"set{choose.randrange(4)}", f"t{choose.randrange(3)}"
    recipe = {"tag": tag}
    try:
        what = choose.randrange(4)
        if what == 0:
            with store.create(name, recipe=recipe) as stage:
                build(stage)
        elif what == 1:
            store.promote(name, replace=True)
        elif what == 2:
            with store.restore(name) as got:
                assert len({got.open(f"{n}.bin").read()[:2] for n in range(5)}) == 1
        else:
            filling = store.fill(f"fill{number}", ["a", "b"], recipe=recipe)
            for file in ("a", "b"):
                path = filling.temporary(file)
                path.write_bytes(tag.encode())
                time.sleep(choose.random() / 20)
                filling.put(file, path)
        done += 1
    except (errors.ArtifactNotFound, errors.ArtifactChanged, errors.HeadConflict,
            errors.RecipeConflict, errors.PromoteFailed, FileNotFoundError) as error:
        failed += 1
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
print(done, failed)
"""


NAMES = ("set0", "set1", "set2", "set3")


class Crowd:
    """Processes that work on four first tiers and one below; some are killed and begun anew."""

    def __init__(self, root):
        self.root, self.until = root, 0.0
        self.killed, self.chosen = 0, random.Random(7)
        self.workers = {number: self.start(number) for number in range(PROCESSES)}

    def start(self, number):
        command = [sys.executable, "-c", WORKER, str(self.root), str(number)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def begin(self, worker):
        worker.stdin.write(f"{self.until}\n")  # by a clock that all processes have in common
        worker.stdin.flush()

    def begin_all(self):
        for worker in self.workers.values():
            assert worker.stdout.readline() == "ready\n"
        self.until = time.monotonic() + SECONDS
        for worker in self.workers.values():
            self.begin(worker)

    def kill_one(self):
        number = self.chosen.randrange(PROCESSES // 2)  # the others live to the end
        self.workers[number].kill()
        self.workers[number].communicate()
        self.workers[number] = self.start(number)
        self.begin(self.workers[number])
        self.killed += 1

    def ended(self):
        """How much was done, and what failed."""
        said = [worker.communicate(timeout=60) for worker in self.workers.values()]
        assert {worker.returncode for worker in self.workers.values()} == {0}, said
        done = sum(int(out.split()[-2]) for out, _ in said)
        return done, [line for _, error in said for line in error.splitlines()]


@pytest.fixture
def memory():
    """A folder in memory where there is one: publications flush the file system all the time."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


def test_beside_live_work_nothing_is_lost(memory, looking):
    """Sixteen processes, some of them killed now and then, and a collector with half a second."""
    places = [memory / str(n) for n in range(4)]
    below = Tier("below", LocalBackend(str(memory / "below")), durable=True)
    store = TieredStore([*(Tier(path.name, LocalBackend(str(path))) for path in places), below])
    for name in NAMES:
        make(store, name, "t0")
        store.promote(name)
    crowd, dropped = Crowd(memory), 0
    crowd.begin_all()
    while time.monotonic() < crowd.until:
        if crowd.killed == 0 or (time.monotonic() < crowd.until - 1 and crowd.killed < KILLS):
            crowd.kill_one()
        collected = store.collect(grace=0.5)
        assert [found.failed for found in collected] == [""] * 5
        dropped += sum(len(found.dropped) for found in collected)
    done, errors = crowd.ended()
    # What is worked on is never gone under who works on it; to lose a race against others is.
    assert [line for line in errors if ".tieredstore/" in line] == []
    for place in [*places, memory / "below"]:
        (found,) = store_at(place).collect(grace=0.0)
        dropped += len(found.dropped)
        assert looking.left_over(place) == []
        for path in place.glob("set*/.tieredstore.json"):
            tag_of(place, path.parent.name)
    assert all((memory / "below" / name / ".tieredstore.json").exists() for name in NAMES)
    assert done >= PROCESSES, errors
    assert dropped > 0
    assert crowd.killed > 0
    said = f"{done} done, {len(errors)} lost races, {crowd.killed} killed, {dropped} dropped"
    logging.getLogger(__name__).info(said)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tieredstore.toml").write_text(
        '[[tier]]\nname = "local"\nbackend = "local"\npath = "data"\n'
    )
    area = tmp_path / "data" / ".tieredstore"
    for path in ("old/x/a", "damaged/y/b", "strange/c"):
        (area / path).parent.mkdir(parents=True)
        (area / path).write_bytes(b"12345")
    assert run(["gc", "--dry-run", "--older-than", "0s"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[1] for line in lines[:3]] == ["damaged", "old", "unknown"]
    assert lines[3:] == [
        "3 left over in local, 15 B",
        "1 damaged, kept until --damaged is given",
        "1 unknown, left alone",
    ]
    assert run(["gc", "--older-than", "0s"]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "dropped 1 of 3 in local, 5 B freed",
        "1 damaged, kept until --damaged is given",
        "1 unknown, left alone",
    ]
    assert run(["gc", "--older-than", "0s", "--damaged", "--json"]) == 0
    (tier,) = json.loads(capsys.readouterr().out)["tiers"]
    assert {one["what"]: one["dropped"] for one in tier["litter"]} == {
        "damaged": True,
        "unknown": False,
    }
    assert (area / "strange" / "c").read_bytes() == b"12345"
