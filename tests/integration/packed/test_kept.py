"""Packed copies: what is promoted to shards comes back; what is packed, and what it looks like."""

from __future__ import annotations

import itertools
import subprocess

import fsspec
import pytest

from tieredstore import ConfigError, PromoteFailed, Tier, open_store
from tieredstore.backends.hf import repo as hf_repo
from tieredstore.backends.http import HttpBackend
from tieredstore.errors import ArtifactNotFound
from tieredstore.manifest.artifact import HEAD, RECORDS, SHARDS, Head
from tieredstore.manifest.shards import shard_name

# -- on each kind of place ----------------------------------------------------------------------


def test_a_packed_artifact_comes_back_in_a_fresh_store(kit, tmp_path, place):
    kit.create(kit.store_on(tmp_path / "one"), kit.FILES)
    told = kit.Told()
    one = kit.store_on(tmp_path / "one", kit.far(place()), reporter=told)
    [outcome] = one.promote("set")
    assert (outcome.action, outcome.size, told.bytes) == ("copied", kit.SIZE, kit.SIZE)
    assert sorted(told.whole) == sorted(kit.FILES)
    number = len([key for key in kit.keys(place()) if key.endswith(".tar")])
    assert number > 1
    assert kit.keys(place()).keys() - {HEAD} == {
        RECORDS,
        SHARDS,
        "large.bin",
        *map(shard_name, range(number)),
    }
    told = kit.Told()
    other = kit.store_on(tmp_path / "other", kit.far(place()), reporter=told)
    got = other.restore("set")
    assert got.source == "far"
    assert kit.contents(got.path) == kit.FILES
    assert told.bytes == kit.SIZE
    for path in kit.FILES:
        mine, theirs = tmp_path / "one" / "set" / path, got.path / path
        assert mine.stat().st_mtime_ns == theirs.stat().st_mtime_ns
        assert mine.stat().st_mode == theirs.stat().st_mode
    assert all(v.ok and v.size == kit.SIZE for v in other.verify("set"))
    assert [o.action for o in other.promote("set")] == ["present"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_web_server_of_a_packed_copy_is_restored_from(kit, tmp_path, web, ranges):
    if not ranges:
        web.fault = lambda asked: asked.data is not None and asked.whole()
    got = kit.store_on(tmp_path / "new", Tier("web", HttpBackend(web.url))).restore("set")
    assert kit.contents(got.path) == kit.FILES
    shards = [a for a in web.asked if a.path.endswith(".tar")]
    assert len(shards) < 40


def test_some_files_and_a_stream(kit, tmp_path, place):
    one = kit.store_on(tmp_path / "one", kit.far(place()))
    kit.create(one, kit.FILES)
    one.promote("set")
    wanted = ["d3/0003", "large.bin", "empty", "d0/0007", "ünï"]
    other = kit.store_on(tmp_path / "other", kit.far(place()))
    got = other.restore("set", files=wanted)
    assert kit.contents(got.path) == {path: kit.FILES[path] for path in wanted}
    fresh = kit.store_on(tmp_path / "fresh", kit.far(place()))
    for path in ("d5/0005", "large.bin", "empty"):
        with fresh.open_stream("set", path) as stream:
            assert stream.read() == kit.FILES[path]
    assert kit.contents(other.restore("set").path) == kit.FILES


def test_replacing_and_removing_leave_no_shards(kit, tmp_path, place):
    one = kit.store_on(tmp_path / "one", kit.far(place()))
    kit.create(one, kit.FILES)
    one.promote("set")
    few = {"only.bin": b"one"}
    kit.create(one, few, {"preparer": "another"})
    one.promote("set", replace=True)
    assert kit.keys(place()).keys() - {HEAD} == {RECORDS, "only.bin"}
    assert kit.restored(tmp_path / "two", kit.far(place())) == few
    kit.create(one, kit.FILES)
    one.promote("set", replace=True)
    backend = place()
    assert kit.restored(tmp_path / "three", kit.far(place())) == kit.FILES
    head = backend.read_head("set").head
    assert len(kit.keys(backend)) > len(few) + 3
    backend.remove("set", head)
    assert place().read_head("set") is None
    assert list(place().list(f"set/{head.data}".rstrip("/"))) == []
    with pytest.raises(ArtifactNotFound):
        kit.store_on(tmp_path / "four", kit.far(place())).restore("set")


# -- what is packed, and what it looks like -----------------------------------------------------


def test_tar_reads_what_lies_in_the_place(kit, tmp_path):
    backend = kit.memory()
    one = kit.store_on(tmp_path / "one", kit.far(backend))
    kit.create(one, kit.FILES)
    one.promote("set")
    out = tmp_path / "out"
    out.mkdir()
    fs = fsspec.filesystem("memory")
    for key in sorted(fs.glob(f"{backend.place}/set/*/*.tar")):
        (tmp_path / "shard.tar").write_bytes(fs.cat_file(key))
        subprocess.run(["tar", "xf", tmp_path / "shard.tar", "-C", out], check=True)
    assert kit.contents(out) == {
        path: data for path, data in kit.FILES.items() if path != "large.bin"
    }


def test_few_files_are_not_packed_and_nothing_is_by_default(kit, tmp_path):
    few = dict(itertools.islice(kit.FILES.items(), 90))
    for files, pack in ((few, "auto"), (kit.FILES, "never")):
        backend = kit.memory()
        store = kit.store_on(tmp_path / pack, kit.far(backend, pack=pack))
        kit.create(store, files)
        store.promote("set")
        assert kit.keys(backend).keys() - {RECORDS} == files.keys()
        assert backend.read_head("set").head.shards is None


def test_a_generation_is_the_same_packed_or_not(kit, tmp_path):
    packed, plain = kit.memory(), kit.memory()
    tiers = [kit.far(packed), Tier("plain", plain, durable=True)]
    one = kit.store_on(tmp_path / "one", *tiers)
    kit.create(one, kit.FILES)
    one.promote("set")
    head, other = packed.read_head("set").head, plain.read_head("set").head
    assert head.shards is not None
    assert head.records_digest == other.records_digest
    first = Head.parse((tmp_path / "one" / "set" / HEAD).read_bytes(), "here")
    back = kit.store_on(tmp_path / "two", *tiers)
    assert kit.contents(back.restore("set").path) == kit.FILES
    restored = Head.parse((tmp_path / "two" / "set" / HEAD).read_bytes(), "here")
    assert restored == first


def test_a_populated_tier_packs_too(kit, tmp_path):
    scratch, archive = kit.memory(), kit.memory()
    one = kit.store_on(tmp_path / "one", kit.far(archive, pack="never"))
    kit.create(one, kit.FILES)
    one.promote("set")
    tiers = [Tier("scratch", scratch, populate=True, pack="auto"), kit.far(archive)]
    assert not kit.store_on(tmp_path / "two", *tiers).restore("set").skipped
    assert scratch.read_head("set").head.shards is not None
    got = kit.store_on(tmp_path / "three", *tiers).restore("set")
    assert (got.source, kit.contents(got.path)) == ("scratch", kit.FILES)


def test_what_a_partial_copy_lacks_comes_from_shards(kit, tmp_path, published):
    third = kit.memory()
    tiers = [kit.far(published), Tier("third", third, durable=True, pack="auto")]
    store = kit.store_on(tmp_path / "one", *tiers)
    store.restore("set", files=["d3/0003"])
    assert [o.action for o in store.promote("set")] == ["present", "copied"]
    assert kit.keys(third) == kit.keys(published)
    assert kit.restored(tmp_path / "two", Tier("third", third)) == kit.FILES


@pytest.mark.parametrize(
    ("tier", "text"),
    [
        ({"backend": "local", "path": "x", "pack": "auto"}, "is a folder"),
        ({"backend": "http", "url": "http://127.0.0.1:1/x", "pack": "auto"}, "is only read"),
        ({"backend": "fsspec", "url": "memory://x", "pack": "always"}, "expected 'auto' or"),
        ({"backend": "fsspec", "url": "memory://x", "pack": True}, "pack is True, expected text"),
    ],
)
def test_pack_is_refused_where_it_means_nothing(tmp_path, tier, text):
    first = {"name": "first", "backend": "local", "path": str(tmp_path)}
    with pytest.raises(ConfigError, match=text):
        open_store({"tier": [first, {"name": "far", **tier}]})


def test_pack_is_read_from_the_configuration(tmp_path):
    first = {"name": "first", "backend": "local", "path": str(tmp_path)}
    low = {"name": "far", "backend": "fsspec", "url": "memory://x", "pack": "auto"}
    assert [t.pack for t in open_store({"tier": [first, low]}).tiers] == ["never", "auto"]


# -- the Hub's limits ---------------------------------------------------------------------------


def test_packing_keeps_below_the_limits_of_the_hub(kit, tmp_path, hub, monkeypatch):
    monkeypatch.setattr(hf_repo, "MAX_FILES", 50)
    monkeypatch.setattr(hf_repo, "MAX_ENTRIES", 40)

    plain = kit.store_on(tmp_path / "one", kit.far(hub(), pack="never"))
    kit.create(plain, kit.FILES)
    with pytest.raises(PromoteFailed, match='pack = "auto"'):
        plain.promote("set")
    kit.store_on(tmp_path / "one", kit.far(hub())).promote("set")
    got = kit.store_on(tmp_path / "two", kit.far(hub())).restore("set")
    assert kit.contents(got.path) == kit.FILES
