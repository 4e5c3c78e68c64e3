"""Files that are digested while they are written to a stage, and not read again."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress

import pytest

import tieredstore
from tieredstore import InvalidName, TierUnavailable
from tieredstore.mounted import beneath
from tieredstore.moving.transfer import Transfer
from tieredstore.verbs import building

BLOCK = 1 << 20


@pytest.fixture
def store(tmp_path):
    return tieredstore.TieredStore([tieredstore.local_tier(tmp_path / "first")])


@pytest.fixture
def read(monkeypatch):
    """The files that a publication reads."""
    seen = []

    class Noting(Transfer):
        def move(self, files):
            seen.extend(f.path for f in files)
            return super().move(files)

    monkeypatch.setattr(building, "Transfer", Noting)
    return seen


def whole(store, name):
    return all(found.ok for found in store.verify(name))


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_put_and_open_measure_what_verify_reads(store, read, size):
    data = os.urandom(size)
    with store.create("x") as stage, stage.writer() as writer:
        writer.put("a/whole", data)
        with writer.open("a/pieces") as file:
            for at in range(0, size, 300_001):
                assert file.write(data[at : at + 300_001]) > 0
        writer.put("view", memoryview(data))
    assert read == []
    assert whole(store, "x")
    with store.restore("x") as got:
        for file in ("a/whole", "a/pieces", "view"):
            with got.open(file) as found:
                assert found.read() == data


def test_modes_and_times_are_kept(store, tmp_path):
    old = os.umask(0o022)
    try:
        with store.create("x") as stage, stage.writer() as writer:
            writer.put("run", b"#!", 0o6777, 5_000_000_001)
            writer.put("plain", b"p", 0o600)
    finally:
        os.umask(old)
    folder = tmp_path / "first" / "x"
    assert (folder / "run").stat().st_mode & 0o7777 == 0o755
    assert (folder / "run").stat().st_mtime_ns == 5_000_000_001
    assert (folder / "plain").stat().st_mode & 0o7777 == 0o600


def touched(path, how):
    before = path.stat()
    if how == "overwritten":
        path.write_bytes(b"B" * before.st_size)
    elif how == "longer":
        path.write_bytes(b"B" * (before.st_size + 1))
    else:
        path.write_bytes(b"B" * before.st_size)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    if how == "replaced":
        other = path.with_name("other")
        other.write_bytes(b"C" * before.st_size)
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(path)


@pytest.mark.parametrize("how", ["overwritten", "longer", "replaced", "time put back"])
def test_a_file_that_was_touched_is_measured_again(store, read, how):
    with store.create("x") as stage:
        with stage.writer() as writer:
            writer.put("a", b"A" * 1000)
            writer.put("b", b"b")
        # A clock that ticks every few milliseconds gives the change a time of its own.
        time.sleep(0.02)
        touched(stage.path / "a", how)
        (stage.path / "by-path").write_bytes(b"x")
    assert sorted(read) == ["a", "by-path"]
    assert whole(store, "x")


def test_removed_and_renamed_files_are_what_they_are(store, read):
    with store.create("x") as stage:
        with stage.writer() as writer:
            for name in ("a", "b", "c"):
                writer.put(name, name.encode())
        (stage.path / "a").unlink()
        (stage.path / "b").rename(stage.path / "a")
    assert whole(store, "x")
    with store.restore("x") as got:
        assert (got.path / "a").read_bytes() == b"b"


@pytest.mark.parametrize("name", ["../a", "/a", "a//b", ".tieredstore.json", "a\0b", "x" * 300])
def test_names_that_no_artifact_may_have_are_refused(store, name):
    with pytest.raises(InvalidName, match="file name"):
        with store.create("x") as stage, stage.writer() as writer:
            writer.put(name, b"")


def test_nothing_that_is_there_is_written_to(store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    with store.create("x") as stage, stage.writer() as writer:
        writer.put("a", b"a")
        with pytest.raises(FileExistsError):
            writer.put("a", b"b")
        with pytest.raises(NotADirectoryError):
            writer.put("a/b", b"b")
        (stage.path / "link").symlink_to(outside)
        with pytest.raises(tieredstore.UnsafePath):
            writer.put("link/b", b"b")
        (stage.path / "link").unlink()
        (stage.path / "link").symlink_to(outside / "new")
        with pytest.raises(FileExistsError):
            writer.put("link", b"b")
        (stage.path / "link").unlink()
    assert list(outside.iterdir()) == []
    assert whole(store, "x")


def test_a_file_that_is_given_up_is_removed(store):
    with store.create("x") as stage, stage.writer() as writer:
        writer.put("kept", b"k")
        with suppress(ZeroDivisionError), writer.open("half") as file:
            file.write(b"half of it")
            file.write(b"x" * (1 // 0))
        file = writer.open("other")
        file.abort()
        file.abort()
        file.close()
        assert sorted(os.listdir(stage.path)) == ["kept"]


def test_a_full_disk_names_the_tier(store, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tieredstore.mounted.beneath.write_all", full)
    with pytest.raises(TierUnavailable, match="cannot be written: No space left"):
        with store.create("x") as stage, stage.writer() as writer:
            writer.put("a", b"a")


def test_a_writer_is_had_only_inside_the_block(store):
    stage = store.create("x")
    with pytest.raises(TierUnavailable, match="only inside its with block"):
        stage.writer()


def written(store, count):
    with store.create("x") as stage:
        with stage.writer() as writer:
            for n in range(count):
                writer.put(f"{n % 7}/{n}", b"x" * n)


def test_many_files_are_flushed_while_they_are_looked_at(store, monkeypatch):
    flushes = []
    syncfs = beneath.syncfs

    def noting(fd):
        flushes.append(threading.current_thread() is threading.main_thread())
        syncfs(fd)

    monkeypatch.setattr(beneath, "syncfs", noting)
    written(store, 100)
    assert False not in flushes
    written(store, 2000)
    assert flushes.count(False) == 1
    assert flushes[-1] is True
    assert whole(store, "x")


def test_a_flush_that_fails_behind_is_not_forgotten(store, monkeypatch):
    syncfs = beneath.syncfs

    def failing(fd):
        if threading.current_thread() is not threading.main_thread():
            raise OSError(5, "Input/output error")
        syncfs(fd)

    monkeypatch.setattr(beneath, "syncfs", failing)
    with pytest.raises(TierUnavailable, match="cannot be written: Input/output error"):
        written(store, 2000)
    assert store.locate("x")[0].state == "absent"


def test_what_raises_while_it_is_flushed_leaves_nothing(store, tmp_path):
    with suppress(ZeroDivisionError), store.create("x") as stage:
        with stage.writer() as writer:
            for n in range(2000):
                writer.put(f"{n}", b"x")
        _ = 1 // 0
    assert not (tmp_path / "first" / "x").exists()
    assert list((tmp_path / "first" / ".tieredstore" / "stage").glob("*")) == []


def test_what_writers_have_written_is_known_by_size(store):
    with store.create("x") as stage:
        assert stage.written == {}
        with stage.writer() as writer:
            writer.put("a/b", b"1234")
            with suppress(ZeroDivisionError), writer.open("given/up") as file:
                file.write(bytes(1 // 0))
            with writer.open("c") as file:
                file.write(bytes(BLOCK + 1))
        (stage.path / "other").write_bytes(b"by other means")
        assert stage.written == {"a/b": 4, "c": BLOCK + 1}
