"""Publication on mounted places: exchange, move aside, one by one; completed after interruption."""

from __future__ import annotations

import os
import threading

import pytest

from tieredstore.backend import ANY_HEAD
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import ArtifactChanged, ManifestError, UnsafePath
from tieredstore.manifest.artifact import HEAD, RECORDS
from tieredstore.mounted import beneath
from tieredstore.mounted.marks import Marks, Pending
from tieredstore.mounted.staged import Staged
from tieredstore.testing.samples import Sample, publish, read_artifact, stage

OLD = {"train.bin": b"old train", "sub/val.bin": b"old val", "only-old": b"x"}
NEW = {"train.bin": b"new train, longer", "sub/val.bin": b"new val", "sub/more": b"y"}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def backend(root):
    return LocalBackend(str(root))


@pytest.fixture(params=["exchange", "aside"])
def way(request, monkeypatch):
    """With and without a file system that exchanges folders."""
    if request.param == "aside":
        monkeypatch.setattr(beneath, "renameat2_exchange", lambda *_: False)
    return request.param


def test_replacing_keeps_the_old_generation_for_the_grace_period(backend, root, way):
    old = publish(backend, "name", Sample.of(OLD))
    publish(backend, "name", Sample.of(NEW))
    assert read_artifact(backend, "name") == NEW
    kept = [p.name for p in (root / ".tieredstore" / "old").iterdir()]
    assert len(kept) == 1
    assert kept[0].startswith(old.generation)
    assert (root / ".tieredstore" / "old" / kept[0] / "only-old").read_bytes() == b"x"
    backend.mount.sweep_old(grace=-1)
    assert list((root / ".tieredstore" / "old").iterdir()) == []
    assert read_artifact(backend, "name") == NEW


def test_nothing_is_left_staged_after_publication(backend, root, way):
    for files in (OLD, NEW):
        publish(backend, "name", Sample.of(files))
    left = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]
    left = [p for p in left if not p.startswith((".tieredstore/old", ".tieredstore/lease"))]
    assert sorted(left) == sorted(
        [".tieredstore/.gitignore", f"name/{HEAD}", f"name/{RECORDS}"] + [f"name/{p}" for p in NEW]
    )


def test_the_own_area_is_ignored_by_git(backend, root):
    publish(backend, "name", Sample.of(OLD))
    assert (root / ".tieredstore" / ".gitignore").read_text() == "*\n"


def test_a_held_generation_stays_readable_while_it_is_replaced(backend, way):
    publish(backend, "name", Sample.of(OLD))
    held = backend.hold("name")
    publish(backend, "name", Sample.of(NEW))
    for path, data in OLD.items():
        with os.fdopen(held.open(path), "rb") as file:
            assert file.read() == data
    held.close()


def test_a_reader_does_the_second_step_of_a_replacement(backend, root, monkeypatch):
    publish(backend, "name", Sample.of(OLD))
    monkeypatch.setattr(beneath, "renameat2_exchange", lambda *_: False)
    place_new = backend.mount.place_new
    seen = []

    def interrupted(*args):
        seen.append((root / "name").exists())
        seen.append(read_artifact(LocalBackend(str(root)), "name"))
        return place_new(*args)

    monkeypatch.setattr(backend.mount, "place_new", interrupted)
    publish(backend, "name", Sample.of(NEW))
    assert seen == [False, NEW]
    assert read_artifact(backend, "name") == NEW
    assert list((root / ".tieredstore" / "swap").iterdir()) == []


def test_a_swap_note_that_lies_is_not_followed(backend, root):
    publish(backend, "name", Sample.of(OLD))
    publish(backend, "other", Sample.of(NEW))
    swap = root / ".tieredstore" / "swap"
    swap.mkdir(exist_ok=True)
    from tieredstore.manifest.artifact import digest128

    for target in ("name", "../outside", ".tieredstore/stage/../../name", "/etc"):
        note = swap / f"{digest128(b'gone')}-{os.urandom(4).hex()}"
        note.write_text(f'{{"folder": "gone", "staged": "{target}"}}')
    assert backend.read_head("gone") is None
    assert read_artifact(backend, "name") == OLD
    assert not (root / "gone").exists()


# -- beside a foreign file ---------------------------------------------------------------------


@pytest.fixture
def foreign(root):
    (root / "name").mkdir(parents=True)
    (root / "name" / "prepare.py").write_bytes(b"print('mine')")
    yield
    assert (root / "name" / "prepare.py").read_bytes() == b"print('mine')"


def test_a_foreign_file_stays_where_it_is(backend, root, foreign):
    inode = (root / "name" / "prepare.py").stat().st_ino
    publish(backend, "name", Sample.of(OLD))
    assert read_artifact(backend, "name") == OLD
    publish(backend, "name", Sample.of(NEW))
    assert read_artifact(backend, "name") == NEW
    assert (root / "name" / "prepare.py").stat().st_ino == inode
    found = {str(p.relative_to(root / "name")) for p in (root / "name").rglob("*") if p.is_file()}
    assert found == {"prepare.py", HEAD, RECORDS, *NEW}


def test_a_reader_that_held_files_replaced_in_place_is_told(backend, foreign):
    publish(backend, "name", Sample.of(OLD))
    held = backend.hold("name")
    publish(backend, "name", Sample.of(NEW))
    with pytest.raises(ArtifactChanged):
        held.open("train.bin")
    held.close()


def test_removing_leaves_the_foreign_file(backend, root, foreign):
    sample = publish(backend, "name", Sample.of(OLD))
    backend.remove("name", sample.head())
    assert backend.read_head("name") is None
    files = [p.name for p in (root / "name").rglob("*") if p.is_file()]
    assert files == ["prepare.py"]


def test_a_pending_mark_hides_what_is_there(backend, root):
    publish(backend, "name", Sample.of(OLD))
    for text in (b"", b"garbage", Pending("filling", required=("a",)).emit(), b'{"kind": 5}'):
        (root / "name" / Marks("").pending).write_bytes(text)
        assert backend.read_head("name") is None
    (root / "name" / Marks("").pending).unlink()
    assert read_artifact(backend, "name") == OLD


# -- interrupted at each step ------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone: nothing after it is done by the one who was publishing."""


def interrupt(monkeypatch, after):
    """Let ``after`` changing calls pass, then none any more."""
    count = [after]

    def counted(call):
        def wrapper(*args, **kwargs):
            if count[0] <= 0:
                raise Killed
            count[0] -= 1
            return call(*args, **kwargs)

        return wrapper

    for name in ("rename", "unlink", "rmdir", "mkdir", "fsync", "pwrite"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    monkeypatch.setattr(beneath, "syncfs", counted(beneath.syncfs))
    if beneath.renameat2_exchange.__name__ != "<lambda>":
        monkeypatch.setattr(beneath, "renameat2_exchange", counted(beneath.renameat2_exchange))


def steps(publishing, monkeypatch, check):
    """Interrupt ``publishing`` after each of its steps in turn; ``check`` what is left."""
    for after in range(500):
        with monkeypatch.context() as patched:
            interrupt(patched, after)
            try:
                publishing(after)
            except Killed:
                done = False
            else:
                done = True
        check(after, done)
        if done:
            return after
    raise AssertionError("it never came to an end")


@pytest.mark.parametrize("beside", ["alone", "foreign"])
def test_a_replacement_interrupted_at_any_step_is_old_or_new(tmp_path, monkeypatch, way, beside):
    new = Sample.of(NEW)
    seen = []

    def prepared(after):
        root = tmp_path / str(after)
        backend = LocalBackend(str(root))
        if beside == "foreign":
            (root / "name").mkdir(parents=True)
            (root / "name" / "prepare.py").write_bytes(b"mine")
        publish(backend, "name", Sample.of(OLD))
        return backend, stage(backend, "name", new)

    ready = {n: prepared(n) for n in range(60)}

    def publishing(after):
        ready[after][1].publish(new.head(), new.records, ANY_HEAD)

    def check(after, done):
        root = tmp_path / str(after)
        found = read_artifact(LocalBackend(str(root)), "name")
        assert found in (OLD, NEW), (after, found)
        assert found == NEW or not done
        seen.append(found == NEW)
        again = LocalBackend(str(root))
        publish(again, "name", new)
        assert read_artifact(again, "name") == NEW
        assert (root / "name" / "prepare.py").exists() == (beside == "foreign")

    assert steps(publishing, monkeypatch, check) >= 5
    assert seen == sorted(seen), "once new, never old again"
    assert not seen[0]


def test_a_first_publication_interrupted_at_any_step_is_absent_or_whole(tmp_path, monkeypatch):
    sample = Sample.of(NEW)
    ready = {}
    for n in range(40):
        backend = LocalBackend(str(tmp_path / str(n)))
        ready[n] = stage(backend, "group/name", sample)

    def check(after, done):
        backend = LocalBackend(str(tmp_path / str(after)))
        assert read_artifact(backend, "group/name") in ((NEW,) if done else (None, NEW))
        publish(backend, "group/name", sample)
        assert read_artifact(backend, "group/name") == NEW

    steps(lambda n: ready[n].publish(sample.head(), sample.records, None), monkeypatch, check)


@pytest.mark.parametrize("beside", ["alone", "foreign"])
def test_a_removal_interrupted_at_any_step_is_whole_or_absent(tmp_path, monkeypatch, beside):
    samples = {}
    for n in range(60):
        root = tmp_path / str(n)
        if beside == "foreign":
            (root / "name").mkdir(parents=True)
            (root / "name" / "prepare.py").write_bytes(b"mine")
        samples[n] = publish(LocalBackend(str(root)), "name", Sample.of(OLD))

    def check(after, done):
        backend = LocalBackend(str(tmp_path / str(after)))
        assert read_artifact(backend, "name") in ((None,) if done else (None, OLD))
        publish(backend, "name", Sample.of(NEW))
        assert read_artifact(backend, "name") == NEW

    def removing(n):
        LocalBackend(str(tmp_path / str(n))).remove("name", samples[n].head())

    steps(removing, monkeypatch, check)


# -- single files and partial copies -----------------------------------------------------------


def publish_file(backend, name, data):
    sample = Sample.of({name.rpartition("/")[2]: data})
    staging = stage(backend, name, sample)
    staging.publish(sample.head("file"), sample.records, ANY_HEAD)
    return sample


def test_single_files_share_a_folder(backend, root):
    for name in ("m/x.parquet", "m/y.parquet", "z"):
        publish_file(backend, name, name.encode())
    (root / "m" / "foreign").write_bytes(b"x")
    publish_file(backend, "m/x.parquet", b"replaced")
    for name, data in (("m/x.parquet", b"replaced"), ("m/y.parquet", b"m/y.parquet"), ("z", b"z")):
        assert (root / name).read_bytes() == data
        found = backend.read_head(name)
        records = backend.read_records(name, found.head)
        (file,) = records.files
        assert (root / backend.data_path(name, found.head, file)) == root / name
    assert sorted(backend.folders()) == ["m/x.parquet", "m/y.parquet", "z"]
    backend.remove("m/x.parquet", backend.read_head("m/x.parquet").head)
    assert sorted(p.name for p in (root / "m").iterdir() if p.name[0] != ".") == [
        "foreign",
        "y.parquet",
    ]
    assert sorted(backend.folders()) == ["m/y.parquet", "z"]


def test_a_partial_copy_says_so_until_all_files_are_there(backend, root):
    sample = Sample.of(NEW)
    staging = backend.begin("name", sample.head())
    first, *others = sample.records.files.values()

    def write(target, file):
        writer = target.create(file)
        writer.write(0, memoryview(sample.files[file.path]))
        writer.close()

    write(staging, first)
    staging.publish(sample.head(), sample.records, None)
    found = backend.read_head("name")
    assert found.partial
    assert found.head.files == len(NEW)
    staging = backend.begin("name", sample.head())
    for file in others:
        write(staging, file)
    staging.publish(sample.head(), sample.records, found.tag)
    assert not backend.read_head("name").partial
    assert read_artifact(backend, "name") == NEW


# -- what is found is not trusted --------------------------------------------------------------


def test_an_artifact_behind_a_link_is_refused(backend, root, tmp_path):
    publish(LocalBackend(str(tmp_path / "outside")), "real", Sample.of(OLD))
    root.mkdir()
    (root / "name").symlink_to(tmp_path / "outside" / "real", target_is_directory=True)
    with pytest.raises(UnsafePath):
        backend.read_head("name")
    with pytest.raises(UnsafePath):
        publish(backend, "name", Sample.of(NEW))
    assert read_artifact(LocalBackend(str(tmp_path / "outside")), "real") == OLD


def test_a_root_may_be_a_link(root, tmp_path):
    root.mkdir()
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    publish(LocalBackend(str(tmp_path / "link")), "name", Sample.of(OLD))
    assert read_artifact(LocalBackend(str(root)), "name") == OLD


def test_a_head_that_is_a_link_is_refused(backend, root, tmp_path):
    publish(backend, "name", Sample.of(OLD))
    (root / "name" / HEAD).rename(tmp_path / "elsewhere")
    (root / "name" / HEAD).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafePath):
        backend.read_head("name")


def test_a_damaged_head_is_replaced_and_kept(backend, root, way):
    publish(backend, "name", Sample.of(OLD))
    (root / "name" / HEAD).write_bytes(b"garbage")
    with pytest.raises(ManifestError):
        backend.read_head("name")
    publish(backend, "name", Sample.of(NEW))
    assert read_artifact(backend, "name") == NEW


def test_reading_makes_nothing(backend, root):
    assert backend.read_head("name") is None
    assert list(backend.folders()) == []
    assert not root.exists()


def test_staged_paths_are_checked():
    generation = "20260101t000000-0123456789abcdef"
    good = f".tieredstore/stage/{generation}/files"
    assert Staged.of_path("/r", good) == Staged("/r", "stage", generation)
    for bad in (
        "",
        "name",
        good + "/x",
        good.replace("stage", "old"),
        "/etc/a/b/files",
        ".tieredstore/stage/../files",
        f"x/stage/{generation}/files",
    ):
        assert Staged.of_path("/r", bad) is None


def test_listing_goes_on_while_others_stage_and_publish(backend, root):
    publish(backend, "kept", Sample.of(OLD))
    stop = threading.Event()
    problems = []

    def busy():
        other = LocalBackend(str(root))
        while not stop.is_set():
            sample = publish(other, "busy", Sample.of({f"d{n}/f": b"x" for n in range(5)}))
            other.remove("busy", sample.head())
            stage(other, "busy", Sample.of(NEW)).discard()

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(150):
            try:
                assert set(backend.folders()) in ({"kept"}, {"kept", "busy"})
            except OSError as error:
                problems.append(error)
    finally:
        stop.set()
        thread.join(30)
    assert problems == []
