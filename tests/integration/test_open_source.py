"""Somebody else's files by `open_source`: from web servers, the Hub, S3, fsspec and folders."""

from __future__ import annotations

import hashlib
import os
import random
import threading

import pytest

import tieredstore
from tieredstore import ArtifactChanged, ConfigError, TierUnavailable, UnsafePath, Unsupported

LARGE = random.Random(3).randbytes((20 << 20) + 777)
FILES = {"a/large.bin": LARGE, "small.jsonl": b'{"text": "x"}\n', "empty": b""}
SECRET = "s3cr3t-word"


def fill(folder, files=FILES):
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def contents(source):
    found = {}
    for file in source.files():
        with source.open(file.path) as opened:
            found[file.path] = opened.read()
        assert len(found[file.path]) == file.size
    return found


def check_reads_like_any_file(source, path="a/large.bin", data=LARGE):
    """Forwards, backwards and from the end."""
    with source.open(path) as opened:
        assert opened.seekable()
        assert opened.read(10) == data[:10]
        assert opened.seek(-7, os.SEEK_END) == len(data) - 7
        assert opened.read() == data[-7:]
        assert opened.read() == b""
        for _ in range(5):
            at = random.Random(len(path)).randrange(len(data))
            opened.seek(at)
            assert opened.read(100_000) == data[at : at + 100_000]
        opened.seek(3)
        pieces = iter(lambda: opened.read(1 << 20), b"")
        assert hashlib.sha256(b"".join(pieces)).digest() == hashlib.sha256(data[3:]).digest()


@pytest.fixture
def web(tmp_path, load_server):
    (tmp_path / "served").mkdir()
    server = load_server("web").Web(tmp_path / "served")
    yield server
    server.stop()


# -- folders ------------------------------------------------------------------------------------


def test_a_folder_is_listed_and_read(tmp_path):
    fill(tmp_path / "data")
    source = tieredstore.open_source(str(tmp_path / "data"))
    assert contents(source) == FILES
    assert source.shown == str(tmp_path / "data")
    check_reads_like_any_file(source)


def test_a_file_is_a_source_of_one(tmp_path):
    fill(tmp_path)
    for location in (str(tmp_path / "a/large.bin"), (tmp_path / "a/large.bin").as_uri()):
        source = tieredstore.open_source(location)
        assert [f.path for f in source.files()] == ["large.bin"]
        assert source.shown == str(tmp_path / "a/large.bin")


def test_a_link_in_a_folder_is_named_rather_than_left_out(tmp_path):
    fill(tmp_path / "data")
    (tmp_path / "data/link").symlink_to("small.jsonl")
    with pytest.raises(UnsafePath, match="data/link: a symbolic link"):
        tieredstore.open_source(str(tmp_path / "data")).files()


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError):
        tieredstore.open_source(str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError):
        tieredstore.open_source(str(tmp_path)).open("nothing")


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_a_file_that_changes_half_way_is_noticed(tmp_path, how):
    fill(tmp_path)
    source = tieredstore.open_source(str(tmp_path))
    with source.open("a/large.bin") as opened:
        opened.read(100)
        if how == "replaced":
            os.replace(tmp_path / "small.jsonl", tmp_path / "a/large.bin")
        else:
            with (tmp_path / "a/large.bin").open("r+b") as file:
                file.write(b"other")
        if how == "in place":
            with pytest.raises(ArtifactChanged, match=r"large.bin: changed"):
                opened.read()
    with pytest.raises(ArtifactChanged):  # and it is not the file that this source has told of
        source.open("a/large.bin")


# -- web servers --------------------------------------------------------------------------------


def test_nginx_has_files_by_name_and_no_listing(tmp_path, load_server):
    module = load_server("nginx")
    if module.missing():
        pytest.skip(module.missing())
    server = module.make(tmp_path / "nginx", tmp_path / "served")
    fill(tmp_path / "served")
    server.start()
    try:
        source = tieredstore.open_source(f"{server.url}/")
        assert source.stat("small.jsonl").size == 14
        assert source.takes_ranges("small.jsonl")
        check_reads_like_any_file(source)
        with pytest.raises(Unsupported, match="HTTP has no listing"):
            source.files()
        with pytest.raises(FileNotFoundError):
            source.stat("nothing")
        one = tieredstore.open_source(f"{server.url}/a/large.bin")
        assert contents(one) == {"large.bin": LARGE}
    finally:
        server.stop()


def test_credentials_are_sent_and_never_shown(web):
    fill(web.root)
    where = web.url.replace("http://", f"http://me:{SECRET}@") + f"/small.jsonl?sig={SECRET}"
    source = tieredstore.open_source(where, {"headers": {"X-Key": SECRET}})
    assert contents(source) == {"small.jsonl": FILES["small.jsonl"]}
    assert SECRET not in source.shown + repr(source) + repr(source.tier())
    assert all(a.sent.get("X-Key") == SECRET and SECRET in a.handler.path for a in web.asked)
    web.fault = lambda asked: setattr(asked, "status", 403)
    with pytest.raises(OSError, match="denies access") as caught:
        tieredstore.open_source(where).files()
    assert SECRET not in str(caught.value)


def test_a_web_file_that_changes_half_way_is_noticed(web):
    fill(web.root)
    source = tieredstore.open_source(f"{web.url}/")
    with source.open("a/large.bin") as opened:
        opened.read(100)
        (web.root / "a/large.bin").write_bytes(LARGE[::-1])
        with pytest.raises(ArtifactChanged, match="changed while it was read"):
            opened.read()


def test_a_connection_that_breaks_is_tried_again(web):
    fill(web.root)
    broken = threading.Semaphore(3)

    def fault(asked):
        if asked.span and asked.span[0] and broken.acquire(blocking=False):
            asked.body = asked.body[: len(asked.body) // 2]
            asked.headers["Content-Length"] = str(asked.span[1] - asked.span[0])
            asked.handler.close_connection = True

    web.fault = fault
    with tieredstore.open_source(f"{web.url}/a/large.bin").open("large.bin") as opened:
        assert opened.read() == LARGE


def test_a_server_without_ranges_is_read_in_order(web):
    fill(web.root)

    def fault(asked):
        if asked.data is not None:
            asked.whole()

    web.fault = fault
    source = tieredstore.open_source(f"{web.url}/a/large.bin")
    assert not source.takes_ranges("large.bin")
    with source.open("large.bin") as opened:
        assert opened.read() == LARGE
    assert sum(a.method == "GET" for a in web.asked) <= 3  # it is not asked for each window


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("Content-MD5", "lOIcrOR2jEd6GEDJxx+Rlg==", "md5"),
        ("Digest", "SHA-256=%s", "sha256"),
        ("Repr-Digest", "sha-512=:nonsense:, sha-256=:%s:", "sha256"),
    ],
)
def test_digests_that_a_server_sends_are_kept(web, name, value, kind):
    import base64

    fill(web.root)
    said = base64.b64encode(hashlib.sha256(FILES["small.jsonl"]).digest()).decode()
    web.fault = lambda asked: asked.headers.__setitem__(name, value.replace("%s", said))
    source = tieredstore.open_source(f"{web.url}/small.jsonl")
    [file] = source.files()
    assert source.look("small.jsonl").digest.startswith(f"{kind}:")
    expected = hashlib.sha256(FILES["small.jsonl"]).hexdigest() if kind == "sha256" else ""
    assert file.sha256 == expected


# -- the Hub ------------------------------------------------------------------------------------


@pytest.fixture
def hub(load_server, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra 'hf'")
    server = load_server("hub").Hub()
    server.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", server.token)
    for path, data in FILES.items():
        server.put("me/corpus", path, data)
    yield server
    server.stop()


def test_the_hub_is_read_at_one_commit(hub):
    source = tieredstore.open_source("hf://datasets/me/corpus")
    assert source.revision == hub.repos["me/corpus"].tip
    found = {f.path: f for f in source.files()}
    assert found.keys() == {".gitattributes", *FILES}
    assert found["a/large.bin"].sha256 == hashlib.sha256(LARGE).hexdigest()
    hub.put("me/corpus", "a/large.bin", b"other")
    hub.put("me/corpus", "more", b"more")
    assert source.stat("a/large.bin") == found["a/large.bin"]
    check_reads_like_any_file(source)
    with pytest.raises(FileNotFoundError):
        source.stat("more")


def test_a_folder_and_a_file_of_a_repository(hub):
    folder = tieredstore.open_source("hf://datasets/me/corpus@main/a")
    assert contents(folder) == {"large.bin": LARGE}
    file = tieredstore.open_source("hf://datasets/me/corpus/a/large.bin")
    assert [f.path for f in file.files()] == ["large.bin"]
    assert hub.token not in file.shown + repr(file)


def test_what_the_hub_does_not_have_is_one_line(hub):
    with pytest.raises(TierUnavailable, match="no such dataset repository"):
        tieredstore.open_source("hf://datasets/you/nothing")
    with pytest.raises(TierUnavailable, match="no such branch or revision"):
        tieredstore.open_source("hf://datasets/me/corpus@nothing")
    with pytest.raises(ConfigError):
        tieredstore.open_source("hf://models/me/corpus")


# -- S3, and what fsspec knows ------------------------------------------------------------------


def test_s3_is_listed_and_pinned(moto, monkeypatch):
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    bucket = moto.make_bucket("open-source")
    import boto3

    client = boto3.client("s3", endpoint_url=moto.url)
    for path, data in FILES.items():
        client.put_object(Bucket="open-source", Key=f"corpus/{path}", Body=data)
    source = tieredstore.open_source(f"{bucket}/corpus", {"endpoint_url": moto.url})
    assert contents(source) == FILES
    check_reads_like_any_file(source)
    with source.open("a/large.bin") as opened:
        opened.read(100)
        client.put_object(Bucket="open-source", Key="corpus/a/large.bin", Body=LARGE[::-1])
        with pytest.raises(ArtifactChanged):
            opened.read()
    client.close()
    one = tieredstore.open_source(f"{bucket}/corpus/small.jsonl", {"endpoint_url": moto.url})
    assert contents(one) == {"small.jsonl": FILES["small.jsonl"]}


def test_any_url_of_fsspec(tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    for path, data in FILES.items():
        memory.pipe_file(f"/open-source/{path}", data)
    source = tieredstore.open_source("memory://open-source")
    assert contents(source) == FILES
    check_reads_like_any_file(source)
    with source.open("a/large.bin") as opened:
        opened.read(100)
        memory.pipe_file("/open-source/a/large.bin", LARGE[::-1])
        with pytest.raises(ArtifactChanged):
            opened.read()
    memory.rm("/open-source", recursive=True)


def test_offline_nothing_is_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("TIEREDSTORE_OFFLINE", "1")
    fill(tmp_path)
    assert tieredstore.open_source(str(tmp_path)).files()
    for location in ("http://127.0.0.1:1/x", "hf://datasets/me/x", "s3://bucket/x"):
        with pytest.raises(TierUnavailable, match="offline"):
            tieredstore.open_source(location)
