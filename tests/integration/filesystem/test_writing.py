"""What is written is there when it is closed, whole, or not at all; and many files cost little."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import textwrap

import fsspec
import pytest

import tieredstore
from tieredstore.filesystem import TieredFileSystem


def run(code, *arguments):
    """A process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def stages(fs):
    return os.listdir(fs.store.chain.first.backend.mount.area_path("stage"))


class Stop(Exception):
    pass


def with_bytes(fs, config):
    with fs.open("set/a.txt", "wb") as file:
        file.write(b"half")
        raise Stop


def with_text(fs, config):
    with fs.open("set/a.txt", "w", encoding="utf-8") as file:
        file.write("half")
        raise Stop


def with_compression(fs, config):
    with fs.open("set/a.txt", "wb", compression="gzip") as file:
        file.write(b"half")
        raise Stop


def through_fsspec(fs, config):
    with fsspec.open("tiered://set/a.txt", "w", config=config) as file:
        file.write("half")
        raise Stop


def closed_in_finally(fs, config):
    file = fs.open("set/a.txt", "wb")
    try:
        file.write(b"half")
        raise Stop
    finally:
        file.close()


def in_a_transaction(fs, config):
    with fs.transaction:
        fs.pipe_file("set/b.txt", b"whole")
        with fs.open("set/a.txt", "wb") as file:
            file.write(b"half")
        raise Stop


WAYS = [
    with_bytes,
    with_text,
    with_compression,
    through_fsspec,
    closed_in_finally,
    in_a_transaction,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("before", [None, b"before"])
def test_an_exception_leaves_what_was_there(fs, config, way, before):
    if before is not None:
        fs.pipe_file("set/a.txt", before)
    with pytest.raises(Stop):
        way(fs, config)
    assert fs.exists("set/a.txt") == (before is not None)
    assert not fs.exists("set/b.txt")
    assert before is None or fs.cat_file("set/a.txt") == before
    assert stages(fs) == []


def test_a_file_is_seen_when_it_is_closed(fs, make_fs):
    with fs.open("set/a.txt", "wb") as file:
        file.write(b"all")
        file.flush()
        assert not make_fs().exists("set/a.txt")
    assert make_fs().cat_file("set/a.txt") == b"all"
    assert tieredstore.TieredStore(fs.store.tiers).restore("set").generation


def test_text_compression_and_append(fs):
    with fs.open("set/a.txt.gz", "wt", compression="infer", encoding="utf-8") as file:
        file.write("größer\n")
    with fs.open("set/a.txt.gz", "rt", compression="infer", encoding="utf-8") as file:
        assert file.read() == "größer\n"
    with fs.open("set/log", "ab") as file:
        file.write(b"one ")
    with fs.open("set/log", "a") as file:
        file.write("two")
    assert fs.cat_file("set/log") == b"one two"
    with fs.open("set/log", "r+b") as file:
        file.seek(4)
        file.write(b"2")
    assert fs.cat_file("set/log") == b"one 2wo"


def test_discarded_and_never_closed_files_are_gone(fs):
    file = fs.open("set/a.txt", "wb")
    file.write(b"half")
    file.discard()
    file.close()
    with pytest.warns(ResourceWarning, match="never closed"):
        _never_closed(fs)
    assert fs.find("") == []
    assert stages(fs) == []


def test_what_a_killed_writer_had_open_is_not_there(fs, config):
    child = run(
        """
        import sys, time, json
        from tieredstore.filesystem import TieredFileSystem
        fs = TieredFileSystem(json.loads(sys.argv[1]))
        fs.pipe_file("set/whole", b"whole")
        file = fs.open("set/half", "wb")
        file.write(b"half" * 100_000)
        print("now", flush=True)
        time.sleep(60)
        """,
        _json(config),
    )
    assert child.stdout.readline() == "now\n"
    child.kill()
    child.communicate()
    assert fs.find("set") == ["set/whole"]
    assert all(v.ok for v in fs.store.verify("set"))
    fs.store.collect(grace=0.0)
    assert stages(fs) == []


def test_exclusive_creation_is_refused_at_open_and_at_close(fs):
    fs.pipe_file("set/there", b"first")
    for mode in ("xb", "x"):
        with pytest.raises(FileExistsError):
            fs.open("set/there", mode)
    one, other = fs.open("set/new", "xb"), fs.open("set/new", "xb")
    one.write(b"one")
    other.write(b"other")
    one.close()
    with pytest.raises(FileExistsError):
        other.close()
    assert fs.cat_file("set/new") == b"one"


def test_exclusive_creation_knows_of_lower_tiers(fs, put_far):
    put_far("set", {"a": b"far"})
    with pytest.raises(FileExistsError):
        fs.open("set/a", "xb")


def test_a_path_of_one_part_is_a_single_file(fs):
    fs.pipe_file("notes.txt", b"one")
    fs.pipe_file("notes.txt", b"two")
    assert fs.cat_file("notes.txt") == b"two"
    assert fs.info("notes.txt")["type"] == "file"
    assert [e["name"] for e in fs.ls("")] == ["notes.txt"]
    assert fs.store.restore("notes.txt").path.read_bytes() == b"two"
    fs.rm("notes.txt")
    assert fs.ls("") == []


def test_new_files_belong_to_the_artifact_that_was_declared(make_fs):
    fs = make_fs(artifact="runs/42/out")
    fs.pipe_file("runs/42/out/a/b", b"1")
    assert fs.store.names() == ["runs/42/out"]
    make_fs().pipe_file("runs/42/out/c", b"2")
    assert make_fs().find("runs") == ["runs/42/out/a/b", "runs/42/out/c"]
    assert make_fs().isdir("runs/42")


def test_a_transaction_is_seen_as_a_whole(fs, make_fs):
    fs.pipe_file("set/old", b"old")
    before = fs.store.restore("set").generation
    with fs.transaction:
        for number in range(5):
            fs.pipe_file(f"set/{number}", b"%d" % number)
        fs.pipe_file("other/x", b"x")
        assert make_fs().find("") == ["set/old"]
        assert fs.store.restore("set").generation == before
    assert len(make_fs().find("")) == 7
    assert all(v.ok for name in ("set", "other") for v in fs.store.verify(name))


def test_a_change_to_what_is_only_far_away_keeps_the_rest(fs, put_far):
    put_far("set", {"a": b"far", "b/c": b"away"})
    fs.pipe_file("set/d", b"new")
    fs.rm("set/a")
    assert {p: fs.cat_file(p) for p in fs.find("set")} == {"set/b/c": b"away", "set/d": b"new"}
    assert fs.info("set/d")["tiers"] == ["near"]
    fs.store.promote("set")
    fs.store.evict("set")
    assert fs.info("set/d")["tiers"] == ["far"]
    assert sorted(fs.find("set")) == ["set/b/c", "set/d"]


def test_nothing_is_written_where_a_durable_tier_cannot_be_asked(config, put_far):
    put_far("set", {"a": b"far"})
    config["tier"][1] = {
        "name": "far",
        "backend": "http",
        "url": "http://127.0.0.1:9/",
        "deadline": 2,
    }
    fs = TieredFileSystem(config, skip_instance_cache=True)
    fs.pipe_file("other/b", b"a read-only tier is never promoted to")
    assert fs.cat_file("other/b")


def test_removing_the_last_file_removes_the_artifact_everywhere(fs, put_far):
    put_far("set", {"a": b"far", "b": b"away"})
    with pytest.raises(IsADirectoryError):
        fs.rm("set")
    fs.rm(["set/a", "set/b"])
    assert fs.store.names() == []
    with pytest.raises(FileNotFoundError):
        fs.rm("set/a")


def test_promotes_on_close_or_queued(make_fs):
    on_close, queued = make_fs(promote="on-close"), make_fs(promote="queued")
    on_close.pipe_file("one/a", b"1")
    assert on_close.info("one/a")["tiers"] == ["near", "far"]
    for number in range(20):
        queued.pipe_file(f"two/{number}", b"2")
    assert len(queued.store.queued("two")) <= 10
    later = make_fs()  # as another process would
    later.flush()
    assert queued.info("two/19")["tiers"] == ["near", "far"]
    queued.pipe_file("two/0", b"after the flush")
    later.flush()
    assert queued.info("two/0")["tiers"] == ["near", "far"]


# -- many files, one by one -----------------------------------------------------------------------

MANY = """
    import sys, json
    from tieredstore.filesystem import TieredFileSystem
    fs = TieredFileSystem(json.loads(sys.argv[1]), promote=sys.argv[3])
    for number in range(int(sys.argv[2])):
        fs.pipe_file(f"zarr/c/{number}", b"%d" % number)
    print(sum(int(l.split()[1]) for l in open("/proc/self/io") if l.startswith("wchar")))
"""


@pytest.mark.parametrize("promote", ["never", "queued"])
def test_many_files_cost_no_more_each_than_few(quick_path, promote):
    written = []
    for many in (100, 400):
        tiers = [
            {"name": name, "backend": "local", "path": str(quick_path / f"{many}-{name}")}
            for name in ("near", "far")
        ]
        tiers[1]["durable"] = True
        child = run(MANY, _json({"tier": tiers}), many, promote)
        written.append(int(child.communicate(timeout=60)[0]))
        fs = TieredFileSystem({"tier": tiers}, skip_instance_cache=True)
        assert len(fs.find("zarr")) == many
    assert written[1] < 6 * written[0], "bytes written grow with the files, not with their square"


WRITER = """
    import sys, json
    if sys.argv[3] == "no-locks":
        import fcntl
        fcntl.flock = lambda *_: None
    from tieredstore.filesystem import TieredFileSystem
    fs = TieredFileSystem(json.loads(sys.argv[1]))
    for number in range(25):
        path = f"set/{sys.argv[2]}-{number}"
        fs.pipe_file(path, path.encode() * 100)
        print(path, flush=True)
"""


@pytest.mark.parametrize("locks", ["locks", "no-locks"])
def test_several_write_one_artifact_at_once(fs, config, locks):
    children = [run(WRITER, _json(config), who, locks) for who in range(4)]
    said = [child.communicate(timeout=100)[0].split() for child in children]
    assert [child.returncode for child in children] == [0] * 4
    fs.store.restore("set")
    assert fs.find("set") == sorted(path for paths in said for path in paths)
    assert all(fs.cat_file(path) == path.encode() * 100 for path in fs.find("set"))
    assert all(v.ok for v in fs.store.verify("set"))


def test_a_writer_that_is_killed_leaves_every_file_it_closed(fs, config):
    seed = random.SystemRandom().randrange(1 << 30)
    rng = random.Random(seed)
    closed = []
    for who in range(int(os.environ.get("TIEREDSTORE_TEST_FS_KILLS", "4"))):
        child = run(WRITER, _json(config), who, "locks")
        closed += [child.stdout.readline().strip() for _ in range(rng.randrange(1, 20))]
        os.kill(child.pid, signal.SIGKILL)
        closed += child.communicate()[0].split()
        for path in closed:
            assert fs.cat_file(path) == path.encode() * 100, seed
        if rng.random() < 0.5:
            fs.store.restore("set").close()
            assert all(v.ok for v in fs.store.verify("set")), seed
    assert set(closed) <= set(fs.find("set")), seed
    fs.store.collect(grace=0.0)
    assert stages(fs) == []


def _never_closed(fs):
    fs.open("set/b.txt", "wb").write(b"half")
    gc.collect()


def _json(value):
    import json

    return json.dumps(value)
