"""What is left over in a mounted place: found when it is, and never while somebody works on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tieredstore import Tier, TieredStore
from tieredstore.backends.local import LocalBackend
from tieredstore.backends.runpod import RunPodBackend
from tieredstore.manifest.artifact import digest128, new_generation
from tieredstore.mounted import alive, vigil
from tieredstore.mounted import litter as mounted_litter
from tieredstore.mounted.stage import Mount

DAY = 86400.0
OLD = time.time() - 30 * DAY


@pytest.fixture(scope="module")
def dead():
    """The end of a name that a process gave which has ended."""
    code = "from tieredstore.mounted import alive; print(alive.temporary(''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def foreign():
    """The end of a name that a process on another machine gave."""
    return f"{'a' * 12}.{alive.temporary('').partition('.')[2]}"


@pytest.fixture(params=[LocalBackend, RunPodBackend], ids=["local", "volume"])
def backend(request, tmp_path):
    (tmp_path / "root").mkdir()
    return request.param(str(tmp_path / "root"))


@pytest.fixture
def area(backend):
    os.close(backend.mount.area("stage"))
    return Path(backend.place, ".tieredstore")


@pytest.fixture
def quick(monkeypatch):
    """Others are silent at once, and are watched for a moment."""
    monkeypatch.setattr(vigil, "SILENT", 0.0)
    monkeypatch.setattr(mounted_litter, "SILENT", 0.0)
    monkeypatch.setattr(vigil, "WATCH", 0.3)


def put(area, path, data=b"bytes"):
    (area / path).parent.mkdir(parents=True, exist_ok=True)
    (area / path).write_bytes(data)
    return area / path


def found(backend, grace=0.0):
    return {left.path.removeprefix(".tieredstore/"): left.what for left in backend.litter(grace)}


def test_nothing_in_a_place_that_was_never_written(tmp_path):
    assert list(LocalBackend(str(tmp_path / "none")).litter(0.0)) == []
    assert not (tmp_path / "none").exists()


def test_what_is_dead_is_found_and_dropped(backend, area, dead):
    generation = new_generation()
    expected = {
        f"stage/{generation}": "stage",
        f"part/{generation}": "part",
        f"old/{generation}-01234567": "old",
        "old/0123456789abcdef-train.bin": "old",
        "damaged/" + generation: "damaged",
        "stage/fill-0123456789abcdef-0123": "fill",
        f"stage/mark-{dead}": "temporary",
        f"stage/manifest-{dead}": "temporary",
        f"swap/.note.{dead}": "temporary",
        "swap/" + "0" * 32 + "-01234567": "swap",
        f"fill/{generation}.json": "fill",
        f"fill/{generation}.{dead}": "temporary",
        f"lease/length.json.{dead}": "temporary",
        f"gone/{dead}": "temporary",
        f"alive/{generation}.{dead}": "sign",
        f"space/x.{dead}": "space",
        f"evict/x.{dead}": "evict",
        f"clock-{dead}": "temporary",
        "swap/unread": "swap",
        "stage/mine.txt": "unknown",
        "something": "unknown",
    }
    for path in expected:
        tree = path.split("/")[0] in {"stage", "part", "old"} and generation in path
        put(area, f"{path}/files/x" if tree else path)
    put(area, "lease/length.json", b'{"seconds": 30.0}')
    put(area, "lease/name-0123456789ab.lock", b"")
    put(area, "record/plan-0123456789abcdef/1/value.json")
    assert found(backend, DAY) == {"stage/mine.txt": "unknown", "something": "unknown"}
    assert found(backend) == expected
    before = sum(left.size for left in backend.litter(0.0))
    assert before == 5 * len(expected)
    for left in list(backend.litter(0.0)):
        if left.what != "unknown":
            assert backend.drop(left) == left.size
            assert backend.drop(left) is None
    assert set(found(backend).values()) == {"unknown"}
    files = {str(p.relative_to(area)) for p in area.rglob("*") if p.is_file()}
    known = {".gitignore", "lease/length.json", "lease/name-0123456789ab.lock"}
    known.add("record/plan-0123456789abcdef/1/value.json")
    assert files == known | {"stage/mine.txt", "something"}


def test_what_a_living_process_works_on_is_left(backend, area):
    generation = new_generation()
    staged = backend.mount.staged("part", generation)
    put(area, f"part/{generation}/wip/x")
    mine = alive.temporary("mark-")
    put(area, f"stage/{mine}")
    assert found(backend) == {}
    staged.leave()
    assert found(backend) == {f"part/{generation}": "part"}


def test_what_another_machine_works_on_is_left_while_its_sign_changes(
    backend, area, foreign, quick
):
    generation = new_generation()
    put(area, f"stage/{generation}/files/x")
    sign = put(area, f"alive/{generation}.{foreign}")
    marker = put(area, "lease/x-0123456789ab.lock", b"pid=1\nhost=elsewhere\n")
    over = threading.Event()

    def beat():
        clock = 1.0
        while not over.wait(0.05):
            clock += 1.0  # far behind: only that it changes counts
            for path in (sign, marker):
                os.utime(path, (clock, clock))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        assert found(backend) == {}
    finally:
        over.set()
        thread.join()
    assert found(backend) == {
        f"stage/{generation}": "stage",
        f"alive/{generation}.{foreign}": "sign",
        "lease/x-0123456789ab.lock": "lease",
    }


def test_who_wakes_between_the_look_and_the_end_keeps_its_stage(backend, area, foreign, quick):
    generation = new_generation()
    put(area, f"stage/{generation}/files/sub/x")
    sign = put(area, f"alive/{generation}.{foreign}")
    (left,) = [one for one in backend.litter(0.0) if one.what == "stage"]
    os.utime(sign)  # it goes on
    assert backend.drop(left) is None
    (left,) = [one for one in backend.litter(0.0) if one.what == "stage"]
    (area / "stage" / generation / "files" / "sub" / "x").unlink()  # and was published
    assert backend.drop(left) is None
    assert (area / "stage" / generation / "files" / "sub").is_dir()


def test_another_machine_is_not_watched_before_it_has_been_silent(backend, area, foreign):
    generation = new_generation()
    put(area, f"stage/{generation}/files/x")
    put(area, f"alive/{generation}.{foreign}")
    put(area, f"stage/mark-{foreign}")
    since = time.monotonic()
    assert found(backend) == {}
    assert time.monotonic() - since < vigil.WATCH / 2


def test_grace_counts_the_newest_change_in_a_tree(backend, area):
    generation = new_generation()
    for name in ("a", "b"):
        os.utime(put(area, f"part/{generation}/files/{name}"), (OLD, OLD))
    os.utime(area / "part" / generation, (OLD, OLD))
    assert found(backend, 3600.0) == {}  # old times are the data's own
    time.sleep(1.2)
    assert found(backend, 1.0) == {f"part/{generation}": "part"}
    put(area, f"part/{generation}/files/b", b"again!")
    assert found(backend, 1.0) == {}


def test_a_clock_that_is_wrong_changes_nothing(backend, area, monkeypatch):
    put(area, f"part/{new_generation()}/files/x")
    monkeypatch.setattr(time, "time", lambda: 2e9 * 2)
    assert found(backend, DAY) == {}
    assert len(found(backend, 0.0)) == 1


def test_a_publication_sweeps_by_the_places_clock(backend, area, monkeypatch):
    put(area, "old/0123456789abcdef-train.bin")
    monkeypatch.setattr(time, "time", lambda: 2e9 * 2)
    backend.mount.sweep_old()
    assert (area / "old" / "0123456789abcdef-train.bin").exists()
    backend.mount.sweep_old(grace=-1.0)
    assert not (area / "old" / "0123456789abcdef-train.bin").exists()


def test_what_came_into_use_is_put_back(backend, area):
    generation = new_generation()
    put(area, f"part/{generation}/files/x")
    (left,) = backend.litter(0.0)
    staged = backend.mount.staged("part", generation)
    assert backend.drop(left) is None
    assert (area / "part" / generation / "files" / "x").read_bytes() == b"bytes"
    staged.leave()
    (left,) = backend.litter(0.0)
    put(area, f"part/{generation}/files/y")
    assert backend.drop(left) is None
    assert found(backend) == {f"part/{generation}": "part"}


def test_a_stage_that_a_mark_names_is_completed_and_never_dropped(backend, area, monkeypatch):
    folder = Path(backend.place, "set")
    store = TieredStore([Tier("here", backend)])
    for data in (b"old", b"new"):
        folder.mkdir(exist_ok=True)
        (folder / "mine.py").write_bytes(b"mine")  # so that files are replaced one by one
        if data == b"new":
            monkeypatch.setattr("tieredstore.mounted.stage.roll_forward", stop)
        try:
            with store.create("set") as stage:
                monkeypatch.setattr(type(stage._staged), "delete", lambda self: self.leave())
                (stage.path / "a").write_bytes(data)
        except Stopped:
            pass
    assert list((area / "stage").iterdir()) != []
    calls = []
    monkeypatch.setattr(Mount, "complete", lambda self, folder: calls.append(folder))
    assert "stage" not in found(backend).values()
    assert calls == ["set"]
    monkeypatch.undo()
    assert set(found(backend).values()) <= {"old"}
    assert (folder / "a").read_bytes() == b"new"
    assert (folder / "mine.py").read_bytes() == b"mine"


class Stopped(BaseException):
    """In the place of a kill."""


def stop(*_):
    raise Stopped


def test_the_ledger_of_a_filling_that_may_go_on_is_left(tmp_path):
    store = TieredStore([Tier("here", LocalBackend(str(tmp_path / "root")))])
    backend = store.tiers[0].backend
    filling = store.fill("set", ["a", "b"])
    path = filling.temporary("a")
    path.write_bytes(b"a")
    filling.put("a", path)
    other = filling.temporary("b")
    other.write_bytes(b"b")
    assert found(backend) == {}
    del filling
    assert found(backend) == {f"stage/{other.name}": "fill"}
    (tmp_path / "root" / "set" / ".tieredstore.pending").rename(tmp_path / "mark")
    assert sorted(found(backend).values()) == ["fill", "fill"]


def test_a_note_that_waits_for_its_second_step_is_completed(backend, area):
    staged = backend.mount.staged("stage", new_generation())
    store = TieredStore([Tier("here", backend)])
    with store.create("set") as stage:
        (stage.path / "a").write_bytes(b"a")
    os.rename(area.parent / "set", area.parent / staged.path)
    staged.leave()
    note = f"{digest128(b'set')}-01234567"
    put(area, f"swap/{note}", json.dumps({"folder": "set", "staged": staged.path}).encode())
    left = found(backend)
    assert (area.parent / "set" / "a").read_bytes() == b"a"
    assert set(left.values()) == {"stage", "swap"}  # what the files were in, and what is over


def test_a_note_on_a_folder_that_files_are_put_in_is_over(backend, area):
    """A replacement in two steps was killed before the first; then a filling began, and ended."""
    store = TieredStore([Tier("here", backend)])
    with store.create("set") as stage:
        (stage.path / "a").write_bytes(b"a")
    staged = backend.mount.staged("stage", new_generation())
    put(area.parent, f"{staged.path}/a", b"A")
    staged.leave()
    note = f"{digest128(b'set')}-01234567"
    put(area, f"swap/{note}", json.dumps({"folder": "set", "staged": staged.path}).encode())
    filling = store.fill("set", ["a", "b"])
    path = filling.temporary("a")
    path.write_bytes(b"new")
    filling.put("a", path)
    assert set(found(backend).values()) == {"stage", "swap"}


def test_a_note_that_leads_elsewhere_is_not_followed(backend, area):
    put(area.parent.parent, "outside/x")
    staged = f".tieredstore/stage/{new_generation()}/files"
    put(area.parent, f"{staged}/x")
    for n, folder in enumerate(("../outside", "/", "..", "")):
        body = json.dumps({"folder": folder, "staged": staged}).encode()
        put(area, f"swap/{n}", body)
    assert set(found(backend).values()) == {"swap", "stage"}
    assert (area.parent.parent / "outside" / "x").exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_in_the_area_is_never_followed(backend, area, kind):
    outside = area.parent.parent / "outside"
    put(outside, "x")
    (area / "old").mkdir()
    os.symlink(outside / "x" if kind == "file" else outside, area / "old" / "link")
    (left,) = backend.litter(0.0)
    assert backend.drop(left) is not None
    assert (outside / "x").read_bytes() == b"bytes"
    assert list((area / "old").iterdir()) == []


def test_leases_of_dead_holders(tmp_path, request):
    (tmp_path / "root").mkdir()
    backend = RunPodBackend(str(tmp_path / "root"))
    with backend.lease("mine", 5, print):
        assert found(backend) == {}
    request.getfixturevalue("quick")
    code = (
        "import os, sys; from tieredstore.backends.runpod import RunPodBackend; "
        "held = RunPodBackend(sys.argv[1]).lease('theirs', 5, print); held.__enter__(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, backend.place], check=False)
    put(tmp_path / "root" / ".tieredstore", "lease/empty-0123456789ab.lock", b"")
    (first, second) = sorted(backend.litter(0.0), key=lambda left: left.path)
    assert [first.what, second.what] == ["lease", "lease"]
    assert "empty" in first.path
    assert "theirs" in second.path
    for left in (first, second):
        assert backend.drop(left) is not None
    with backend.lease("theirs", 1, print), backend.lease("empty", 1, print):
        pass


def test_pins_that_are_over(backend, area):
    now = time.time()
    put(area, "pins/over", json.dumps({"created": now - 9 * DAY, "length": 60}).encode())
    put(area, "pins/stands", json.dumps({"created": now - 60, "length": DAY}).encode())
    put(area, "pins/unread", b"{")
    assert found(backend) == {"pins/unread": "unknown"}  # its file is not an hour old
    assert found(backend, DAY) == {"pins/unread": "unknown"}
