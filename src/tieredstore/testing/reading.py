"""The reading half of the contract: stat, open, list, read, heads and records."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from tieredstore.backend import Readable
from tieredstore.errors import CorruptData, InvalidName, ManifestError, UnsafePath, Unsupported
from tieredstore.manifest.artifact import HEAD, MAX_HEAD, RECORDS, Head
from tieredstore.testing.samples import ODD_NAMES, Sample, read_whole


class ReadingContract:
    """What a `Readable` has to do; part of `BackendContract`."""

    refused_names: tuple[str, ...] = ()
    listable: bool = True

    @pytest.fixture
    def backend(self) -> Readable:
        """A fresh backend on an empty place."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture 'backend'")

    @pytest.fixture
    def unreachable(self) -> Readable:
        """A backend whose place cannot be reached, where that can be arranged."""
        pytest.skip("declared: an unreachable place cannot be arranged")

    def put(self, backend: Readable, path: str, data: bytes) -> None:
        """Put a file into the backend's place from outside."""
        raise NotImplementedError(f"{type(self).__name__} needs a method 'put'")

    def again(self, backend: Readable) -> Readable:
        """Another backend on the same place, as another process has it; the same by default."""
        return backend

    # -- files ----------------------------------------------------------------------------------

    def test_place_names_itself_without_credentials(self, backend: Readable) -> None:
        assert backend.place
        assert "@" not in backend.place
        assert backend.request > 0
        assert backend.parallel > 0

    def test_missing_files_are_not_found(self, backend: Readable) -> None:
        self.put(backend, "folder/file", b"x")
        with pytest.raises((FileNotFoundError, UnsafePath)):
            backend.stat("folder")
        for path in ("file", "folder/other", "other/file", "folder/file/deeper"):
            with pytest.raises(FileNotFoundError):
                backend.stat(path)
            with pytest.raises(FileNotFoundError):
                read_whole(backend, path)
            with pytest.raises(FileNotFoundError):
                backend.read(path, 10)

    def test_stat_says_the_size_and_a_tag_that_changes(self, backend: Readable) -> None:
        self.put(backend, "file", b"12345")
        before = backend.stat("file")
        assert (before.path, before.size) == ("file", 5)
        self.put(backend, "file", b"654321")
        after = backend.stat("file")
        assert after.size == 6
        assert after.tag != before.tag or not before.tag

    @pytest.mark.parametrize("size", [0, 1, 1000, (1 << 20) + 1])
    def test_a_file_reads_back(self, backend: Readable, size: int) -> None:
        data = bytes(i % 251 for i in range(size))
        self.put(backend, "deep/er/file", data)
        assert read_whole(backend, "deep/er/file") == data
        assert backend.read("deep/er/file", size) == data

    def test_read_refuses_what_is_larger_than_its_limit(self, backend: Readable) -> None:
        self.put(backend, "file", b"12345")
        with pytest.raises(ManifestError):
            backend.read("file", 4)

    def test_ranges_inside_across_and_past_the_end(self, backend: Readable) -> None:
        data = bytes(range(200))
        self.put(backend, "file", data)
        self.put(backend, "empty", b"")
        with backend.open("file") as reader:
            for offset, length in ((0, 200), (0, 1), (57, 100), (199, 1), (150, 500), (0, 0)):
                buffer = bytearray(length)
                got = reader.readinto(offset, memoryview(buffer))
                assert bytes(buffer[:got]) == data[offset : offset + length]
            assert reader.readinto(200, memoryview(bytearray(10))) == 0
            assert reader.readinto(5000, memoryview(bytearray(10))) == 0
        with backend.open("empty") as reader:
            assert reader.readinto(0, memoryview(bytearray(10))) == 0

    def test_one_reader_serves_several_threads(self, backend: Readable) -> None:
        data = bytes(i * 7 % 256 for i in range(80_000))
        self.put(backend, "file", data)
        ready = threading.Barrier(8)
        with backend.open("file") as reader:

            def part(at: int) -> bytes:
                ready.wait(30)
                buffer = bytearray(10_000)
                got = reader.readinto(at, memoryview(buffer))
                return bytes(buffer[:got])

            with ThreadPoolExecutor(8) as threads:
                parts = list(threads.map(part, range(0, 80_000, 10_000)))
        assert b"".join(parts) == data

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_odd_names_are_plain_names(self, backend: Readable, name: str) -> None:
        path = f"folder/{name}"
        if name in self.refused_names:
            for call in (backend.stat, backend.open):
                with pytest.raises(InvalidName):
                    call(path)
            return
        self.put(backend, path, name.encode())
        assert backend.stat(path).path == path
        assert read_whole(backend, path) == name.encode()
        if self.listable:
            assert [found.path for found in backend.list("folder")] == [path]
            assert [found.path for found in backend.list("")] == [path]

    # -- listings -------------------------------------------------------------------------------

    def test_listable_as_declared(self, backend: Readable) -> None:
        assert backend.listable == self.listable
        if self.listable:
            return
        self.put_manifest(backend, "name", Sample.of({"a": b"1"}))
        assert list(backend.folders()) == []
        for folder in ("", "name"):
            with pytest.raises(Unsupported):
                list(backend.list(folder))

    @pytest.fixture
    def lists(self, backend: Readable) -> Readable:
        """The backend, where it can say what it has."""
        if not self.listable:
            pytest.skip("declared: listable = False")
        return backend

    def test_list_gives_every_file_below_a_folder_and_no_other(self, lists: Readable) -> None:
        backend = lists
        files = {"a/1": b"x", "a/b/2": b"xx", "a/b/c/3": b"", "ab/4": b"x", "5": b"x"}
        for path, data in files.items():
            self.put(backend, path, data)
        for folder in ("", "a", "a/b"):
            start = f"{folder}/" if folder else ""
            wanted = {p: len(d) for p, d in files.items() if p.startswith(start)}
            assert {f.path: f.size for f in backend.list(folder)} == wanted

    def test_list_of_what_is_missing_is_empty(self, lists: Readable) -> None:
        backend = lists
        assert list(backend.list("")) == []
        assert list(backend.list("nothing/here")) == []
        self.put(backend, "folder/file", b"x")
        assert list(backend.list("fold")) == []
        assert list(backend.list("folder/file")) == []

    def test_list_goes_on_past_a_page(self, lists: Readable) -> None:
        backend = lists
        wanted = [f"many/{n:04d}" for n in range(1005)]  # object stores list a thousand at a time
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda path: self.put(backend, path, b""), wanted))
        assert sorted(f.path for f in backend.list("many")) == wanted

    def test_list_shows_at_once_what_another_put_there(self, lists: Readable) -> None:
        backend = lists
        self.put(backend, "folder/one", b"1")
        other = self.again(backend)
        assert [f.path for f in other.list("folder")] == ["folder/one"]
        self.put(backend, "folder/two", b"2")
        assert sorted(f.path for f in other.list("folder")) == ["folder/one", "folder/two"]
        assert other.stat("folder/two").size == 1

    def test_an_unreachable_place_never_looks_empty(self, unreachable: Readable) -> None:
        listings = (
            lambda: list(unreachable.list("")),
            lambda: list(unreachable.list("folder")),
            lambda: list(unreachable.folders()),
        )
        for ask in (
            *(listings if self.listable else ()),
            lambda: unreachable.stat("file"),
            lambda: unreachable.read("file", 10),
            lambda: unreachable.read_head("folder"),
        ):
            with pytest.raises(OSError) as caught:  # noqa: PT011 - any but one that says "absent"
                ask()
            assert not isinstance(caught.value, FileNotFoundError)

    # -- heads and records ----------------------------------------------------------------------

    def put_manifest(self, backend: Readable, folder: str, sample: Sample) -> Head:
        """Put a sample's head and records, without its files, from outside."""
        head = sample.head()
        self.put(backend, f"{folder}/{HEAD}", head.emit())
        self.put(backend, backend.data_path(folder, head, RECORDS), sample.records.emit())
        return head

    def test_read_head_and_records(self, backend: Readable) -> None:
        assert backend.read_head("name") is None
        self.put(backend, "name/file", b"data without a manifest")
        assert backend.read_head("name") is None
        assert backend.read_head("name/file") is None
        sample = Sample.of({"a": b"1", "b/c": b"22", "empty": b""})
        head = self.put_manifest(backend, "name", sample)
        found = backend.read_head("name")
        assert found is not None
        assert found.head == head
        assert not found.partial
        assert backend.read_records("name", head) == sample.records

    def test_a_head_that_cannot_be_believed_is_refused(self, backend: Readable) -> None:
        good = Sample.of({"a": b"1"}).head().emit()
        other_version = json.dumps({**json.loads(good), "format": 2}).encode()
        damaged = good.replace(b'"files": 1', b'"files": 2')
        assert damaged != good
        bad = (b"", b"{", b"[]", b"null", b"\xff\xfe", good[:-7], damaged, other_version)
        for number, data in enumerate((*bad, good + b" " * MAX_HEAD)):
            self.put(backend, f"{number}/{HEAD}", data)
            with pytest.raises(ManifestError):
                backend.read_head(str(number))

    def test_records_that_are_missing_or_differ_are_refused(self, backend: Readable) -> None:
        sample, other = Sample.of({"a": b"1"}), Sample.of({"a": b"2"})
        head = sample.head()
        path = backend.data_path("name", head, RECORDS)
        self.put(backend, f"name/{HEAD}", head.emit())
        with pytest.raises(CorruptData):
            backend.read_records("name", head)
        good = sample.records.emit()
        for bad in (other.records.emit(), good[:-1], good + b"\0", b""):
            self.put(backend, path, bad)
            with pytest.raises(ManifestError):
                backend.read_records("name", head)
        self.put(backend, path, good)
        assert backend.read_records("name", head) == sample.records

    def test_folders_are_those_with_a_head(self, lists: Readable) -> None:
        backend = lists
        assert list(backend.folders()) == []
        for folder in ("one", "group/two", "group/three"):
            self.put_manifest(backend, folder, Sample.of({"a": b"1"}))
        self.put(backend, "four/file", b"x")
        found = list(backend.folders())
        assert sorted(found) == ["group/three", "group/two", "one"]
        assert all(a != b for a, b in pairwise(sorted(found)))
