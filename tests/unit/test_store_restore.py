"""`restore` and `open_stream`: which tier serves, what is kept aside, what is adopted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tieredstore import ArtifactNotFound, CorruptData, NoSuchFile
from tieredstore.manifest.artifact import HEAD
from tieredstore.manifest.records import BLOCK

RECIPE = {"preparer": "test", "subset": 1.0}


@pytest.fixture
def promoted(world, create, files):
    """An artifact in all three tiers, and then no longer in the first."""
    store = world.store()
    create(store, "name", files, RECIPE)
    store.promote("name")
    shutil.rmtree(world.path("first"))
    world.told.calls.clear()
    return store


def test_a_restore_comes_from_the_first_tier_that_can_serve(world, promoted, files, contents):
    got = promoted.restore("name", recipe=RECIPE)
    assert (got.source, dict(got.skipped)) == ("volume", {})
    assert contents(got.path) == files
    assert got.recipe.options == {"subset": 1.0}
    again = promoted.restore("name")
    assert again.source == "first"
    assert world.told.of("hit") == [("name", "first")]


def test_some_files_first_and_the_rest_later(world, promoted, files, contents):
    got = promoted.restore("name", files=["sub/val.bin"])
    assert contents(got.path) == {"sub/val.bin": b"val"}
    assert promoted.restore("name", files=["sub/val.bin"]).source == "first"
    assert promoted.locate("name")[0].state == "partial"
    got = promoted.restore("name")
    assert contents(got.path) == files
    assert promoted.locate("name")[0].state == "whole"


def test_a_file_that_the_generation_does_not_have_is_named(promoted):
    for _ in range(2):
        with pytest.raises(NoSuchFile, match="nope"):
            promoted.restore("name", files=["sub/val.bin", "nope"])
        promoted.restore("name")


def test_files_from_two_tiers_of_one_generation(world, promoted, files, contents):
    (world.path("volume") / "name" / "sub" / "val.bin").unlink()
    got = promoted.restore("name")
    assert contents(got.path) == files
    assert "volume" in got.skipped


@pytest.mark.parametrize("harm", ["flip", "truncate", "vanish", "records", "grow"])
def test_a_corrupt_copy_is_kept_aside_and_said_so(world, promoted, files, contents, flip, harm):
    target = world.path("volume") / "name" / "train.bin"
    if harm == "flip":
        flip(target, 1000)
    elif harm == "truncate":
        os.truncate(target, 1000)
    elif harm == "vanish":
        target.unlink()
    elif harm == "records":
        flip(world.path("volume") / "name" / ".tieredstore.records", 10)
    elif harm == "grow":
        with target.open("ab") as file:
            file.write(b"more")
        assert any(not v.ok for v in promoted.verify("name", ["volume"]))
        return
    got = promoted.restore("name")
    assert contents(got.path) == files
    assert "volume" in got.skipped
    assert [tier for tier, _ in world.told.of("corrupt")] == ["volume"]  # once
    hidden = "pending" if harm == "records" else "absent"  # which files these are nobody knows
    assert promoted.locate("name")[1].state == hidden
    (kept,) = (world.path("volume") / ".tieredstore" / "damaged").iterdir()
    stays = world.path("volume") / "name" if harm == "records" else kept
    assert (stays / "sub" / "val.bin").read_bytes() == b"val"
    promoted.promote("name", to="volume")
    assert promoted.verify("name", ["volume"])[0].ok


def test_when_every_copy_is_damaged_nothing_is_served(world, create, files, flip):
    store = world.store("first", "volume")
    create(store, "name", files)
    store.promote("name")
    shutil.rmtree(world.path("first"))
    flip(world.path("volume") / "name" / "train.bin", 7)
    with pytest.raises(ArtifactNotFound, match=r"volume: .*train\.bin"):
        store.restore("name")
    with pytest.raises(ArtifactNotFound):
        store.restore("name")
    assert not (world.path("first") / "name").exists()


def test_a_damaged_head_sends_it_on_to_the_next_tier(world, promoted, files, contents):
    (world.path("volume") / "name" / HEAD).write_bytes(b"{half")
    got = promoted.restore("name")
    assert got.source == "remote"
    assert contents(got.path) == files


def test_another_recipe_is_no_hit(world, promoted, create, files, contents):
    with pytest.raises(ArtifactNotFound, match=r"subset: 1\.0 there, 0\.5 asked for"):
        promoted.restore("name", recipe={"preparer": "test", "subset": 0.5})
    create(promoted, "name", {"train.bin": b"half"}, {"preparer": "test", "subset": 0.5})
    with pytest.raises(ArtifactNotFound, match="first: another recipe"):
        promoted.restore("name", recipe={"preparer": "test", "subset": 0.7})
    got = promoted.restore("name", recipe=RECIPE)
    assert got.source == "volume"
    assert contents(got.path) == files


def test_missing_everywhere_says_what_each_tier_answered(world):
    with pytest.raises(ArtifactNotFound) as caught:
        world.store().restore("nothing")
    text = str(caught.value)
    assert all(f"{tier}: absent" in text for tier in ("first", "volume", "remote"))
    assert isinstance(caught.value, FileNotFoundError)


# -- tiers that fail ---------------------------------------------------------------------------


def down(world, name, **policy):
    """A tier whose root is no folder."""
    world.path(name).mkdir(exist_ok=True)
    shutil.rmtree(world.path(name))
    world.path(name).write_bytes(b"no folder")
    return world.tier(name, **policy)


def test_a_tier_that_is_down_is_skipped_and_said_so(world, promoted, files, contents):
    store = world.store("first", down(world, "volume"), "remote")
    got = store.restore("name")
    assert got.source == "remote"
    assert contents(got.path) == files
    assert "volume" in got.skipped
    assert [tier for tier, _ in world.told.of("skipped")] == ["volume"]


def test_all_lower_tiers_down_and_a_hit_still_works(world, create, files, contents):
    create(world.store("first"), "name", files)
    store = world.store("first", down(world, "volume"), down(world, "second"))
    got = store.restore("name")
    assert got.source == "first"
    assert contents(got.path) == files
    with pytest.raises(ArtifactNotFound, match="volume: Not a directory"):
        store.restore("other")


def test_a_read_only_first_tier_serves_hits_and_takes_nothing(world, create, files, contents):
    create(world.store("first"), "name", files)
    before = sorted(p for p in world.path("first").rglob("*"))
    create(world.store("second"), "other", files)
    store = world.store(world.tier("first", read_only=True), "second")
    assert contents(store.restore("name").path) == files
    assert sorted(p for p in world.path("first").rglob("*")) == before
    for attempt in (lambda: store.restore("other"), lambda: store.create("new").__enter__()):
        with pytest.raises(OSError, match="read-only"):
            attempt()
    assert sorted(p for p in world.path("first").rglob("*")) == before


HIT = """
import sys
import tieredstore
store = tieredstore.TieredStore([
    tieredstore.local_tier(sys.argv[1]),
    tieredstore.Tier("remote", tieredstore.registry.load("fsspec")("memory://x"), durable=True),
])
got = store.restore("name", files=["train.bin"])
with got.open("train.bin") as file:
    assert len(file.read()) == 1280000
store.restore("name")
print([m for m in ("fsspec", "filelock", "rich", "numpy", "asyncio") if m in sys.modules])
"""


def test_a_hit_loads_neither_fsspec_nor_filelock(world, create, files):
    create(world.store("first"), "name", files)
    script = HIT.replace("import tieredstore\n", "import tieredstore, tieredstore.registry\n", 1)
    done = subprocess.run(
        [sys.executable, "-c", script, str(world.path("first"))],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


# -- data without a manifest -------------------------------------------------------------------


def lay(folder, files):
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def test_unmanaged_data_in_the_first_tier_is_adopted_where_it_lies(world, files):
    lay(world.path("first") / "name", files)
    store = world.store()
    inode = (world.path("first") / "name" / "train.bin").stat().st_ino
    got = store.restore("name")
    assert got.recipe is None
    assert world.told.of("adopted") == [("name", "first")]
    assert (world.path("first") / "name" / "train.bin").stat().st_ino == inode
    assert store.locate("name")[0].state == "whole"
    assert store.restore("name", recipe=RECIPE).source == "first"
    assert store.verify("name")[0].ok


def test_unmanaged_data_in_a_lower_tier_is_restored_and_adopted(world, files, contents):
    lay(world.path("volume") / "name", files)
    store = world.store()
    assert store.locate("name")[1].state == "unmanaged"
    got = store.restore("name")
    assert got.source == "volume"
    assert contents(got.path) == files
    assert [w.state for w in store.locate("name")] == ["whole", "whole", "absent"]
    assert all(v.ok for v in store.verify("name"))
    store.promote("name", to="remote")
    assert all(v.ok for v in store.verify("name"))


def test_unmanaged_data_is_left_alone_where_it_is_not_to_be_adopted(world, files):
    lay(world.path("volume") / "name", files)
    store = world.store("first", world.tier("volume", adopt=False))
    with pytest.raises(ArtifactNotFound):
        store.restore("name")


def test_an_old_layout_is_read_and_never_published_into(world, files, create, contents):
    old = world.path("first") / "name"
    lay(old, {"train.bin": b"old", "prepare.py": b"mine"})
    before = {p: (p.stat().st_ino, p.read_bytes()) for p in old.rglob("*") if p.is_file()}
    store = world.store(world.nested(), "volume")
    got = store.restore("name", files=["train.bin"])
    assert got.path == old
    assert (got.recipe, got.generation) == (None, "")
    with got.open("train.bin") as file:
        assert file.read() == b"old"
    assert {p: (p.stat().st_ino, p.read_bytes()) for p in old.rglob("*") if p.is_file()} == before
    create(store, "name", files)
    got = store.restore("name", files=["train.bin"])
    assert got.path == old / "name"
    assert contents(old / "name") == files
    assert (old / "train.bin").read_bytes() == b"old"
    store.promote("name")
    assert contents(world.path("volume") / "name") == files


def test_links_are_not_adopted(world, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    folder = world.path("volume") / "name"
    folder.mkdir(parents=True)
    (folder / "train.bin").symlink_to(tmp_path / "secret")
    store = world.store()
    with pytest.raises(ArtifactNotFound):
        store.restore("name", files=["train.bin"])
    (world.path("first") / "name").mkdir(parents=True)
    (world.path("first") / "name" / "train.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError):
        store.restore("name", files=["train.bin"])


# -- streams -----------------------------------------------------------------------------------


def test_a_stream_is_verified_and_stores_nothing(world, promoted, files):
    with promoted.open_stream("name", "train.bin") as stream:
        assert stream.read() == files["train.bin"]
    with promoted.open_stream("name", "empty") as stream:
        assert stream.read() == b""
    assert not (world.path("first") / "name").exists()
    with pytest.raises(NoSuchFile):
        promoted.open_stream("name", "nope")
    with pytest.raises(ArtifactNotFound):
        promoted.open_stream("nothing", "train.bin")


def test_a_stream_falls_back_in_the_middle_of_a_file(world, promoted, files, flip):
    flip(world.path("volume") / "name" / "train.bin", BLOCK + 10)
    with promoted.open_stream("name", "train.bin") as stream:
        assert stream.read(1000) == files["train.bin"][:1000]
        assert stream.read() == files["train.bin"][1000:]
    assert [tier for tier, _ in world.told.of("skipped")] == ["volume"]


def test_a_stream_without_a_good_copy_ends_before_the_damage(world, create, files, flip):
    store = world.store("first")
    create(store, "name", files)
    flip(world.path("first") / "name" / "train.bin", BLOCK + 10)
    with store.open_stream("name", "train.bin") as stream:
        assert stream.read(BLOCK) == files["train.bin"][:BLOCK]
        with pytest.raises(CorruptData):
            stream.read(1)
