"""Single steps of two that work on one generation, put in the order that once did harm."""

from __future__ import annotations

import errno
import mmap
import os

import pytest

from tieredstore.backends.local import LocalBackend, MountedStaging
from tieredstore.errors import TierUnavailable
from tieredstore.manifest.artifact import new_generation
from tieredstore.mounted import beneath
from tieredstore.mounted.inplace import lay_mark, lift_mark
from tieredstore.mounted.marks import Marks, Pending, pending_entries
from tieredstore.mounted.stage import Mount
from tieredstore.reporter import Reporter
from tieredstore.store import TieredStore
from tieredstore.testing.samples import Sample, record_of
from tieredstore.tiers import hits
from tieredstore.tiers.hits import FirstTier
from tieredstore.tiers.tier import Tier

OLD = {"a": b"o" * 5000, "b": b"old b", "only-old": b"x"}
NEW = {"a": b"n" * 5000, "b": b"new b"}


def store_at(root, local="local", reporter=None):
    tiers = [Tier("local", LocalBackend(str(root / local)))]
    tiers.append(Tier("vol", LocalBackend(str(root / "vol")), durable=True))
    return TieredStore(tiers, reporter)


def make(store, files, version):
    with store.create("set", recipe={"v": version}) as stage:
        for file, data in files.items():
            (stage.path / file).write_bytes(data)


def test_what_an_exchange_brought_out_is_never_taken_for_staged_files(tmp_path, monkeypatch):
    make(store_at(tmp_path, "other"), NEW, 2)
    store_at(tmp_path, "other").promote("set")
    store = store_at(tmp_path)
    make(store, OLD, 1)
    real = beneath.rename

    def stopped(source, name, target, path):
        if path.startswith(".tieredstore/old/"):
            raise OSError(errno.EIO, "stopped right after the exchange")
        real(source, name, target, path)

    monkeypatch.setattr(beneath, "rename", stopped)
    with pytest.raises(TierUnavailable):
        store.restore("set", recipe={"v": 2})
    monkeypatch.undo()
    store.evict("set")
    with store.restore("set", files=["b"]) as got, got.open("b") as opened:
        assert opened.read() == NEW["b"]
    assert not (tmp_path / "local/set/a").exists()
    store.restore("set").close()
    assert store.verify("set", ["local"])[0].ok
    assert not (tmp_path / "local/set/only-old").exists()


def test_blocks_of_a_file_that_another_took_away_are_written_again(tmp_path):
    backend = LocalBackend(str(tmp_path))
    record = record_of("a", b"1" * 3000)
    staged = backend.mount.staged("part", new_generation())
    mine, other = (MountedStaging(backend, "set", staged) for _ in range(2))
    theirs = other.create(record)
    theirs.write(0, memoryview(b"1" * 3000))
    begun = mine.staged(record)
    theirs.close()
    writer = mine.create(record)
    assert not writer.continues(begun)
    begun.close()
    writer.abort()


@pytest.fixture
def place(tmp_path):
    mount = Mount(str(tmp_path))
    (tmp_path / "set").mkdir()
    area, fd = mount.area("stage"), os.open(tmp_path / "set", os.O_RDONLY)
    yield area, fd, Marks("set")
    os.close(area)
    os.close(fd)


def test_one_publication_in_place_at_a_time(place):
    first, second = (Pending("publishing", new_generation(), "stage") for _ in range(2))
    assert lay_mark(*place, first)
    assert not lay_mark(*place, second)
    assert pending_entries(*place[1:]) == [first.entry]


@pytest.mark.parametrize("at", range(2))
def test_a_head_is_whole_though_two_publish_the_same_stage(tmp_path, monkeypatch, at):
    """One has just published it when the other writes head and records beside the files."""
    sample = Sample.of({"a": b"1" * 3000})
    head, record = sample.head(), sample.records.files["a"]
    backend = LocalBackend(str(tmp_path))
    staged = backend.mount.staged("part", head.generation)
    writer = MountedStaging(backend, "set", staged).create(record)
    writer.write(0, memoryview(b"1" * 3000))
    writer.close()
    small, whole, calls, published = beneath.write_small, beneath.write_all, [], []

    def meanwhile(fd, name, data):
        calls.append(name)
        if len(calls) == at + 1:
            backend.mount.publish(staged, "set", head, sample.records)
            published.append(head)
        small(fd, name, data)

    def looked_at(file, data, offset):
        if published:
            assert backend.read_head("set").head.generation == head.generation
        whole(file, data, offset)

    monkeypatch.setattr(beneath, "write_small", meanwhile)
    monkeypatch.setattr(beneath, "write_all", looked_at)
    backend.mount.publish(staged, "set", head, sample.records)
    assert backend.read_head("set") is not None
    assert not backend.read_head("set").partial


def test_a_slow_helper_lifts_no_later_mark(place):
    first, second = (Pending("publishing", new_generation(), "stage") for _ in range(2))
    assert lay_mark(*place, first)
    lift_mark(*place[1:], first)
    assert lay_mark(*place, second)
    lift_mark(*place[1:], first)
    assert pending_entries(*place[1:]) == [second.entry]


def test_files_put_in_one_by_one_are_hidden_while_they_are_taken_over(place):
    filling = Pending("filling", new_generation())
    publishing = Pending("publishing", new_generation(), "stage")
    assert lay_mark(*place, filling)
    assert lay_mark(*place, publishing)
    assert pending_entries(*place[1:]) == [publishing.entry]


def test_a_restore_leaves_what_was_published_meanwhile(tmp_path):
    make(store_at(tmp_path, "other"), OLD, 1)
    store_at(tmp_path, "other").promote("set")

    class Meanwhile(Reporter):
        def started(self, verb, name, size):
            if verb == "restore":
                make(store_at(tmp_path), NEW, 2)

    with store_at(tmp_path, reporter=Meanwhile()).restore("set") as got, got.open("b") as opened:
        assert opened.read() == NEW["b"]
    assert store_at(tmp_path).locate("set")[0].recipe.options == {"v": 2}


def test_a_hit_looks_again_at_what_was_replaced_meanwhile(tmp_path, monkeypatch):
    make(store_at(tmp_path), OLD, 1)
    store = store_at(tmp_path)
    lacks, calls = FirstTier.lacks, []

    def meanwhile(first, held, files):
        calls.append(held.head.generation)
        if len(calls) == 1:
            make(store_at(tmp_path), NEW, 2)
            return True  # as where a folder that is held is another's by then
        return lacks(first, held, files)

    monkeypatch.setattr(FirstTier, "lacks", meanwhile)
    with store.restore("set") as got, got.open("b") as opened:
        assert opened.read() == NEW["b"]
    assert len(calls) == 2


def test_records_that_cannot_be_mapped_are_read(tmp_path, monkeypatch):
    make(store_at(tmp_path), NEW, 1)

    class Refused(mmap.mmap):
        def __new__(cls, *_, **__):
            raise OSError(errno.EINVAL, "as sshfs says of a file that was replaced")

    monkeypatch.setattr(hits.mmap, "mmap", Refused)
    assert store_at(tmp_path).restore("set").source == store_at(tmp_path).tiers[0].name
