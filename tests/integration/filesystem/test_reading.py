"""What is read comes from the nearest tier, verified, and is fetched once; listings are of all."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import textwrap
import threading
import time

import fsspec
import numpy as np
import pytest

import tieredstore
from tieredstore.filesystem import TieredFileSystem

MIB = 1 << 20
DATA = random.Random(7).randbytes(5 * MIB + 12345)


@pytest.fixture
def web(load_server, quick_path, tmp_path):
    """A web server of the far tier's folder; it counts what it sends."""
    module = load_server("nginx")
    if module.missing():
        pytest.skip(module.missing())
    server = module.make(tmp_path / "nginx", quick_path / "far")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def over_http(config, web):
    """Make filesystems whose far tier is that server."""

    def make(**options):
        far = {"name": "far", "backend": "http", "url": web.url, "deadline": 5}
        tiers = {"tier": [config["tier"][0], far]}
        return TieredFileSystem(tiers, skip_instance_cache=True, **options)

    return make


def sent(web, file):
    """Bytes of a file that the server has sent."""
    time.sleep(0.05)
    return sum(size for _, _, size, path in web.said() if path.endswith(f"/{file}"))


@pytest.mark.parametrize("restore", ["artifact", "file", "blocks", "never"])
def test_what_is_brought_up_is_what_was_asked_for(make_fs, put_far, restore):
    put_far("set", {"a": DATA, "sub/b": b"small"})
    fs = make_fs(restore=restore)
    with fs.open("set/a") as file:
        assert file.size == len(DATA)
        file.seek(3 * MIB - 10)
        assert file.read(20) == DATA[3 * MIB - 10 : 3 * MIB + 10]
    near = {file: "near" in fs.info(f"set/{file}")["tiers"] for file in ("a", "sub/b")}
    assert near == {
        "a": restore in {"artifact", "file"},
        "sub/b": restore == "artifact",
    }
    assert fs.cat_file("set/a") == DATA
    assert ("near" in fs.info("set/a")["tiers"]) == (restore != "never")


def test_only_the_blocks_that_are_read_are_fetched_and_once(
    fs, put_far, over_http, web, quick_path
):
    put_far("set", {"a.bin": DATA})
    code = """
        import sys, json
        from tieredstore.filesystem import TieredFileSystem
        fs = TieredFileSystem(json.loads(sys.argv[1]), restore="blocks")
        with fs.open("set/a.bin") as file:
            for block in map(int, sys.argv[2].split()):
                file.seek(block << 20)
                assert len(file.read(1000)) == 1000
    """
    blocks = over_http(restore="blocks")

    def read(numbers):
        config = json.dumps(blocks._config)
        command = [sys.executable, "-c", textwrap.dedent(code), config, numbers]
        subprocess.run(command, check=True, timeout=60)

    read("1 3")
    assert 2 * MIB <= sent(web, "a.bin") < 2.1 * MIB
    read("3 1 4")
    assert 3 * MIB <= sent(web, "a.bin") < 3.1 * MIB, "another process finds what is kept"
    assert blocks.info("set/a.bin")["tiers"] == ["far"], "the file is not restored yet"
    got = over_http().store.restore("set")
    assert len(DATA) <= sent(web, "a.bin") < len(DATA) + 0.1 * MIB, "a restore fetches the rest"
    assert (got.path / "a.bin").read_bytes() == DATA
    assert list((quick_path / "near" / ".tieredstore" / "part").iterdir()) == []
    assert all(v.ok for v in fs.store.verify("set"))


def test_a_file_of_which_all_was_read_is_restored_when_it_is_closed(put_far, over_http, web):
    put_far("set", {"a.bin": DATA})
    blocks = over_http(restore="blocks")
    assert b"".join(blocks.open("set/a.bin")) == DATA
    assert blocks.info("set/a.bin")["tiers"] == ["near", "far"]
    assert sent(web, "a.bin") < len(DATA) + 0.1 * MIB
    web.stop()
    assert blocks.cat_file("set/a.bin") == DATA


def test_a_damaged_block_is_never_handed_out(make_fs, put_far, quick_path):
    put_far("set", {"a": DATA})
    path = quick_path / "far" / "set" / "a"
    with path.open("r+b") as file:
        file.seek(2 * MIB + 5)
        file.write(b"!!!")
    with make_fs(restore="blocks").open("set/a") as file:
        assert file.read(MIB) == DATA[:MIB]
        file.seek(2 * MIB)
        with pytest.raises(tieredstore.CorruptData):
            file.read(10)


def test_kept_blocks_that_were_lost_are_fetched_again(make_fs, put_far, quick_path):
    """As after a loss of power: what is noted counts only until the machine is started anew."""
    put_far("set", {"a": DATA})
    fs = make_fs(restore="blocks")
    with fs.open("set/a") as file:
        file.read(3 * MIB)
    [seen] = (quick_path / "near" / ".tieredstore" / "part").rglob("seen-*")
    seen.rename(seen.with_name("seen-ofanothertime"))
    with seen.with_name("data").open("r+b") as data:
        data.seek(MIB)
        data.write(bytes(MIB))
    with fs.open("set/a") as file:
        assert file.read() == DATA


def test_reads_of_every_kind_give_what_a_local_file_gives(make_fs, put_far, tmp_path):
    (tmp_path / "a").write_bytes(DATA)
    put_far("set", {"a": DATA})
    rng = random.Random(3)
    for restore in ("blocks", "never", "file"):
        with make_fs(restore=restore).open("set/a") as file, (tmp_path / "a").open("rb") as local:
            for _ in range(60):
                whence = rng.choice([0, 0, 0, 1, 2])
                offset = rng.randrange(len(DATA)) if whence == 0 else -rng.randrange(1000)
                if whence == 1:
                    offset = abs(offset)
                size = rng.choice([0, 1, 1000, 100_000, 2 * MIB])
                assert file.seek(offset, whence) == local.seek(offset, whence)
                assert file.read(size) == local.read(size)
                assert file.tell() == local.tell()


def test_ranges(make_fs, put_far):
    put_far("set", {"a": DATA, "b": b"0123456789"})
    fs = make_fs(restore="blocks")
    paths, starts, ends = ["set/b", "set/a", "set/b"], [2, MIB, -3], [5, MIB + 9, None]
    assert fs.cat_ranges(paths, starts, ends) == [b"234", DATA[MIB : MIB + 9], b"789"]
    found = fs.cat_ranges(["set/b", "set/none"], 0, 4)
    assert found[0] == b"0123"
    assert isinstance(found[1], FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(["set/none"], 0, 4, on_error="raise")


@pytest.mark.parametrize("path", ["set/../../out", "set/.tieredstore.json", "set//a", "../near"])
@pytest.mark.parametrize("written", [False, True])
def test_paths_that_escape_are_refused(fs, quick_path, path, written):
    (quick_path / "near").mkdir()
    (quick_path / "near" / "out").write_bytes(b"not the artifact's")
    for number in range(9 if written else 1):  # with the last of them the journal is in use
        fs.pipe_file(f"set/{number}", b"1")
    assert not fs.exists(path)
    for mode in ("rb", "wb"):
        with pytest.raises(tieredstore.InvalidName):
            fs.open(path, mode)


# -- listings -------------------------------------------------------------------------------------


def test_listings_are_the_union_of_the_tiers(fs, put_far):
    put_far("far/set", {"a": b"1", "sub/b": b"22"})
    fs.pipe_file("near/c", b"333")
    fs.store.restore("far/set", ["a"])
    assert [e["name"] for e in fs.ls("")] == ["far", "near"]
    assert fs.ls("far") == [
        {"name": "far/set", "size": 0, "type": "directory", "tiers": ["near", "far"]}
    ]
    assert fs.info("far/set/a")["tiers"] == ["near", "far"]
    info = fs.info("far/set/sub/b")
    assert (info["tiers"], info["size"]) == (["far"], 2)
    assert info["digest"].startswith("xxh3-128:")
    assert fs.du("") == 6
    assert fs.glob("**/b") == ["far/set/sub/b"]
    assert list(fs.walk("far/set")) == [
        ("far/set", ["sub"], ["a"]),
        ("far/set/sub", [], ["b"]),
    ]
    with pytest.raises(FileNotFoundError):
        fs.ls("far/set/none")


def test_a_tier_that_hangs_keeps_no_listing(config, web, make_proxy, put_far):
    put_far("set", {"a": b"far"})
    proxy = make_proxy(web.port)
    url = f"http://127.0.0.1:{proxy.port}/"
    far = {"name": "far", "backend": "http", "url": url, "deadline": 1.5}
    fs = TieredFileSystem({"tier": [config["tier"][0], far]}, skip_instance_cache=True)
    fs.pipe_file("near/a", b"1")
    proxy.down.fail("stall")
    since = time.monotonic()
    for _ in range(5):
        assert fs.find("near") == ["near/a"]
        assert [e["name"] for e in fs.ls("")] == ["near"]
        assert fs.exists("near/a")
        assert fs.cat_file("near/a") == b"1"
    assert time.monotonic() - since < 15  # twenty waits would be longer


# -- processes, threads, paths ----------------------------------------------------------------


def _of_pool(task):
    fs, path, number = task
    with fs.open(path) as file:
        file.seek(number * 100_000)
        return file.read(10)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pools_of_processes_read(make_fs, put_far, method):
    put_far("set", {"a": DATA})
    fs = make_fs(restore="blocks")
    assert fs.cat_file("set/a", 0, 3) == DATA[:3]
    tasks = [(fs, "set/a", number) for number in range(20)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.map(_of_pool, tasks)
    assert found == [DATA[n * 100_000 : n * 100_000 + 10] for n in range(20)]


def test_filesystems_and_open_files_are_pickled(make_fs, put_far):
    put_far("set", {"a": DATA})
    fs = make_fs(restore="never")
    again = pickle.loads(pickle.dumps(fs))
    assert again.storage_options == fs.storage_options
    with again.open("set/a") as file:
        file.seek(MIB)
        with pickle.loads(pickle.dumps(file)) as other:
            assert other.read(9) == DATA[MIB : MIB + 9]


def test_threads_read_at_once(make_fs, put_far):
    put_far("set", {f"{n}": DATA[: n * 100_000] for n in range(8)})
    fs = make_fs(restore="artifact")
    found = {}

    def read(number):
        found[number] = fs.cat_file(f"set/{number}")

    threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: DATA[: n * 100_000] for n in range(8)}


def test_the_two_short_ways(config, put_far):
    put_far("set", {"a.npy": np.arange(1000).tobytes(), "sub/t.txt": "täxt".encode()})
    with tieredstore.open("tiered://set/sub/t.txt", "r", config=config, encoding="utf-8") as file:
        assert file.read() == "täxt"
    with pytest.raises(FileNotFoundError, match="never"):
        tieredstore.path("set/a.npy", config=config, restore="never")
    path = tieredstore.path("tiered://set/a.npy", config=config)
    assert (np.memmap(path, dtype=np.int64) == np.arange(1000)).all()
    assert tieredstore.path("set/sub", config=config).joinpath("t.txt").is_file()
    assert tieredstore.path("tiered://set", config=config).is_dir()


def test_what_is_found_here_is_the_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with fsspec.open("tiered://set/a.txt", "w") as file:
        file.write("here")
    assert (tmp_path / "data" / "set" / "set" / "a.txt").read_text() == "here"
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert fsspec.filesystem("tiered").find("") == []


# -- replaced while it is read --------------------------------------------------------------------

READER = """
    import sys, json, os
    from tieredstore.filesystem import TieredFileSystem
    fs = TieredFileSystem(json.loads(sys.argv[1]), restore=sys.argv[2])
    seen = set()
    while not os.path.exists(sys.argv[3]):
        data = fs.cat_file("set/a")
        assert len(set(data[i : i + 8] for i in range(0, len(data), 8))) == 1, "a mixture"
        seen.add(data[:8])
        if len(seen) == 1:
            print("one", flush=True)
    print(len(seen))
"""


@pytest.mark.parametrize("way", ["files", "artifacts"])
def test_readers_see_the_old_bytes_or_the_new(fs, config, tmp_path, way):
    rounds = int(os.environ.get("TIEREDSTORE_TEST_FS_ROUNDS", "30"))
    end = tmp_path / "end"

    def write(number):
        data = b"%08d" % number * (MIB // 8 + number % 1000)
        if way == "files":
            fs.pipe_file("set/a", data)
        else:
            with fs.store.create("set") as stage:
                (stage.path / "a").write_bytes(data)

    write(0)
    code = textwrap.dedent(READER)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(config), restore, str(end)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for restore in ("file", "blocks")
    ]
    try:
        assert all(reader.stdout.readline() == "one\n" for reader in readers)
        for number in range(1, rounds + 1):
            write(number)
    finally:
        end.touch()
        said = [reader.communicate(timeout=60)[0].split() for reader in readers]
    assert [reader.returncode for reader in readers] == [0, 0], said
    assert all(int(words[-1]) > 1 for words in said), "a reader saw nothing new"
    assert all(v.ok for v in fs.store.verify("set"))


@pytest.mark.parametrize("restore", ["file", "blocks"])
@pytest.mark.parametrize("read", ["read", "read1", "readinto", "readline"])
def test_threads_that_share_a_file_read_where_each_has_gone(make_fs, put_far, restore, read):
    """DuckDB's do: one goes elsewhere between another's going and its read."""
    put_far("set", {"a.bin": DATA})

    def read_some(file):
        if read == "readinto":
            buffer = bytearray(10)
            assert file.readinto(buffer) == 10
            return bytes(buffer)
        return getattr(file, read)(10)

    with make_fs(restore=restore).open("set/a.bin") as file:
        for begin, elsewhere in ((100, 3 * MIB), (MIB, 7), (0, 4 * MIB)):
            assert file.seek(begin) == begin
            thread = threading.Thread(target=file.seek, args=(elsewhere,))
            thread.start()
            thread.join()
            assert file.tell() == begin
            line = DATA.find(b"\n", begin) + 1 if read == "readline" else begin + 10
            assert read_some(file) == DATA[begin : min(line, begin + 10)]
        file.seek(50)
        thread = threading.Thread(target=file.read, args=(10,))  # who has gone nowhere goes on
        thread.start()
        thread.join()
        assert file.read(5) == DATA[50:55]
        assert file.read(5) == DATA[55:60]
