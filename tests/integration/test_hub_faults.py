"""The Hub when it fails, lies, is away or is asked by the wrong one: waited out, or one line."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tieredstore import Reporter, Tier, TieredStore, local_tier
from tieredstore.backends.hf import HubBackend
from tieredstore.backends.local import LocalBackend
from tieredstore.errors import ArtifactNotFound, CorruptData, PromoteFailed, TierUnavailable
from tieredstore.testing.samples import Sample, publish, read_artifact

constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra 'hf'")

_HUB = Path(__file__).parents[1] / "servers" / "hub.py"
LARGE = random.Random(6).randbytes((9 << 20) + 321)  # two ranges of 8 MiB
FILES = {"train.bin": LARGE, "sub/val.bin": b"\0val", "empty": b"", "meta.json": b"{}"}
URL = "hf://datasets/me/prepared"


@pytest.fixture(scope="module")
def servers():
    spec = importlib.util.spec_from_file_location("tieredstore_tests_hub", _HUB)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hub(servers, monkeypatch):
    server = servers.Hub()
    server.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", server.token)
    yield server
    server.stop()


@pytest.fixture
def kept(hub):
    """The sample that is published on the Hub."""
    sample = publish(HubBackend(URL), "corpus", Sample.of(FILES))
    hub.log.clear()
    return sample


class Notes(Reporter):
    def __init__(self):
        self.said = []

    def skipped(self, tier, why):
        self.said.append(why)

    def corrupt(self, tier, what):
        self.said.append(what)

    def copied(self, path, source, target):
        self.said.append(f"{path} {source} {target}")

    def promoted(self, name, tier, action, detail):
        self.said.append(f"{name} {tier} {action} {detail}")


def store_on(tmp_path, reporter=None, below=(), **options):
    backend = HubBackend(URL, **{"timeout": 5, "retry_for": 8, **options})
    tiers = [local_tier(tmp_path / "first"), Tier("hub", backend, durable=True), *below]
    return TieredStore(tiers, reporter)


def contents(got):
    return {path: (got.path / path).read_bytes() for path in FILES}


def refused(store, name="corpus"):
    """The one line that a restore ends in; nothing is left that a reader would take for whole."""
    with pytest.raises(ArtifactNotFound) as caught:
        store.restore(name)
    assert store.tiers[0].locate(name).state == "absent"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def create(store):
    with store.create("corpus") as made:
        for path, data in FILES.items():
            (made.path / path).parent.mkdir(parents=True, exist_ok=True)
            (made.path / path).write_bytes(data)


# -- what is waited out -------------------------------------------------------------------------

LIMITED = {"RateLimit": '"resolvers";r=0;t=1', "RateLimit-Policy": '"fixed window";q=500;w=300'}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("/resolve/", (503, {})),
        ("/resolve/", (429, LIMITED)),
        ("/resolve-cache/", (500, {})),
        ("/storage/", (503, {})),
        ("/storage/", (429, {"Retry-After": "1"})),
    ],
)
@pytest.mark.usefixtures("kept")
def test_a_restore_waits_out_what_passes(tmp_path, servers, hub, what, said):
    status, headers = said
    fault = servers.Fault(f"GET .*{what}", skip=1, times=1, status=status, headers=headers)
    hub.faults.append(fault)
    since = time.monotonic()
    got = store_on(tmp_path).restore("corpus")
    assert contents(got) == FILES
    assert got.skipped == {}
    assert not fault.times
    assert not headers or time.monotonic() - since > 1


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ("GET .*/revision/", 500),
        ("POST .*/preupload/", 429),
        ("POST .*/objects/batch", 503),
        ("PUT /storage/", 500),
        ("POST .*/verify", 502),
        ("POST .*/commit/", 500),
        ("POST .*/commit/", 429),
        ("POST .*/create", 503),
        ("GET .*/tree/", 504),
    ],
)
def test_a_promote_waits_out_what_passes(tmp_path, servers, hub, what, status):
    if "create" not in what:
        hub.repo("me/prepared")
    headers = {"Retry-After": "1"} if status == 429 else {}
    fault = servers.Fault(what, times=1, status=status, headers=headers)
    hub.faults.append(fault)
    store = store_on(tmp_path)
    create(store)
    assert [o.action for o in store.promote("corpus")] == ["copied"]
    assert not fault.times
    assert read_artifact(HubBackend(URL), "corpus") == FILES


def test_a_range_that_breaks_is_gone_on_with_where_it_broke(tmp_path, servers, hub, kept):
    where = f"GET /storage/{hashlib.sha256(LARGE).hexdigest()}"
    hub.faults.append(servers.Fault(where, skip=1, times=3, cut=100_000))
    assert contents(store_on(tmp_path, retry_for=1).restore("corpus")) == FILES
    starts = [int(s.range[6:].partition("-")[0]) for s in hub.seen(where)]
    ranges = [0, 8 << 20]
    broken = ranges[starts.index(8 << 20) == 1]
    assert sorted(starts) == sorted([*ranges, *(broken + n * 100_000 for n in (1, 2, 3))])


def test_a_listing_or_head_that_breaks_is_asked_for_again(servers, hub, kept):
    hub.faults.append(servers.Fault("GET .*(/tree/|/resolve-cache/)", times=2, cut=10))
    backend = HubBackend(URL)
    assert backend.read_head("corpus").head.generation == kept.generation
    assert len(list(backend.list("corpus"))) == len(FILES) + 2


def test_what_lasts_or_is_to_be_waited_for_too_long_is_one_line(tmp_path, servers, hub, kept):
    hub.faults.append(servers.Fault("GET", status=429, headers={"Retry-After": "3600"}))
    since = time.monotonic()
    text = refused(store_on(tmp_path, retry_for=2))
    assert "429 Too Many Requests" in text
    assert "it asks to wait 3600 s" in text
    hub.faults[:] = [servers.Fault("GET", status=503)]
    assert "503 Service Unavailable" in refused(store_on(tmp_path, retry_for=0.5))
    assert time.monotonic() - since < 10


def test_a_server_that_hangs_is_one_line(tmp_path, servers, hub, kept):
    stuck = threading.Event()
    hub.faults.append(servers.Fault("GET", before=lambda: stuck.wait(20)))
    since = time.monotonic()
    assert "no answer within" in refused(store_on(tmp_path, timeout=0.5, retry_for=1))
    assert time.monotonic() - since < 8
    stuck.set()


def test_a_server_that_is_killed_and_started_again_ends_a_restore(tmp_path, servers, hub, kept):
    def fall() -> None:
        threading.Thread(target=again).start()
        time.sleep(0.2)

    def again() -> None:
        hub.stop()
        time.sleep(0.7)
        hub.start()

    hub.faults.append(servers.Fault("GET /storage/", skip=1, times=1, before=fall))
    got = store_on(tmp_path).restore("corpus")
    assert contents(got) == FILES
    assert got.skipped == {}


def test_a_server_that_goes_away_mid_promote_leaves_nothing_in_sight(tmp_path, servers, hub):
    store = store_on(tmp_path, retry_for=0.5)
    create(store)
    hub.faults.append(servers.Fault("PUT", times=1, before=hub.stop))
    with pytest.raises(PromoteFailed) as caught:
        store.promote("corpus")
    assert "\n" not in str(caught.value)
    assert "hf://datasets/me/prepared" in str(caught.value)
    hub.start()
    assert read_artifact(HubBackend(URL), "corpus") is None
    assert [o.action for o in store.promote("corpus")] == ["copied"]
    hub.faults.clear()


# -- what is incomplete or wrong ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ({"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}}, "the listing broke off"),
        ({"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}}, "no such dataset"),
        ({"status": 403}, "403 Forbidden"),
        ({"status": 500}, "500 Internal Server Error"),
        ({"headers": {"Link": '<http://localhost:1/api/x>; rel="next"'}}, "leads nowhere"),
        ({"change": lambda _: b'{"error": 1}'}, "listing cannot be read"),
        ({"change": lambda body: body[:-9]}, "answer is no JSON"),
    ],
)
def test_a_listing_is_complete_or_raises(servers, hub, fault, line):
    hub.page = 4
    repo = hub.repo("me/prepared")
    repo.commit({f"many/{n}": servers.File.regular(b"") for n in range(20)})
    backend = HubBackend(URL, retry_for=0.3)
    assert len(list(backend.list("many"))) == 20
    hub.faults.append(servers.Fault("GET .*/tree/", skip=2, **fault))
    found = []
    with pytest.raises(OSError, match=line) as caught:
        found.extend(backend.list("many"))
    assert not isinstance(caught.value, FileNotFoundError)
    assert "\n" not in str(caught.value)


def test_a_file_corrupted_on_the_hub_is_taken_from_the_next_tier(tmp_path, hub, kept):
    publish(LocalBackend(str(tmp_path / "third")), "corpus", kept)
    for oid, data in list(hub.storage.items()):
        if data == LARGE:
            hub.storage[oid] = bytes([LARGE[0] ^ 1]) + LARGE[1:]
    notes = Notes()
    third = Tier("third", LocalBackend(str(tmp_path / "third")), durable=True)
    store = store_on(tmp_path, notes, [third])
    assert contents(store.restore("corpus")) == FILES
    told = [line for line in notes.said if "differ from the manifest" in line]
    assert len(told) == 1
    assert "kept aside as hf://datasets/me/prepared/.tieredstore/damaged/" in told[0]
    assert HubBackend(URL).read_head("corpus") is None
    assert f".tieredstore/damaged/{kept.generation}/train.bin" in hub.repos["me/prepared"].files


@pytest.mark.parametrize("path", ["train.bin", "meta.json"])
def test_a_file_corrupted_on_the_hub_is_mended_and_the_others_stay(tmp_path, hub, path):
    store = store_on(tmp_path)
    create(store)
    store.promote("corpus")
    files = hub.repos["me/prepared"].files
    before = {name: hub.read("me/prepared", name) for name in files}
    hub.put("me/prepared", f"corpus/{path}", b"*" * len(FILES[path]))
    done = store.repair(["corpus"])["corpus"]
    assert [v.ok for v in done] == [True, True]
    after = hub.repos["me/prepared"].files
    assert {name: hub.read("me/prepared", name) for name in after} == before


def test_a_file_corrupted_on_the_only_tier_is_one_line(tmp_path, hub, kept):
    for oid in hub.storage:
        hub.storage[oid] = hub.storage[oid][::-1]
    refused(store_on(tmp_path))


def test_bytes_without_blocks_are_compared_with_what_was_committed(servers, hub):
    backend = HubBackend(URL)
    hub.put("me/prepared", "large.bin", LARGE)
    hub.put("me/prepared", "small.txt", b"as it was")
    for path, size in (("large.bin", len(LARGE)), ("small.txt", 9)):
        hub.faults[:] = [servers.Fault("GET .*(storage|cache)", change=lambda b: b[:-1] + b"?")]
        with pytest.raises(CorruptData, match="differs from the digest"):
            backend.read(path, 1 << 30)
        with backend.open(path) as reader:
            last = range(0, size, 1 << 20)[-1]
            for at in range(0, last, 1 << 20):
                reader.readinto(at, memoryview(bytearray(1 << 20)))
            with pytest.raises(CorruptData):
                reader.readinto(last, memoryview(bytearray(1 << 20)))
        hub.faults.clear()
        assert len(backend.read(path, 1 << 30)) == size


# -- who may, and who is told -------------------------------------------------------------------


def test_a_repository_that_is_not_there_or_not_shown(hub, monkeypatch):
    hub.repo("other/secret", private=True)
    with pytest.raises(TierUnavailable, match="no such dataset repository, or it is private"):
        HubBackend("hf://datasets/someone/else").read_head("corpus")
    mine = HubBackend("hf://datasets/lab/new")
    assert mine.read_head("corpus") is None  # nobody else could have it
    assert list(mine.folders()) == []
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    for ask in (lambda b: b.read_head("corpus"), lambda b: list(b.list(""))):
        with pytest.raises(TierUnavailable, match=r"no such dataset|401") as caught:
            ask(HubBackend("hf://datasets/other/secret"))
        assert "hf_of_nobody" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(TierUnavailable, match="no token is given"):
        HubBackend("hf://datasets/other/secret").read_head("corpus")


def test_who_may_not_write_is_told_so(tmp_path, servers, hub):
    hub.repo("me/prepared")
    store = store_on(tmp_path)
    create(store)
    denied = {"X-Error-Message": "pass a write token"}
    hub.faults.append(servers.Fault("POST .*/preupload", status=403, headers=denied))
    with pytest.raises(PromoteFailed, match=r"403 Forbidden \(pass a write token\); give a token"):
        store.promote("corpus")


def test_the_token_goes_to_the_hub_only_and_is_told_to_nobody(
    tmp_path, servers, hub, monkeypatch, caplog
):
    monkeypatch.delenv("HF_TOKEN")
    caplog.set_level(logging.DEBUG)
    hub.repo("me/prepared", private=True)
    hub.part = 4 << 20
    notes = Notes()
    store = store_on(tmp_path / "one", notes, token=hub.token)
    create(store)
    store.promote("corpus")
    other = store_on(tmp_path / "two", notes, token=hub.token)
    assert contents(other.restore("corpus")) == FILES
    assert all(v.ok for v in other.verify("corpus"))
    logged = caplog.text
    echo = {"X-Error-Message": f"token {hub.token} and signature"}
    hub.faults.append(servers.Fault(".*", status=403, headers=echo))
    with pytest.raises(TierUnavailable) as caught:
        HubBackend(URL, token=hub.token).read_head("corpus")
    with pytest.raises(PromoteFailed) as failed:
        store.promote("corpus", replace=True)
    told = [*notes.said, logged, str(caught.value), str(failed.value), repr(caught.value)]
    told += [repr(store.tiers), str(vars(store.tiers[1].backend)), str(hub.storage.values())]
    told += [str(f.data) for f in hub.repos["me/prepared"].files.values()]
    assert not [text for text in told if hub.token in text]
    elsewhere = [s for s in hub.log if s.host == "localhost"]
    assert {s.method for s in elsewhere} == {"GET", "PUT", "POST"}
    assert not [s for s in elsewhere if s.authorized]
    assert all(s.authorized for s in hub.log if s.host == "127.0.0.1")


def test_the_command_line_tells_no_token_and_no_signature(tmp_path, servers, hub):
    create(TieredStore([local_tier(tmp_path / "data")]))
    (tmp_path / "tieredstore.toml").write_text(
        '[[tier]]\nname = "local"\nbackend = "local"\npath = "data"\n'
        f'[[tier]]\nname = "hub"\nbackend = "hf"\nurl = "{URL}"\ntoken = "{hub.token}"\n'
        "durable = true\nretry_for = 0.4\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "HF_TOKEN"}
    env |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "hf")}

    def run(*words):
        call = [sys.executable, "-m", "tieredstore.cli", *words]
        done = subprocess.run(
            call, check=False, cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert hub.token not in done.stdout + done.stderr
        assert servers.SIGNATURE not in done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr

    assert run("promote", "corpus")[0] == 0
    assert run("status")[0] == 0
    hub.faults.append(servers.Fault("/storage/", status=503))
    _, out = run("verify", "corpus")
    assert "503" in out
    asked = len(hub.log)
    env["HF_HUB_OFFLINE"] = "1"
    assert "offline (HF_HUB_OFFLINE is set)" in run("status")[1]
    assert len(hub.log) == asked


def test_offline_no_request_is_made(tmp_path, hub, kept, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "offline (HF_HUB_OFFLINE is set), so the Hub is not asked" in refused(store_on(tmp_path))
    assert hub.log == []
