"""The publishing half of the contract: stage, publish, replace, resume, remove, set aside."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tieredstore.backend import ANY_HEAD, Publishable, Readable, Staging
from tieredstore.errors import HeadConflict
from tieredstore.manifest.records import BLOCK, FileRecord
from tieredstore.testing.reading import ReadingContract
from tieredstore.testing.samples import (
    MODE,
    MTIME_NS,
    ODD_NAMES,
    Sample,
    publish,
    read_artifact,
    read_whole,
    stage,
)

FILES = {"train.bin": bytes(range(256)) * 9, "sub/val.bin": b"val", "sub/deeper/empty": b""}
NEW_FILES = {"train.bin": b"another size", "sub/other.bin": b"only in the new one"}


class PublishingContract(ReadingContract):
    """What a `Publishable` has to do; part of `BackendContract`."""

    publishable: bool = True
    keeps_case: bool = True
    keeps_mode: bool = True
    keeps_mtime: bool = True
    any_order: bool = False
    exclusive: bool = True
    resumes: bool = True
    resumes_files: bool = False

    def test_capabilities_are_as_declared(self, backend: Readable) -> None:
        assert isinstance(backend, Publishable) == self.publishable
        assert backend.keeps_case == self.keeps_case

    @pytest.fixture
    def place(self, backend: Readable) -> Readable:
        """The backend, where it can be published to."""
        if not self.publishable:
            pytest.skip("declared: publishable = False")
        return backend

    def begin(self, place: Readable, folder: str, sample: Sample) -> Staging:
        """A staging for a sample."""
        assert isinstance(place, Publishable)
        return place.begin(folder, sample.head())

    def path(self, place: Readable, folder: str, file: str) -> str:
        """Where a published file lies."""
        found = place.read_head(folder)
        assert found is not None
        return place.data_path(folder, found.head, file)

    # -- seen whole or not at all ---------------------------------------------------------------

    def test_a_reader_sees_nothing_before_and_all_after(self, place: Readable) -> None:
        sample = Sample.of(FILES)
        staging = stage(place, "group/name", sample)
        assert place.read_head("group/name") is None
        assert list(place.folders()) == []
        staging.publish(sample.head(), sample.records, None)
        other = self.again(place)
        assert read_artifact(other, "group/name") == FILES
        assert list(other.folders()) == ["group/name"]
        found = other.read_head("group/name")
        assert found is not None
        assert found.head.generation == sample.generation
        assert not found.partial
        assert other.read_records("group/name", found.head) == sample.records

    def test_replacing_shows_the_old_one_until_the_new_one(self, place: Readable) -> None:
        old, new = publish(place, "name", Sample.of(FILES)), Sample.of(NEW_FILES)
        before = place.read_head("name")
        staging = stage(place, "name", new)
        assert read_artifact(place, "name") == FILES
        staging.publish(new.head(), new.records, before.tag if before else None)
        assert read_artifact(self.again(place), "name") == NEW_FILES
        after = place.read_head("name")
        assert before is not None
        assert after is not None
        assert (before.head.generation, after.head.generation) == (old.generation, new.generation)
        assert before.tag != after.tag

    def test_publishing_a_generation_twice_changes_nothing(self, place: Readable) -> None:
        sample = publish(place, "name", Sample.of(FILES))
        publish(place, "name", sample)
        assert read_artifact(place, "name") == FILES

    def test_many_files_are_staged_from_several_threads(self, place: Readable) -> None:
        sample = Sample.of({f"d{n % 3}/{n:03d}": str(n).encode() * n for n in range(60)})
        staging = self.begin(place, "name", sample)
        self.write_files(staging, sample, sample.records.files.values(), threads=8)
        staging.publish(sample.head(), sample.records, None)
        assert read_artifact(place, "name") == sample.files

    def write_files(
        self, staging: Staging, sample: Sample, files: Iterable[FileRecord], threads: int = 1
    ) -> None:
        """Write files whole, from several threads where asked for."""

        def write(file: FileRecord) -> None:
            writer = staging.create(file)
            if file.size:
                writer.write(0, memoryview(sample.files[file.path]))
            writer.close()

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(write, files))

    def test_a_file_of_many_blocks(self, place: Readable) -> None:
        data = b"".join(bytes([n]) * BLOCK for n in range(9)) + b"the end"
        sample = Sample.of({"large": data})
        staging = self.begin(place, "name", sample)
        writer = staging.create(sample.records.files["large"])
        for at in range(0, len(data), BLOCK):
            writer.write(at, memoryview(data)[at : at + BLOCK])
        writer.close()
        staging.publish(sample.head(), sample.records, None)
        assert read_artifact(place, "name") == {"large": data}

    def test_blocks_in_any_order_where_declared(self, place: Readable) -> None:
        data = b"".join(bytes([n]) * 1000 for n in range(20))
        sample = Sample.of({"file": data})
        staging = self.begin(place, "name", sample)
        assert staging.any_order == self.any_order
        if not self.any_order:
            return
        writer = staging.create(sample.records.files["file"])
        with ThreadPoolExecutor(4) as pool:
            view = memoryview(data)
            starts = range(len(data) - 1000, -1, -1000)
            list(pool.map(lambda at: writer.write(at, view[at : at + 1000]), starts))
        writer.close()
        staging.publish(sample.head(), sample.records, None)
        assert read_artifact(place, "name") == {"file": data}

    def test_odd_names_are_published(self, place: Readable) -> None:
        names = [name for name in ODD_NAMES if name not in self.refused_names]
        sample = Sample.of({name: name.encode() for name in names})
        publish(place, "odd #1/100% näme", sample)
        assert read_artifact(place, "odd #1/100% näme") == sample.files
        assert list(place.folders()) == ["odd #1/100% näme"]

    def test_case_is_kept_where_declared(self, place: Readable) -> None:
        if not self.keeps_case:
            pytest.skip("declared: keeps_case = False; the store refuses such names")
        sample = publish(place, "name", Sample.of({"A": b"upper", "a": b"lower"}))
        assert read_artifact(place, "name") == sample.files

    def test_mode_and_time_are_kept_where_declared(self, place: Readable) -> None:
        publish(place, "name", Sample.of(FILES))
        found = place.stat(self.path(place, "name", "train.bin"))
        assert (found.mode == MODE) == self.keeps_mode
        assert (found.mtime_ns == MTIME_NS) == self.keeps_mtime

    # -- races ----------------------------------------------------------------------------------

    def test_two_stagings_of_one_generation_end_as_one(self, place: Readable) -> None:
        sample = Sample.of(FILES)
        file = sample.records.files["train.bin"]
        view, half = memoryview(FILES["train.bin"]), file.size // 2
        one = self.begin(place, "name", sample)
        other = self.begin(self.again(place), "name", sample)
        writers = [one.create(file), other.create(file)]
        for at in (0, half):
            for writer in writers:
                writer.write(at, view[at : at + half])
        rest = [f for f in sample.records.files.values() if f.path != file.path]
        self.write_files(one, sample, rest)
        self.write_files(other, sample, rest)
        for writer in writers:
            writer.close()
        one.publish(sample.head(), sample.records, ANY_HEAD)
        assert read_artifact(place, "name") == FILES
        other.publish(sample.head(), sample.records, ANY_HEAD)
        assert read_artifact(place, "name") == FILES

    def test_publishing_over_a_stale_head_is_refused(self, place: Readable) -> None:
        publish(place, "name", Sample.of({"a": b"first"}))
        seen = place.read_head("name")
        assert seen is not None
        publish(place, "name", Sample.of({"a": b"second"}))
        for expected in (seen.tag, None):
            late = Sample.of({"a": b"late", "b": b"late"})
            with pytest.raises(HeadConflict):
                publish(place, "name", late, expected)
            assert read_artifact(place, "name") == {"a": b"second"}
        with pytest.raises(HeadConflict):
            publish(place, "other", Sample.of({"a": b"late"}), seen.tag)
        assert place.read_head("other") is None

    def test_of_several_that_publish_at_once_one_is_whole(self, place: Readable) -> None:
        samples = [Sample.of({"a": bytes([n]) * 100, f"own-{n}": b"x"}) for n in range(6)]
        stagings = [stage(self.again(place), "name", sample) for sample in samples]
        ready = threading.Barrier(len(samples))

        def attempt(number: int) -> bool:
            ready.wait(30)
            try:
                stagings[number].publish(samples[number].head(), samples[number].records, None)
            except HeadConflict:
                return False
            return True

        with ThreadPoolExecutor(len(samples)) as pool:
            won = list(pool.map(attempt, range(len(samples))))
        assert any(won)
        assert sum(won) == 1 or not self.exclusive
        found = read_artifact(place, "name")
        assert found in [s.files for s, w in zip(samples, won, strict=True) if w]

    # -- interrupted and given up ---------------------------------------------------------------

    def test_an_interrupted_staging_is_gone_on_with(self, place: Readable) -> None:
        sample = Sample.of({"whole": b"w" * 2000, "begun": b"b" * 2000, "never": b"n"})
        files = sample.records.files
        staging = self.begin(place, "name", sample)
        self.write_files(staging, sample, [files["whole"]])
        writer = staging.create(files["begun"])
        writer.write(0, memoryview(sample.files["begun"])[:1000])
        writer.abort()
        later = self.begin(self.again(place), "name", sample)
        held = [p for p, f in files.items() if later.holds(f)]
        assert held == (["whole"] if self.resumes else [])
        assert later.resumes or not self.resumes
        assert place.read_head("name") is None
        begun = later.staged(files["begun"])
        assert (begun is not None) == self.resumes_files
        if begun is not None:
            buffer = bytearray(1000)
            assert begun.readinto(0, memoryview(buffer)) == 1000
            assert bytes(buffer) == b"b" * 1000
            begun.close()
        self.write_files(later, sample, [f for p, f in files.items() if p not in held])
        later.publish(sample.head(), sample.records, None)
        assert read_artifact(place, "name") == sample.files

    def test_what_another_generation_left_is_not_taken(self, place: Readable) -> None:
        stage(place, "name", Sample.of(FILES))
        fresh = Sample.of(FILES)
        staging = self.begin(place, "name", fresh)
        assert not any(staging.holds(f) for f in fresh.records.files.values())

    def test_discarded_files_are_gone(self, place: Readable) -> None:
        publish(place, "name", Sample.of(FILES))
        sample = Sample.of(NEW_FILES)
        stage(place, "name", sample).discard()
        staging = self.begin(place, "name", sample)
        assert not any(staging.holds(f) for f in sample.records.files.values())
        staging.discard()
        assert read_artifact(place, "name") == FILES

    def test_discard_leaves_nothing_in_sight(self, place: Readable) -> None:
        stage(place, "name", Sample.of(FILES)).discard()
        assert list(place.list("")) == []

    # -- taken away -----------------------------------------------------------------------------

    def test_remove_takes_one_generation_and_no_other(self, place: Readable) -> None:
        assert isinstance(place, Publishable)
        publish(place, "other", Sample.of(FILES))
        old = publish(place, "name", Sample.of(FILES))
        new = publish(place, "name", Sample.of(NEW_FILES))
        found = place.read_head("name")
        assert found is not None
        place.remove("name", old.head())
        assert read_artifact(place, "name") == NEW_FILES
        place.remove("name", found.head)
        assert place.read_head("name") is None
        place.remove("name", found.head)
        assert read_artifact(self.again(place), "other") == FILES
        publish(place, "name", new)
        assert read_artifact(place, "name") == NEW_FILES

    def test_remove_frees_the_space(self, place: Readable) -> None:
        assert isinstance(place, Publishable)
        publish(place, "name", Sample.of(FILES))
        found = place.read_head("name")
        assert found is not None
        place.remove("name", found.head)
        assert list(place.list("")) == []

    def damage(self, place: Readable, folder: str, file: str) -> bytes:
        """Put other bytes of the same length in the place of a published file's."""
        path = self.path(place, folder, file)
        damaged = bytes(b ^ 0xFF for b in read_whole(place, path))
        self.put(place, path, damaged)
        return damaged

    def test_a_damaged_copy_is_set_aside_and_kept(self, place: Readable) -> None:
        assert isinstance(place, Publishable)
        publish(place, "name", Sample.of(FILES))
        damaged = self.damage(place, "name", "train.bin")
        found = place.read_head("name")
        assert found is not None
        kept = place.set_aside("name", found.head)
        assert self.again(place).read_head("name") is None
        assert list(place.folders()) == []
        assert kept.startswith(f"{place.place}/")
        inside = kept.removeprefix(f"{place.place}/")
        assert read_whole(place, f"{inside}/train.bin") == damaged
        assert read_whole(place, f"{inside}/sub/val.bin") == FILES["sub/val.bin"]
        publish(place, "name", Sample.of(NEW_FILES))
        assert read_artifact(place, "name") == NEW_FILES
        assert read_whole(place, f"{inside}/train.bin") == damaged

    def test_damaged_bytes_are_not_taken_for_staged_ones(self, place: Readable) -> None:
        assert isinstance(place, Publishable)
        sample = publish(place, "name", Sample.of(FILES))
        for _ in range(2):
            self.damage(place, "name", "train.bin")
            found = place.read_head("name")
            assert found is not None
            place.set_aside("name", found.head)
            assert place.read_head("name") is None
            staging = self.begin(place, "name", sample)
            files = sample.records.files
            self.write_files(staging, sample, [f for f in files.values() if not staging.holds(f)])
            staging.publish(sample.head(), sample.records, None)
            assert read_artifact(place, "name") == FILES
