"""Moving files: fallback to the next copy, resumption, measuring and comparing."""

from __future__ import annotations

import errno
import random
import threading
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from tieredstore.backend import FileReader, FileSource, FileWriter, Staging
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import CorruptData, TierTimeout
from tieredstore.manifest.records import BLOCK, FileRecord
from tieredstore.moving.fetching import Copy
from tieredstore.moving.runs import RUN
from tieredstore.moving.transfer import Transfer
from tieredstore.reporter import Reporter
from tieredstore.testing.samples import (
    MODE,
    MTIME_NS,
    Sample,
    publish,
    read_artifact,
    read_whole,
    table_of,
)


def random_bytes(size, seed=1):
    return random.Random(seed).randbytes(size)


FILES = {
    "large.bin": random_bytes(3 * BLOCK + 77),
    "sub/small": b"small",
    "empty": b"",
    **{f"many/{n:03d}": random_bytes(n, n) for n in range(150)},
}


class Told(Reporter):
    """Keeps what it is told."""

    def __init__(self):
        self.lock = threading.Lock()
        self.bytes = 0
        self.skips, self.damage, self.whole = [], [], []

    def advanced(self, size):
        with self.lock:
            self.bytes += size

    def skipped(self, tier, why):
        self.skips.append(tier)

    def corrupt(self, tier, what):
        self.damage.append(tier)

    def copied(self, file, source, target):
        self.whole.append(file)


@pytest.fixture
def sample():
    return Sample.of(FILES)


@pytest.fixture
def place(tmp_path, sample):
    """Makes a named tier that holds the sample, and gives its copy."""

    def made(name, kind=LocalBackend, deadline=20.0):
        publish(LocalBackend(str(tmp_path / name)), "name", sample)
        backend = kind(str(tmp_path / name))
        return Copy(name, backend, "name", backend.read_head("name").head, deadline)

    return made


@pytest.fixture
def target(tmp_path):
    return LocalBackend(str(tmp_path / "target"))


def moved(copies, target, sample, reporter=None):
    staging = target.begin("name", sample.head())
    transfer = Transfer(copies, staging, reporter, "target", 20.0)
    try:
        transfer.move(list(sample.records.files.values()))
    finally:
        transfer.moved.files = []
    staging.publish(sample.head(), sample.records, None)
    return transfer.moved


def flip(copy, file, at):
    path = f"{copy.backend.place}/{copy.path(file)}"
    with open(path, "r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)
        opened.seek(at)
        opened.write(bytes([byte[0] ^ 1]))


def test_everything_is_moved_with_mode_and_time(place, target, sample):
    told = Told()
    done = moved([place("one")], target, sample, told)
    assert read_artifact(target, "name") == FILES
    assert done.size == told.bytes == sample.records.size
    assert (done.reused, done.failed, done.damaged) == (0, {}, {})
    assert sorted(told.whole) == sorted(FILES)
    for file in FILES:
        stat = target.stat(f"name/{file}")
        assert (stat.mode, stat.mtime_ns) == (MODE, MTIME_NS)


def test_a_file_larger_than_a_run_is_moved_in_parallel(tmp_path, target):
    data = random_bytes(BLOCK) * (RUN // BLOCK + 2) + b"the end"
    sample = Sample.of({"huge": data})
    source = publish(LocalBackend(str(tmp_path / "one")), "name", sample)
    copy = Copy("one", LocalBackend(str(tmp_path / "one")), "name", source.head())
    moved([copy], target, sample)
    assert read_whole(target, "name/huge") == data


@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, 3 * BLOCK + 76])
def test_a_flipped_byte_is_taken_from_the_second_copy(place, target, sample, at):
    one, two, told = place("one"), place("two"), Told()
    flip(one, "large.bin", at)
    done = moved([one, two], target, sample, told)
    assert read_artifact(target, "name") == FILES
    assert list(done.damaged) == ["one"]
    assert "large.bin" in done.damaged["one"][0]
    assert not told.damage  # said once, by who knows what became of the copy
    assert done.size == sample.records.size


def test_a_vanished_or_truncated_file_is_taken_from_the_second_copy(place, target, sample):
    one, two = place("one"), place("two")
    root = Path(one.backend.place, "name")
    (root / "sub" / "small").unlink()
    with (root / "large.bin").open("r+b") as file:
        file.truncate(BLOCK + 5)
    done = moved([one, two], target, sample)
    assert read_artifact(target, "name") == FILES
    assert list(done.damaged) == ["one"]


class Hanging(LocalBackend):
    """A place whose files open and never answer."""

    released = threading.Event()

    def source(self, folder, head):
        inner = super().source(folder, head)

        class Source(FileSource):
            def __init__(self):
                pass

            def open(self, file):
                reader = inner.open(file)

                class Reader(FileReader):
                    def readinto(self, offset, buffer):
                        if file == "large.bin":
                            Hanging.released.wait()
                        return reader.readinto(offset, buffer)

                    def close(self):
                        reader.close()

                return Reader()

        return Source()


@pytest.fixture
def hanging(place):
    Hanging.released.clear()
    yield place("hangs", Hanging, 0.5)
    Hanging.released.set()


@pytest.mark.timeout(30)
def test_a_hanging_source_is_given_up_for_the_second_copy(hanging, place, target, sample):
    told = Told()
    done = moved([hanging, place("two")], target, sample, told)
    assert read_artifact(target, "name") == FILES
    assert list(done.failed) == ["hangs"]
    assert told.skips == ["hangs"]


@pytest.mark.timeout(30)
def test_a_hanging_source_without_another_is_a_timeout(hanging, target, sample):
    with pytest.raises(TierTimeout, match="hangs"):
        moved([hanging], target, sample)
    assert target.read_head("name") is None


def test_what_every_copy_has_wrong_is_never_published(place, target, sample):
    one, two = place("one"), place("two")
    for copy in (one, two):
        flip(copy, "large.bin", BLOCK + 3)
    with pytest.raises(CorruptData, match=r"large\.bin"):
        moved([one, two], target, sample)
    assert target.read_head("name") is None


def test_a_second_attempt_moves_only_what_is_missing(place, target, sample):
    one = place("one")
    flip(one, "large.bin", 2 * BLOCK + 3)
    with pytest.raises(CorruptData):
        moved([one], target, sample)
    flip(one, "large.bin", 2 * BLOCK + 3)
    told = Told()
    done = moved([one], LocalBackend(target.place), sample, told)
    assert read_artifact(target, "name") == FILES
    assert done.reused >= 2 * BLOCK
    assert done.size + done.reused == told.bytes == sample.records.size


def test_what_was_begun_is_believed_only_where_it_matches(place, target, sample):
    record = sample.records.files["large.bin"]
    staging = target.begin("name", sample.head())
    writer = staging.create(record)
    begun = bytearray(FILES["large.bin"])
    begun[BLOCK + 9] ^= 1
    writer.write(0, memoryview(begun))
    writer.abort()
    done = moved([place("one")], LocalBackend(target.place), sample)
    assert read_artifact(target, "name") == FILES
    assert done.reused == record.size - BLOCK


def test_staged_files_that_were_altered_are_moved_again(place, target, sample):
    staging = target.begin("name", sample.head())
    transfer = Transfer([place("one")], staging)
    transfer.move(list(sample.records.files.values()))
    (staged,) = Path(target.place).glob(".tieredstore/part/*/files/large.bin")
    data = bytearray(staged.read_bytes())
    data[BLOCK] ^= 1
    staged.write_bytes(data)
    done = moved([place("two")], LocalBackend(target.place), sample)
    assert read_artifact(target, "name") == FILES
    assert done.size == len(FILES["large.bin"])


def test_measuring_finds_the_blocks_of_files(place, sample):
    copy = replace(place("one"), head=None)
    bare = [replace(f, table=b"") for f in sample.records.files.values()]
    found = Transfer([copy]).move(bare).files
    assert [f.path for f in found] == [f.path for f in bare]
    for record in found:
        assert record.table == table_of(FILES[record.path])


def test_measuring_notices_a_file_that_shrank(place, sample):
    copy = replace(place("one"), head=None)
    bare = replace(sample.records.files["sub/small"], table=b"", size=50)
    with pytest.raises(CorruptData):
        Transfer([copy]).move([bare])


def test_comparing_notes_all_that_differs_and_goes_on(place, sample):
    copy = place("one")
    root = Path(copy.backend.place, "name")
    flip(copy, "large.bin", 5)
    with (root / "many" / "100").open("ab") as file:
        file.write(b"more")
    with (root / "many" / "101").open("r+b") as file:
        file.truncate(50)
    (root / "many" / "102").unlink()
    (root / "empty").write_bytes(b"no more")
    done = Transfer([copy]).compare(list(sample.records.files.values()))
    text = "\n".join(done.damaged["one"])
    for file in ("large.bin", "many/100", "many/101", "many/102", "empty"):
        assert text.count(file) == 1, (file, text)
    assert "many/103" not in text
    assert Transfer([place("two")]).compare(list(sample.records.files.values())).damaged == {}


def test_through_a_place_without_rename_and_back(place, target, sample):
    backend = FsspecBackend("memory://transfer-test")
    try:
        moved([place("one")], backend, sample)
        assert read_artifact(backend, "name") == FILES
        found = backend.read_head("name")
        moved([Copy("memory", backend, "name", found.head)], target, sample)
        assert read_artifact(target, "name") == FILES
    finally:
        fsspec.filesystem("memory").rm("/transfer-test", recursive=True)


def test_a_target_that_cannot_be_written_is_an_error_and_not_a_source_that_fails(place, sample):
    class Full(LocalBackend):
        def begin(self, folder, head):
            staging = super().begin(folder, head)
            create = staging.create

            def full(file):
                writer = create(file)

                def write(offset, data):
                    raise OSError(28, "No space left on device")

                writer.write = write
                return writer

            staging.create = full
            return staging

    one, told = place("one"), Told()
    full = Full(one.backend.place + "-full")
    with pytest.raises(OSError, match="No space left"):
        moved([one], full, sample, told)
    assert told.skips == told.damage == []
    assert full.read_head("name") is None


class Writing(Staging):
    """Writes nothing; one file takes its time, the other fails; says what was done to them."""

    any_order = True
    parallel_small = 2

    def __init__(self):
        self.begun = threading.Event()
        self.done = []

    def create(self, file):
        return WritingFile(self, file.path)

    def publish(self, head, records, expected):
        raise NotImplementedError

    def discard(self):
        raise NotImplementedError


class WritingFile(FileWriter):
    def __init__(self, staging, path):
        self._staging = staging
        self._path = path

    def write(self, offset, data):
        if self._path == "slow":
            self._staging.begun.set()
            time.sleep(0.5)
            self._staging.done.append("written")
        else:
            assert self._staging.begun.wait(30)
            raise OSError(errno.ENOSPC, "No space left on device")

    def close(self):
        pass

    def abort(self):
        self._staging.done.append(f"aborted {self._path}")


def test_what_a_thread_still_writes_is_not_closed_when_another_fails(tmp_path):
    backend = LocalBackend(str(tmp_path))
    big = bytes(RUN)  # one task's share each, so that two threads work at once
    for name in ("slow", "full"):
        (tmp_path / name).write_bytes(big)
    backend.parallel = 2
    staging = Writing()
    files = [FileRecord(name, len(big)) for name in ("slow", "full")]
    with pytest.raises(OSError, match="No space left"):
        Transfer([Copy("one", backend, "", None)], staging, None, "two").move(files)
    assert "written" in staging.done
    assert staging.done.index("written") < staging.done.index("aborted slow")


def test_few_large_files_among_many_small_ones_take_no_more_memory(tmp_path):
    for n in range(100):
        with (tmp_path / f"large-{n:02d}").open("wb") as file:
            file.truncate(8 << 20)
    for n in range(4000):
        (tmp_path / f"small-{n:04d}").write_bytes(b"s")
    lock, now, peak = threading.Lock(), 0, 0

    class Reader(FileReader):
        def __init__(self, inner):
            self.inner = inner

        def readinto(self, offset, buffer):
            nonlocal now, peak
            with lock:
                now += len(buffer)
                peak = max(peak, now)
            if len(buffer) > 1:
                time.sleep(0.1)  # an answer from far away: more threads are begun
            with lock:
                now -= len(buffer)
            return self.inner.readinto(offset, buffer)

        def close(self):
            self.inner.close()

    class Far(LocalBackend):
        def __init__(self, path):
            super().__init__(path)
            self.request, self.parallel_small = 8 << 20, 128

        def open(self, path):
            return Reader(super().open(path))

        def source(self, folder, head):
            return FileSource(self, lambda file: file)

    files = [FileRecord(p.name, p.stat().st_size) for p in sorted(tmp_path.iterdir())]
    moved = Transfer([Copy("far", Far(str(tmp_path)), "", None)]).move(files)
    assert moved.size == sum(f.size for f in files)
    assert peak <= 128 << 20
