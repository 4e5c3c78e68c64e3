"""`create`, `promote`, `verify` and `evict`: what is refused, and that nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tieredstore import (
    ArtifactExists,
    ArtifactNotFound,
    EvictRefused,
    InvalidName,
    PromoteFailed,
    RecipeConflict,
    TieredStore,
    UnsafePath,
)
from tieredstore.backends.local import LocalBackend
from tieredstore.testing.samples import Sample, publish, read_artifact

ONE = {"preparer": "test", "subset": 1.0}
HALF = {"preparer": "test", "subset": 0.5}


# -- create ------------------------------------------------------------------------------------


def test_a_build_that_raises_leaves_nothing(world, create, files, contents):
    store = world.store("first")
    create(store, "name", files, ONE)
    with pytest.raises(RuntimeError, match="mine"):  # noqa: PT012 - leaving the inner block
        with store.create("name") as stage:
            (stage.path / "train.bin").write_bytes(b"half")
            staged = stage.path
            raise RuntimeError("mine")
    assert not staged.exists()
    assert contents(store.restore("name").path) == files
    with pytest.raises(InvalidName, match="no file"):
        with store.create("empty"):
            pass
    assert store.names() == ["name"]


def test_facts_travel_with_the_recipe(world):
    store = world.store("first", "remote")
    with store.create("name", recipe=ONE) as stage:
        (stage.path / "a").write_bytes(b"x")
        stage.facts["tokens"] = 7
    store.promote("name")
    shutil.rmtree(world.path("first"))
    got = store.restore("name", recipe=ONE)
    assert got.recipe.facts == {"tokens": 7}


def test_modes_and_times_are_kept_and_never_setuid(world):
    store = world.store("first", "volume")
    with store.create("name") as stage:
        (stage.path / "run.sh").write_bytes(b"#!/bin/sh")
        (stage.path / "run.sh").chmod(0o4755)
        os.utime(stage.path / "run.sh", ns=(10**18, 10**18))
    store.promote("name")
    shutil.rmtree(world.path("first"))
    stat = (store.restore("name").path / "run.sh").stat()
    assert (stat.st_mode & 0o7777, stat.st_mtime_ns) == (0o755, 10**18)


def test_links_and_special_files_are_not_published(world, tmp_path):
    store = world.store("first")
    for special in (lambda p: p.symlink_to("/etc/passwd"), os.mkfifo):
        with pytest.raises(UnsafePath):  # noqa: PT012 - leaving the inner block raises
            with store.create("name") as stage:
                (stage.path / "a").write_bytes(b"x")
                special(stage.path / "b")
    assert store.names() == []


@pytest.mark.parametrize("name", ["../up", "/abs", "", "a//b", ".tieredstore/stage", "a\\b"])
def test_every_verb_refuses_names_that_escape(world, name):
    store = world.store()
    verbs = [store.restore, store.locate, store.promote, store.verify, store.evict]
    verbs += [lambda n: store.create(n).__enter__(), lambda n: store.open_stream(n, "f")]
    verbs += [lambda n: store.restore("name", files=[n]), lambda n: store.open_stream("name", n)]
    for verb in verbs:
        with pytest.raises(InvalidName):
            verb(name)


def test_one_artifact_inside_another_is_refused_in_both_directions(world, create, files):
    store = world.store("first")
    create(store, "group/name", files)
    for bad in ("group", "group/name/inner", "group/name/in/ner"):
        with pytest.raises(ArtifactExists, match=r"group/name"):
            create(store, bad, files)
    create(store, "group/name2", files)
    create(store, "group/name", {"new": b"x"})
    assert store.names() == ["group/name", "group/name2"]


def test_nesting_is_refused_in_the_nested_layout_too(world, create, files):
    store = world.store(world.nested())
    create(store, "name", files)
    with pytest.raises((ArtifactExists, InvalidName)):
        create(store, "name/name", files)
    with pytest.raises(ArtifactExists):
        create(store, "name/inner", files)
    create(store, "group/one", files)
    with pytest.raises(ArtifactExists):
        create(store, "group", files)


def test_nesting_is_refused_where_it_is_promoted_to(world, create, files):
    create(world.store("volume"), "group/name", files)
    store = world.store("first", "volume")
    create(store, "group", files)
    with pytest.raises(PromoteFailed, match="group/name"):
        store.promote("group")
    create(world.store("second"), "one", files)
    other = world.store("first", "second")
    create(other, "one/inner", files)
    with pytest.raises(PromoteFailed, match="one"):
        other.promote("one/inner")


def test_a_folder_of_artifacts_is_no_unmanaged_data(world, create, files):
    create(world.store("first"), "group/name", files)
    create(world.store("volume"), "group/other", files)
    with world.store("volume").create_file("single/x.bin") as stage:
        stage.file.write_bytes(b"x")
    store = world.store("first", "volume")
    for name, named in (
        ("group", None),
        ("group", ["name/train.bin"]),
        ("group", ["other/train.bin"]),
        ("single", None),
    ):
        with pytest.raises((ArtifactNotFound, ArtifactExists)):
            store.restore(name, files=named)
    assert store.names() == ["group/name", "group/other", "single/x.bin"]


# -- promote -----------------------------------------------------------------------------------


def test_promote_reports_each_tier_and_moves_nothing_twice(world, create, files):
    store = world.store()
    create(store, "name", files, ONE)
    size = sum(len(d) for d in files.values())
    assert [(o.tier, o.action, o.size) for o in store.promote("name")] == [
        ("volume", "copied", size),
        ("remote", "copied", size),
    ]
    assert [(o.action, o.size) for o in store.promote("name")] == [("present", 0)] * 2
    assert [call[:3] for call in world.told.of("promoted")] == [
        ("name", "volume", "copied"),
        ("name", "remote", "copied"),
        ("name", "volume", "present"),
        ("name", "remote", "present"),
    ]
    assert all(v.ok for v in store.verify("name"))


def test_another_recipe_is_not_replaced_unasked(world, create, files, contents):
    store = world.store("first", "volume")
    create(store, "name", files, ONE)
    store.promote("name")
    create(store, "name", {"train.bin": b"half"}, HALF)
    with pytest.raises(RecipeConflict, match=r"subset: 1\.0 there, 0\.5 asked for"):
        store.promote("name")
    assert contents(world.path("volume") / "name") == files
    assert [o.action for o in store.promote("name", replace=True)] == ["copied"]
    assert contents(world.path("volume") / "name") == {"train.bin": b"half"}


def test_the_same_recipe_made_again_replaces(world, create, files, contents):
    store = world.store("first", "volume", "remote")
    create(store, "name", files, ONE)
    store.promote("name")
    create(store, "name", {"train.bin": b"again"}, ONE)
    assert [o.action for o in store.promote("name")] == ["copied", "copied"]
    assert contents(world.path("volume") / "name") == {"train.bin": b"again"}


def test_unmanaged_data_is_not_replaced_unasked(world, create, files, contents):
    (world.path("volume") / "name").mkdir(parents=True)
    (world.path("volume") / "name" / "old").write_bytes(b"old")
    store = world.store("first", "volume")
    create(store, "name", files, ONE)
    with pytest.raises(RecipeConflict):
        store.promote("name")
    assert contents(world.path("volume") / "name") == {"old": b"old"}


def test_a_tier_that_fails_does_not_keep_the_others_from_it(world, create, files):
    world.path("volume").rmdir()  # not mounted any more
    store = world.store()
    create(store, "name", files)
    with pytest.raises(PromoteFailed, match="volume") as caught:
        store.promote("name")
    assert [(o.tier, o.action) for o in caught.value.outcomes] == [
        ("volume", "failed"),
        ("remote", "copied"),
    ]
    assert "is the volume mounted?" in caught.value.outcomes[0].detail
    assert not world.path("volume").exists()
    assert store.verify("name", ["remote"])[0].ok


def test_what_is_not_there_cannot_be_promoted(world, create, files):
    store = world.store()
    with pytest.raises(ArtifactNotFound):
        store.promote("name")
    create(store, "name", files)
    for to in ("first",):
        with pytest.raises(PromoteFailed):
            store.promote("name", to=to)


def test_a_damaged_copy_is_never_promoted(world, create, files, flip):
    store = world.store()
    create(store, "name", files)
    flip(world.path("first") / "name" / "train.bin", 99)
    with pytest.raises(PromoteFailed, match=r"train\.bin"):
        store.promote("name")
    assert [w.state for w in store.locate("name")[1:]] == ["absent", "absent"]


# -- verify and evict --------------------------------------------------------------------------


def test_verify_names_what_differs_in_each_tier(world, create, files, flip):
    store = world.store()
    create(store, "name", files)
    store.promote("name")
    assert [(v.tier, v.ok) for v in store.verify("name")] == [
        ("first", True),
        ("volume", True),
        ("remote", True),
    ]
    flip(world.path("volume") / "name" / "sub" / "val.bin")
    (world.path("volume") / "name" / "empty").write_bytes(b"no more")
    found = {v.tier: v for v in store.verify("name")}
    assert found["first"].ok
    assert not found["volume"].ok
    assert len(found["volume"].problems) == 2
    assert found["volume"].generation == found["first"].generation
    with pytest.raises(ArtifactNotFound):
        store.verify("nothing")


def test_evict_needs_a_verified_copy_in_a_durable_tier(world, create, files, flip, contents):
    store = world.store("first", "volume")
    create(store, "name", files, ONE)
    with pytest.raises(EvictRefused, match="volume"):
        store.evict("name")
    store.promote("name")
    flip(world.path("volume") / "name" / "train.bin", 3)
    with pytest.raises(EvictRefused, match=r"train\.bin"):
        store.evict("name")
    assert contents(world.path("first") / "name") == files
    flip(world.path("volume") / "name" / "train.bin", 3)
    assert store.evict("name") == sum(len(d) for d in files.values())
    assert store.locate("name")[0].state == "absent"
    assert contents(store.restore("name").path) == files


def test_evict_does_not_count_on_another_generation_or_a_passing_place(world, create, files):
    store = world.store("first", world.tier("volume", durable=False))
    create(store, "name", files)
    store.promote("name", to="volume")
    with pytest.raises(EvictRefused, match="no other durable"):
        store.evict("name")
    store = world.store("first", "volume")
    create(store, "name", files)
    with pytest.raises(EvictRefused, match="not this generation"):
        store.evict("name")
    with pytest.raises(ArtifactNotFound):
        store.evict("nothing")


def test_the_last_durable_copy_is_not_evicted(world, create, files):
    store = world.store("first", "volume")
    create(store, "name", files)
    store.promote("name")
    with pytest.raises(EvictRefused):
        store.evict("name", tier="volume")
    assert store.verify("name", ["volume"])[0].ok


# -- ensure ------------------------------------------------------------------------------------


def test_ensure_builds_once_promotes_and_then_restores(world, contents):
    built = []

    def build(stage):
        built.append(1)
        (stage.path / "a").write_bytes(b"built")

    store = world.store()
    assert contents(store.ensure("name", build, ONE).path) == {"a": b"built"}
    assert [w.state for w in store.locate("name")] == ["whole"] * 3
    shutil.rmtree(world.path("first"))
    assert store.ensure("name", build, ONE).source == "volume"
    assert store.ensure("name", build, ONE).source == "first"
    assert built == [1]


# -- places that do not tell case apart --------------------------------------------------------


@pytest.fixture(params=["casefold", "vfat", "xfs", "exfat"])
def folding(request, tmp_path):
    """A folder on a real file system that does not tell ``A`` from ``a``."""
    image, mount = tmp_path / "image", tmp_path / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate((400 if request.param == "xfs" else 16) << 20)  # sparse
    make = {
        "casefold": ["mkfs.ext4", "-q", "-F", "-O", "casefold", "-E", "encoding=utf8", str(image)],
        "vfat": ["mkfs.vfat", str(image)],
        "exfat": ["mkfs.exfat", str(image)],
        "xfs": ["mkfs.xfs", "-q", "-n", "version=ci", str(image)],
    }[request.param]
    if shutil.which(make[0]) is None:
        pytest.skip(f"{make[0]} is not installed")
    made = subprocess.run(make, check=False, capture_output=True)
    how = ["mount", "-o", "loop", str(image), str(mount)]
    if request.param == "exfat" and shutil.which("mount.exfat-fuse"):
        how[1:1] = ["-t", "exfat-fuse"]
    mounted = subprocess.run(how, check=False, capture_output=True)
    if made.returncode or mounted.returncode:
        pytest.skip(f"no loop mount here: {(made.stderr + mounted.stderr).decode().strip()[:200]}")
    try:
        root = mount / "root"
        root.mkdir()
        if request.param == "casefold":
            folded = subprocess.run(["chattr", "+F", str(root)], check=False, capture_output=True)
            if folded.returncode:
                pytest.skip(f"no casefold here: {folded.stderr.decode().strip()[:200]}")
        yield root
    finally:
        subprocess.run(["umount", str(mount)], check=True)


CLASH = {"dir/A": b"upper", "dir/a": b"lower"}


def check_refused(world, target):
    """Restore to and promote to ``target`` refuse a clash before anything is moved."""
    source = world.tier("second")
    publish(source.backend, "name", Sample.of(CLASH))
    publish(source.backend, "fine", Sample.of({"A": b"1", "b": b"2"}))
    first = replace(world.tier("first"), backend=target)
    store = world.store(first, source)
    with pytest.raises(InvalidName, match="differ only in case"):
        store.restore("name")
    assert list(target.list("name")) == []
    assert not list(Path(target.place).glob(".tieredstore/part/*/files/*"))
    store.restore("fine")
    assert read_artifact(target, "fine") == {"A": b"1", "b": b"2"}
    below = replace(world.tier("volume"), backend=target)
    up = world.store("second", below)
    with pytest.raises((InvalidName, PromoteFailed), match="differ only in case"):
        up.promote("name")
    assert target.read_head("name") is None
    assert not list(Path(target.place).glob(".tieredstore/part/*/files/*"))


def test_names_that_differ_only_in_case_are_refused_on_a_real_place(world, folding):
    target = LocalBackend(str(folding))
    assert not target.keeps_case
    check_refused(world, target)


def test_names_that_differ_only_in_case_are_refused_where_a_place_says_so(world, tmp_path):
    class Folding(LocalBackend):
        keeps_case = False

    target = Folding(str(tmp_path / "said"))
    check_refused(world, target)
    store = TieredStore([replace(world.tier("first"), backend=target)])
    with pytest.raises(InvalidName, match="differ only in case"):  # noqa: PT012
        with store.create("built") as stage:
            (stage.path / "A").write_bytes(b"1")
            (stage.path / "a").write_bytes(b"2")
    assert store.locate("built")[0].state == "absent"
