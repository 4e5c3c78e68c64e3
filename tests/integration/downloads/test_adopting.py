"""Files of somebody else's brought up by a restore: measured, gone on with, digests compared."""

from __future__ import annotations

import hashlib
import os
import random
import threading

import pytest

import tieredstore
from tieredstore import (
    Adoption,
    ArtifactNotFound,
    CorruptData,
    Reporter,
    Tier,
    TieredStore,
    local_tier,
)
from tieredstore.backends.http import HttpBackend

MIB = 1 << 20
LARGE = random.Random(5).randbytes(40 * MIB + 999)
FILES = {"a/large.bin": LARGE, "small": b"small", "empty": b""}


class Moves(Reporter):
    """Counts what is brought; may call something when so many bytes have been."""

    def __init__(self, at=0, then=None):
        self.moved, self.at, self.then = 0, at, then
        self.said: list[str] = []
        self.lock = threading.Lock()

    def advanced(self, size):
        with self.lock:
            self.moved += size
            then = self.then if self.then and self.moved >= self.at else None
            if then is not None:
                self.then = None
        if then is not None:
            then()

    def skipped(self, tier, why):
        self.said.append(why)


class Cut(Exception):
    pass


def cut():
    raise Cut


def fill(folder, files=FILES):
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def store_of(tmp_path, tier, reporter=None):
    return TieredStore([local_tier(tmp_path / "first"), tier], reporter)


def check(got, files=FILES):
    for path, data in files.items():
        assert hashlib.sha256((got.path / path).read_bytes()).digest() == (
            hashlib.sha256(data).digest()
        )


@pytest.fixture
def web(tmp_path, load_server):
    fill(tmp_path / "served")
    server = load_server("web").Web(tmp_path / "served")
    yield server
    server.stop()


def fetched(web, path="a/large.bin"):
    """Bytes of a file that were asked for by ranges."""
    spans = [a.span for a in web.asked if a.path == path and a.method == "GET" and a.span]
    return sum(end - start for start, end in spans)


def refused(store, **kwargs):
    with pytest.raises(ArtifactNotFound) as caught:
        store.restore("it", files=["a/large.bin"], **kwargs)
    assert store.tiers[0].locate("it").state == "absent"
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- from each kind of place --------------------------------------------------------------------


def test_a_folder_keeps_modes_and_times(tmp_path):
    fill(tmp_path / "from")
    os.chmod(tmp_path / "from/small", 0o755)
    os.utime(tmp_path / "from/small", ns=(10**18, 10**18))
    store = store_of(tmp_path, tieredstore.open_source(str(tmp_path / "from")).tier())
    got = store.restore("it")
    check(got)
    found = (got.path / "small").stat()
    assert (found.st_mode & 0o777, found.st_mtime_ns) == (0o755, 10**18)
    assert next(v.ok for v in store.verify("it") if v.tier == "local")
    assert store.restore("it").source == "local"


def test_a_web_server_by_names(tmp_path, web):
    source = tieredstore.open_source(f"{web.url}/")
    store = store_of(tmp_path, source.tier())
    check(store.restore("it", files=list(FILES)))
    assert fetched(web) == len(LARGE)
    longest = max(a.span[1] - a.span[0] for a in web.asked if a.span)
    assert longest > 8 * MIB  # a run comes by one request
    with pytest.raises(ArtifactNotFound):
        store_of(tmp_path / "other", source.tier()).restore("it")  # nothing lists it


def test_a_tier_of_a_configuration_may_adopt(tmp_path, web):
    backend = HttpBackend(web.url)
    fill(web.root / "it")
    check(store_of(tmp_path, Tier("web", backend, adopt=True)).restore("it", files=list(FILES)))
    store = TieredStore([local_tier(tmp_path / "second"), Tier("web", backend)])
    with pytest.raises(ArtifactNotFound):
        store.restore("it", files=list(FILES))


def test_the_hub_and_its_digests(tmp_path, load_server, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra 'hf'")
    hub = load_server("hub").Hub()
    hub.start()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    try:
        for path, data in FILES.items():
            hub.put("me/it", path, data)
        source = tieredstore.open_source("hf://datasets/me/it")
        check(store_of(tmp_path, source.tier()).restore("it"))
        [large] = [s for s in hub.storage if hub.storage[s] == LARGE]
        hub.storage[large] = LARGE[:-1] + b"?"  # what is served is not what was committed
        with pytest.raises(ArtifactNotFound, match=f"sha256 .* expected {large}"):
            store_of(tmp_path / "2", source.tier()).restore("it")
        hub.storage[large] = LARGE
        check(store_of(tmp_path / "2", source.tier()).restore("it"))
    finally:
        hub.stop()


def test_artifacts_are_never_taken_for_plain_files(tmp_path):
    import fsspec

    from tieredstore.backends.fsspec import FsspecBackend

    fsspec.filesystem("memory").pipe_file("/adopts/it/20260131t235959-0123456789abcdef/f", b"x")
    tier = Tier("memory", FsspecBackend("memory://adopts"), adopt=True)
    assert tier.locate("it").state == "absent"
    fsspec.filesystem("memory").pipe_file("/adopts/other/f", b"x")
    assert tier.locate("other").state == "unmanaged"
    fsspec.filesystem("memory").rm("/adopts", recursive=True)


# -- gone on with -------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_what_has_arrived_is_not_fetched_again(tmp_path, web, part):
    def tier():
        return tieredstore.open_source(f"{web.url}/").tier(connections=4)

    first = Moves(int(len(LARGE) * part), cut)
    with pytest.raises(Cut):
        store_of(tmp_path, tier(), first).restore("it", files=list(FILES))
    log = next((tmp_path / "first/.tieredstore/part").glob("adopted-*/arrived"))
    arrived = log.stat().st_size // 28 * MIB
    assert arrived >= len(LARGE) * part - 4 * MIB
    web.asked.clear()
    check(store_of(tmp_path, tier()).restore("it", files=list(FILES)))
    assert fetched(web) <= len(LARGE) - arrived + 4 * MIB
    assert not list((tmp_path / "first/.tieredstore/part").iterdir())


def test_a_block_that_the_disk_lost_is_fetched_again(tmp_path, web):
    tier = tieredstore.open_source(f"{web.url}/").tier
    with pytest.raises(Cut):
        store_of(tmp_path, tier(), Moves(30 * MIB, cut)).restore("it", files=list(FILES))
    part = next((tmp_path / "first/.tieredstore/part").glob("*/wip/a/large.bin"))
    with part.open("r+b") as file:
        file.write(bytes(100))
    log = next((tmp_path / "first/.tieredstore/part").glob("*/arrived"))
    with log.open("ab") as file:
        file.write(b"torn")
    check(store_of(tmp_path, tier()).restore("it", files=list(FILES)))


def test_another_version_is_begun_anew_and_never_mixed(tmp_path, web):
    tier = lambda: tieredstore.open_source(f"{web.url}/").tier()  # noqa: E731
    with pytest.raises(Cut):
        store_of(tmp_path, tier(), Moves(20 * MIB, cut)).restore("it", files=["a/large.bin"])
    changed = LARGE[::-1]
    (web.root / "a/large.bin").write_bytes(changed)
    got = store_of(tmp_path, tier()).restore("it", files=["a/large.bin"])
    check(got, {"a/large.bin": changed})


def test_whole_files_are_kept_although_others_are_missing(tmp_path, web):
    files = {f"{n:03d}": bytes([n]) * 3000 for n in range(100)}
    fill(web.root, files)
    broken = threading.Event()

    def fault(asked):
        if asked.path == "077" and asked.method == "GET" and not broken.is_set():
            asked.status, asked.body = 403, b""

    web.fault = fault
    tier = tieredstore.open_source(f"{web.url}/").tier(connections=1)
    with pytest.raises(ArtifactNotFound, match="denies access"):
        store_of(tmp_path, tier).restore("it", files=list(files))
    broken.set()
    web.asked.clear()
    check(store_of(tmp_path, tier).restore("it", files=list(files)), files)
    assert len({a.path for a in web.asked if a.method == "GET"}) < 60


# -- digests and followers ----------------------------------------------------------------------


def test_a_digest_that_was_given_is_compared_before_anything_is_seen(tmp_path, web):
    source = tieredstore.open_source(f"{web.url}/")
    right = hashlib.sha256(LARGE).hexdigest()
    store = store_of(tmp_path, source.tier(sha256={"a/large.bin": "0" * 64}))
    said = refused(store)
    assert f"sha256 {right}, expected {'0' * 64}" in said
    assert not list((tmp_path / "first/.tieredstore/part").iterdir())  # of no use any more
    store = store_of(tmp_path, source.tier(sha256={"a/large.bin": right.upper()}))
    got = store.restore("it", files=["a/large.bin"])
    check(got, {"a/large.bin": LARGE})
    assert right in (got.path / ".tieredstore.records").read_text(errors="replace")


def test_a_digest_of_the_server_is_compared(tmp_path, web):
    web.fault = lambda asked: asked.headers.__setitem__("Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA==")
    assert "md5" in refused(store_of(tmp_path, tieredstore.open_source(f"{web.url}/").tier()))


def test_a_follower_reads_in_order_while_the_file_arrives(tmp_path, web):
    seen = {}

    def follow(path, stream):
        first = stream.read(MIB)
        seen[path] = hashlib.sha256(first + stream.read()).hexdigest()

    source = tieredstore.open_source(f"{web.url}/")
    store_of(tmp_path, source.tier()).restore("it", list(FILES), adoption=Adoption(follow=follow))
    assert seen == {path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()}


@pytest.mark.timeout(30)
def test_a_follower_that_fails_ends_the_restore_and_keeps_what_arrived(tmp_path, web):
    def follow(path, stream):
        stream.read(10)
        raise Cut

    tier = tieredstore.open_source(f"{web.url}/").tier
    store = store_of(tmp_path, tier())
    with pytest.raises(Cut):
        store.restore("it", ["a/large.bin"], adoption=Adoption(follow=follow))
    assert store.tiers[0].locate("it").state == "absent"
    store_of(tmp_path, tier()).restore("it", ["a/large.bin"])


@pytest.mark.timeout(30)
def test_a_follower_ends_when_the_file_does_not_arrive(tmp_path, web):
    ended = threading.Event()

    def follow(path, stream):
        try:
            stream.read()
        finally:
            ended.set()

    web.fault = lambda asked: asked.span and asked.span[0] and setattr(asked, "status", 403)
    store = store_of(tmp_path, tieredstore.open_source(f"{web.url}/").tier())
    refused(store, adoption=Adoption(follow=follow))
    assert ended.wait(30)


def test_what_a_check_refuses_is_not_published(tmp_path, web):
    def refuse(folder):
        assert (folder / "a/large.bin").read_bytes() == LARGE
        raise CorruptData("not good enough")

    tier = tieredstore.open_source(f"{web.url}/").tier
    store = store_of(tmp_path, tier())
    assert "not good enough" in refused(store, adoption=Adoption(check=refuse))
    web.asked.clear()
    recipe = {"preparer": "test", "options": {"n": 1}}
    adoption = Adoption(recipe=recipe, check=lambda folder: None)
    got = store_of(tmp_path, tier()).restore("it", ["a/large.bin"], recipe, adoption)
    assert got.recipe.options == {"n": 1}
    assert fetched(web) == 0  # it had been kept


def test_a_replacement_leaves_the_old_one_until_it_stands(tmp_path, web):
    tier = tieredstore.open_source(f"{web.url}/").tier
    store = store_of(tmp_path, tier())
    store.restore("it", ["small"])
    adoption = Adoption(replace=True)
    web.fault = lambda asked: setattr(asked, "status", 403)
    with pytest.raises(ArtifactNotFound):
        store.restore("it", ["a/large.bin"], adoption=adoption)
    assert store.restore("it", ["small"]).source == "local"
    web.fault = None
    got = store.restore("it", ["a/large.bin"], adoption=adoption)
    assert sorted(p.name for p in got.path.iterdir() if p.name[0] != ".") == ["a"]


# -- in parts -----------------------------------------------------------------------------------


def test_further_files_are_added_and_the_others_stay(tmp_path, web):
    """A source's files are asked for a few at a time; none is fetched twice."""
    files = {f"part-{n}": random.Random(n).randbytes(2 * MIB + n) for n in range(4)}
    fill(web.root, files)
    store = store_of(tmp_path, tieredstore.open_source(f"{web.url}/").tier())
    for number, path in enumerate(files):
        web.asked.clear()
        got = store.restore("it", files=[path])
        check(got, {p: files[p] for p in list(files)[: number + 1]})
        assert {a.path for a in web.asked if a.method == "GET"} == {path}
    assert next(v.ok for v in store.verify("it") if v.tier == "local")
    web.asked.clear()
    check(store.restore("it", files=list(files)), files)
    assert not web.asked


def test_a_file_that_is_another_now_is_not_kept_among_new_ones(tmp_path, web):
    fill(web.root, {"one": b"1" * 1000, "two": b"2" * 1000})
    store_of(tmp_path, tieredstore.open_source(f"{web.url}/").tier()).restore("it", files=["one"])
    web.fault = lambda a: a.headers.__setitem__("Last-Modified", "Sun, 02 Jan 2022 00:00:00 GMT")
    fill(web.root, {"one": b"3" * 1000})
    got = store_of(tmp_path, tieredstore.open_source(f"{web.url}/").tier()).restore("it", ["two"])
    check(got, {"one": b"3" * 1000, "two": b"2" * 1000})


def test_a_connection_serves_one_run_after_the_other(tmp_path, web):
    ports = set()
    web.fault = lambda a: ports.add(a.handler.client_address) if a.span else None
    fill(web.root, {f"run-{n}": random.Random(n).randbytes(3 * MIB) for n in range(12)})
    tier = tieredstore.open_source(f"{web.url}/").tier(connections=2)
    store_of(tmp_path, tier).restore("it", files=[f"run-{n}" for n in range(12)])
    assert len(ports) <= 4
