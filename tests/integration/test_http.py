"""Restoring from web servers: nginx, killed and started again, and one that misbehaves."""

from __future__ import annotations

import gzip
import importlib.util
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest

from tieredstore import Reporter, Tier, TieredStore, local_tier, open_store
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.backends.http import HttpBackend
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import (
    ArtifactChanged,
    ArtifactNotFound,
    ConfigError,
    TieredStoreError,
    TierTimeout,
    TierUnavailable,
)
from tieredstore.testing.samples import Sample, publish

SERVERS = Path(__file__).parents[1] / "servers"
LARGE = random.Random(7).randbytes((9 << 20) + 12345)  # several ranges of 4 MiB
FILES = {"train.bin": LARGE, "sub/val.bin": b"val", "empty": b"", "meta.json": b"{}"}
SECRET = "s3cr3t-word"


def load(name):
    spec = importlib.util.spec_from_file_location(
        f"tieredstore_tests_{name}", SERVERS / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def publish_in(folder, name="corpus", files=FILES):
    store = TieredStore([local_tier(folder)])
    with store.create(name) as stage:
        for path, data in files.items():
            (stage.path / path).parent.mkdir(parents=True, exist_ok=True)
            (stage.path / path).write_bytes(data)


class Notes(Reporter):
    def __init__(self, on_advanced=None):
        self.said, self.moved, self.on_advanced = [], 0, on_advanced
        self.lock = threading.Lock()

    def skipped(self, tier, why):
        self.said.append(why)

    def corrupt(self, tier, what):
        self.said.append(what)

    def advanced(self, size):
        with self.lock:
            self.moved += size
        if self.on_advanced:
            self.on_advanced(self.moved)


def store_on(tmp_path, url, reporter=None, **options):
    backend = HttpBackend(url, **{"timeout": 5, "retry_for": 1, **options})
    return TieredStore([local_tier(tmp_path / "first"), Tier("web", backend)], reporter)


def contents(got, files=FILES):
    return {path: (got.path / path).read_bytes() for path in files}


def refused(store, name="corpus"):
    """The one line that a restore ends in; nothing is left that a reader would take for whole."""
    with pytest.raises(ArtifactNotFound) as caught:
        store.restore(name)
    assert store.tiers[0].locate(name).state == "absent"
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- nginx --------------------------------------------------------------------------------------


@pytest.fixture
def nginx(tmp_path):
    module = load("nginx")
    if module.missing():
        pytest.skip(module.missing())
    server = module.make(tmp_path / "nginx", tmp_path / "served")
    yield server
    server.stop()


def test_nginx_serves_ranges_in_parallel(tmp_path, nginx):
    publish_in(nginx.root)
    nginx.start()
    store = store_on(tmp_path, nginx.url)
    got = store.restore("corpus")
    assert got.source == "web"
    assert contents(got) == FILES
    ranges = [s for s in nginx.said() if s[1] == 206 and s[3] == "/corpus/train.bin"]
    assert len(ranges) >= 3
    assert all(verified.ok for verified in store.verify("corpus"))


def test_killed_in_the_middle_only_what_is_missing_moves_later(tmp_path, nginx):
    files = {"train.bin": random.Random(8).randbytes(40 << 20)}
    publish_in(nginx.root, files=files)
    nginx.start("limit_rate 3m;")
    killed = threading.Event()

    def kill(moved):
        if moved >= 12 << 20 and not killed.is_set():
            killed.set()
            nginx.stop(signal.SIGKILL)

    notes = Notes(kill)
    line = refused(store_on(tmp_path, nginx.url, notes))
    assert killed.is_set()
    assert "web" in line
    kept = notes.moved
    assert 12 << 20 <= kept < 40 << 20
    before = len(nginx.said())
    nginx.start()
    got = store_on(tmp_path, nginx.url).restore("corpus")
    assert contents(got, files) == files
    sent = sum(size for _, _, size, path in nginx.said()[before:] if path.endswith("train.bin"))
    assert sent <= (40 << 20) - kept + (1 << 20)


# -- a server that misbehaves -------------------------------------------------------------------


@pytest.fixture
def make_web(tmp_path):
    module, made = load("web"), []

    def start(folder):
        made.append(module.Web(folder))
        return made[-1]

    yield start
    for web in made:
        web.stop()


@pytest.fixture
def web(tmp_path, make_web):
    publish_in(tmp_path / "served")
    return make_web(tmp_path / "served")


def of_data(change):
    """A fault in the answers to GET of train.bin only."""

    def fault(asked):
        return asked.path.endswith("train.bin") and asked.method == "GET" and change(asked)

    return fault


def test_it_behaves_when_it_is_let(tmp_path, web):
    assert contents(store_on(tmp_path, web.url).restore("corpus")) == FILES


def test_ranges_ignored_the_whole_is_streamed_in_turn(tmp_path, web):
    def ignore(asked):
        if asked.data is not None:
            asked.whole()

    web.fault = ignore
    assert contents(store_on(tmp_path, web.url).restore("corpus")) == FILES
    plain = [a for a in web.asked if a.path.endswith("train.bin") and "Range" not in a.sent]
    small = [a for a in web.asked if a.path.endswith("val.bin")]
    assert len(small) == 1  # the range was all of it
    assert len(plain) == 1  # one stream for all threads, whatever the first ranges were answered


def test_ranges_ignored_any_order_reads_right(web):
    web.fault = of_data(lambda asked: asked.whole())
    with HttpBackend(web.url).open("corpus/train.bin") as reader:
        for offset, size in ((5 << 20, 1000), (0, 10), (len(LARGE) - 7, 100), (3, 2 << 20)):
            buffer = bytearray(size)
            got = reader.readinto(offset, memoryview(buffer))
            assert buffer[:got] == LARGE[offset : offset + size]


def shifted(asked):
    start, end = asked.span
    asked.body = LARGE[start + 1 : end + 1]
    asked.headers["Content-Range"] = f"bytes {start + 1}-{end}/{len(LARGE)}"


def longer(asked):  # but for the first range
    if asked.span[0]:
        asked.headers["Content-Range"] = f"bytes {asked.span[0]}-{asked.span[1] - 1}/99999999"


def unnamed(asked):
    del asked.headers["Content-Range"]


def too_long(asked):
    asked.body += b"more"


def zipped(asked):
    asked.body = gzip.compress(asked.body)
    asked.headers["Content-Encoding"] = "gzip"


def cut(asked):
    asked.headers["Content-Length"] = str(len(asked.body))
    asked.body = asked.body[: len(asked.body) // 2]
    asked.answer()
    asked.handler.close_connection = True
    return True


def flipped(asked):
    asked.body = bytes([asked.body[0] ^ 1]) + asked.body[1:]


def status(code, **headers):
    def answer(asked):
        asked.status, asked.body = code, b"<html>sorry</html>"
        asked.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    return answer


FAULTS = {
    "another range": (shifted, "were asked for, the answer says 'bytes 1-"),
    "another length": (longer, "changed while it was read ("),
    "no range named": (unnamed, "the answer says 'no range'"),
    "a body too long": (too_long, "for a range of"),
    "gzip": (zipped, "is sent encoded ('gzip')"),
    "truncated": (cut, "the answer ended after"),
    "a wrong byte": (flipped, "differ from the manifest"),
    "503 always": (status(503), "503 Service Unavailable (tried "),
    "429 for long": (
        status(429, Retry_After="3600"),
        "tried once within 1 s; it asks to wait 3600",
    ),
    "403": (status(403), "the server denies access"),
    "401": (status(401), "the server denies access"),
    "410": (status(410), "No such file"),
    "418": (status(418), "418 I'm a Teapot, which is no answer"),
    "204": (status(204), "204 No Content, which is no answer"),
    "a loop of redirects": (status(302, Location="/corpus/train.bin"), "more than 10 times"),
    "to another protocol": (status(302, Location="ftp://host/x"), "ftp://host, which is not"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_is_wrong_ends_in_one_line(tmp_path, web, case):
    fault, expected = FAULTS[case]
    web.fault = of_data(fault)
    notes = Notes()
    line = refused(store_on(tmp_path, web.url, notes))
    assert expected in " ".join([line, *notes.said])
    assert "corpus/train.bin" in " ".join([line, *notes.said])
    web.fault = None
    assert contents(store_on(tmp_path, web.url).restore("corpus")) == FILES


def test_truncated_once_is_asked_for_again(tmp_path, web):
    left = [1, 1]
    web.fault = of_data(lambda asked: bool(left) and left.pop() and cut(asked))
    assert contents(store_on(tmp_path, web.url, retry_for=5).restore("corpus")) == FILES
    assert not left


def test_429_is_waited_out_as_long_as_it_asks(tmp_path, web):
    times = []

    def busy_once(asked):
        times.append(time.monotonic())
        if len(times) == 1:
            status(429, Retry_After="1")(asked)

    web.fault = busy_once
    assert HttpBackend(web.url, retry_for=5).read("corpus/meta.json", 10) == b"{}"
    assert times[1] - times[0] >= 1


@pytest.mark.parametrize("known_by", ["ETag", "Last-Modified", "length"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changes_half_way_is_never_mixed(web, known_by, ranges):
    changed = []

    def change(asked):
        asked.data = asked.data if not changed else LARGE[::-1] + b"x" * (known_by == "length")
        asked.sent.pop("If-Range", None)  # this server does not know it
        asked.whole()
        if ranges:
            asked._range()
        asked.headers["Last-Modified"] = "Sun, 02 Jan 2022" if changed else "Sat, 01 Jan 2022"
        for name in {"ETag", "Last-Modified"} - {known_by}:
            asked.headers.pop(name)

    web.fault = lambda asked: asked.path.endswith("train.bin") and change(asked)
    with HttpBackend(web.url).open("corpus/train.bin") as reader:
        buffer = memoryview(bytearray(1 << 20))
        assert reader.readinto(1 << 20, buffer) == 1 << 20
        assert buffer == LARGE[1 << 20 : 2 << 20]
        changed.append(True)
        with pytest.raises(ArtifactChanged, match=r"corpus/train\.bin: changed while it was read"):
            reader.readinto(0, buffer)


def test_if_range_is_sent_with_a_strong_etag(web):
    with HttpBackend(web.url).open("corpus/train.bin") as reader:
        reader.readinto(0, memoryview(bytearray(10)))
        (web.root / "corpus/train.bin").write_bytes(LARGE[::-1])
        with pytest.raises(ArtifactChanged):
            reader.readinto(10, memoryview(bytearray(10)))
    first, second = (a.sent for a in web.asked if "Range" in a.sent)
    assert first["If-Range"] == second["If-Range"] != ""


def test_a_stall_ends_at_the_deadline(tmp_path, web):
    go = threading.Event()
    web.fault = of_data(lambda asked: go.wait(20))
    since = time.monotonic()
    try:
        line = refused(store_on(tmp_path, web.url, timeout=0.3, retry_for=0.8))
        assert time.monotonic() - since < 15
        assert "no answer within 0.3 s" in line
        with pytest.raises(TierTimeout):
            HttpBackend(web.url, timeout=0.2, retry_for=0.3).read("corpus/train.bin", 1 << 30)
    finally:
        go.set()


def test_a_web_page_is_no_head(tmp_path, web):
    def page(asked):
        if asked.data is None:
            status(200)(asked)

    web.fault = page
    store = store_on(tmp_path, web.url)
    assert "a web page where a head was expected" in refused(store, "nothing")
    assert contents(store.restore("corpus")) == FILES


def test_head_refused_one_byte_is_asked_for(web):
    web.fault = lambda asked: status(405)(asked) if asked.method == "HEAD" else None
    backend = HttpBackend(web.url)
    assert backend.stat("corpus/train.bin").size == len(LARGE)
    assert backend.stat("corpus/empty").size == 0
    with pytest.raises(FileNotFoundError):
        backend.stat("corpus/nothing")


# -- credentials --------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["url", "Authorization", "X-Api-Key"])
def test_credentials_stay_with_their_server(tmp_path, make_web, given):
    publish_in(tmp_path / "served")
    (tmp_path / "none").mkdir()
    home, other = make_web(tmp_path / "none"), make_web(tmp_path / "served")
    home.fault = lambda asked: status(302, Location=f"http://localhost:{other.port}/{asked.path}")(
        asked
    )
    url, headers = f"http://127.0.0.1:{home.port}", {given: SECRET}
    if given == "url":
        url, headers = f"http://me:{SECRET}@127.0.0.1:{home.port}", {}
    store = store_on(tmp_path, url, headers=headers)
    assert contents(store.restore("corpus")) == FILES
    name = "Authorization" if given == "url" else given
    assert all(a.sent.get(name) for a in home.asked)
    assert other.asked
    for asked in other.asked:
        assert SECRET not in str(asked.sent)
        assert name not in asked.sent


def test_credentials_are_never_shown(tmp_path, web, caplog):
    caplog.set_level("DEBUG")
    url = f"http://me:{SECRET}@127.0.0.1:{web.port}"
    notes = Notes()
    for code in (401, 503, 404):
        web.fault = status(code)
        store = store_on(tmp_path, url, notes, headers={"X-Api-Key": SECRET}, retry_for=0.2)
        assert SECRET not in refused(store)
    web.stop()
    gone = HttpBackend(f"{url}/?token={SECRET}", retry_for=0.1)
    with pytest.raises(TierUnavailable, match="Connection refused") as caught:
        gone.stat("x")
    assert SECRET not in f"{caught.value!r} {gone.place} {gone!r} {notes.said} {caplog.text}"
    for wrong in (f"ftp://me:{SECRET}@host", f"http://me:{SECRET}@ho st", f"http://{SECRET}@:x"):
        with pytest.raises(ConfigError) as refusal:
            HttpBackend(wrong)
        assert SECRET not in str(refusal.value)


def test_netrc_and_cookies_are_not_used(tmp_path, web, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    web.fault = lambda asked: asked.headers.update({"Set-Cookie": "a=b"})
    backend = HttpBackend(web.url)
    for _ in range(2):
        backend.read("corpus/meta.json", 10)
    assert all("Authorization" not in a.sent and "Cookie" not in a.sent for a in web.asked)


def test_headers_that_are_no_table_are_not_shown():
    row = {"name": "w", "backend": "http", "url": "http://127.0.0.1:9", "headers": SECRET}
    with pytest.raises(ConfigError, match="headers is text, expected a table") as refusal:
        open_store({"tier": [{"name": "l", "backend": "local", "path": "data"}, row]})
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize(
    "headers", [{"Range": "bytes=0-1"}, {"X": f"{SECRET}\r\nY: 1"}, {"X Y": SECRET}, {"X": 5}]
)
def test_headers_that_cannot_be_sent_are_refused(headers):
    with pytest.raises(ConfigError) as refusal:
        HttpBackend("http://127.0.0.1:9", headers)
    assert SECRET not in str(refusal.value)


def test_without_the_client_installed_the_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "requests", None)
    assert "pip install 'tieredstore[http]'" in refused(store_on(tmp_path, "http://127.0.0.1:9"))


# -- through a store ----------------------------------------------------------------------------


def test_a_keyed_place_that_is_served(tmp_path, make_web):
    memory, root = fsspec.filesystem("memory"), f"memory://{tmp_path.name}-served"
    publish(FsspecBackend(root), "group/name", Sample.of(FILES))
    memory.get(f"{root}/", str(tmp_path / "served"), recursive=True)
    memory.rm(root, recursive=True)
    got = store_on(tmp_path, make_web(tmp_path / "served").url).restore("group/name")
    assert contents(got) == FILES


def test_a_single_file_and_a_partial_copy_of_a_local_tier(tmp_path, make_web):
    low = Tier("low", LocalBackend(str(tmp_path / "whole")), durable=True)
    served = TieredStore([local_tier(tmp_path / "served"), low])
    with served.create_file("logs/today.jsonl") as stage:
        (stage.path / "today.jsonl").write_bytes(b"{}\n")
    with served.create("some") as stage:
        for path in ("a", "b"):
            (stage.path / path).write_text(path)
    served.promote("some")
    served.evict("some")
    served.restore("some", files=["a"])
    store = store_on(tmp_path, make_web(tmp_path / "served").url)
    assert store.restore("logs/today.jsonl").path.read_bytes() == b"{}\n"
    assert store.tiers[1].locate("some").state == "partial"
    assert (store.restore("some", files=["a"]).path / "a").read_text() == "a"


def test_status_says_that_it_cannot_list(tmp_path, web):
    notes = Notes()
    store = store_on(tmp_path, web.url, notes)
    assert store.status() == {}
    (line,) = notes.said
    assert "cannot be listed" in line
    store.restore("corpus")
    assert [where.state for where in store.status()["corpus"]] == ["whole", "whole"]


def test_streams_are_verified(tmp_path, web):
    store = store_on(tmp_path, web.url)
    with store.open_stream("corpus", "train.bin") as stream:
        assert stream.read() == LARGE
    web.fault = of_data(flipped)
    with pytest.raises((TieredStoreError, OSError)):
        store.open_stream("corpus", "train.bin").read()


def test_a_hit_loads_no_client(tmp_path):
    publish_in(tmp_path / "data", files={"a": b"1"})
    program = (
        "import sys, tieredstore\n"
        "rows = [{'name': 'l', 'backend': 'local', 'path': sys.argv[1], 'layout': '{name}'},\n"
        "        {'name': 'w', 'backend': 'http', 'url': 'http://127.0.0.1:9'}]\n"
        "tieredstore.open_store({'tier': rows}).restore('corpus')\n"
        "assert not {'requests', 'urllib3'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "data")], check=True, timeout=60)
