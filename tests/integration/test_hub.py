"""Publishing to the Hub and restoring from it: what readers find, what is sent and refused."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tieredstore import ConfigError, PromoteFailed, Reporter, Tier, TieredStore, local_tier
from tieredstore.backends.hf import HubBackend
from tieredstore.backends.hf import repo as hf_repo
from tieredstore.errors import CorruptData, HeadConflict, InvalidName, TierUnavailable, Unsupported
from tieredstore.manifest.records import FileRecord
from tieredstore.testing.samples import Sample, publish, read_artifact, stage
from tieredstore.tiers.verifying import verify_copy

constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra 'hf'")

_HUB = Path(__file__).parents[1] / "servers" / "hub.py"
LARGE = random.Random(5).randbytes((3 << 20) + 777)
FILES = {
    "train.bin": LARGE,
    "sub/val.bin": b"\0val",
    "empty": b"",
    "meta.json": b"{}",
    "notes/ünï.txt": b"text",
}
URL = "hf://datasets/me/prepared"


@pytest.fixture(scope="module")
def servers():
    spec = importlib.util.spec_from_file_location("tieredstore_tests_hub", _HUB)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hub(servers, monkeypatch, tmp_path):
    server = servers.Hub()
    server.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", server.token)
    yield server
    server.stop()


def store_on(folder, url=URL, reporter=None, **options):
    backend = HubBackend(url, **{"timeout": 10, "retry_for": 10, **options})
    hub_tier = Tier("hub", backend, durable=True)
    return TieredStore([local_tier(folder), hub_tier], reporter)


def create(store, files=FILES, name="corpus", **options):
    with store.create(name, **options) as made:
        for path, data in files.items():
            (made.path / path).parent.mkdir(parents=True, exist_ok=True)
            (made.path / path).write_bytes(data)


def contents(got, files=FILES):
    return {path: (got.path / path).read_bytes() for path in files}


# -- publish and restore ------------------------------------------------------------------------


def test_a_fresh_store_restores_what_another_published_in_one_commit(tmp_path, hub):
    one = store_on(tmp_path / "one")
    create(one, recipe={"preparer": "me"})
    assert [o.action for o in one.promote("corpus")] == ["copied"]
    repo = hub.repos["me/prepared"]
    assert repo.private  # it was not there, and nobody else is shown it
    assert len(repo.commits) == 2
    assert {p: hub.read("me/prepared", f"corpus/{p}") for p in FILES} == FILES
    assert repo.files["corpus/train.bin"].sha256
    assert not repo.files["corpus/meta.json"].sha256

    other = store_on(tmp_path / "other")
    got = other.restore("corpus")
    assert got.source == "hub"
    assert contents(got) == FILES
    assert all(v.ok for v in other.verify("corpus"))
    assert [o.action for o in one.promote("corpus")] == ["present"]
    assert len(repo.commits) == 2


def test_a_branch_and_a_folder_of_a_repository(tmp_path, hub):
    hub.repo("lab/data")
    hub.put("lab/data", "README.md", b"about")
    store = store_on(tmp_path, "hf://datasets/lab/data/kept/here")
    create(store)
    store.promote("corpus")
    assert hub.read("lab/data", "kept/here/corpus/meta.json") == b"{}"
    pinned = HubBackend(f"hf://datasets/lab/data@{hub.repos['lab/data'].tip}/kept/here")
    assert read_artifact(pinned, "corpus") == FILES
    with pytest.raises(TierUnavailable, match="one commit; to publish, name a branch"):
        pinned.begin("corpus", Sample.of({"a": b"1"}).head())
    with pytest.raises(TierUnavailable, match="no such branch or revision"):
        HubBackend("hf://datasets/lab/data@nope").read_head("corpus")


def test_replacing_takes_away_what_only_the_old_generation_had(hub):
    backend = HubBackend(URL)
    publish(backend, "corpus", Sample.of(FILES))
    hub.put("me/prepared", "corpus/README.md", b"by hand")
    before, puts = len(hub.repos["me/prepared"].commits), len(hub.seen("PUT"))
    files = {"train.bin": LARGE, "new": b"1"}
    publish(backend, "corpus", Sample.of(files))
    assert read_artifact(backend, "corpus") == files
    assert len(hub.repos["me/prepared"].commits) == before + 1
    assert len(hub.seen("PUT")) == puts + 1  # the records: the large file was there
    names = {p for p in hub.repos["me/prepared"].files if p.startswith("corpus/")}
    mine = {"train.bin", "new", ".tieredstore.json", ".tieredstore.records", "README.md"}
    assert names == {f"corpus/{name}" for name in mine}
    found = backend.read_head("corpus")
    backend.remove("corpus", found.head)
    assert [f.path for f in backend.list("corpus")] == ["corpus/README.md"]


def test_small_and_large_files_in_parts(tmp_path, hub):
    hub.part = 1 << 20
    files = {f"d{n % 7}/{n}.txt": f"{n}\n".encode() * n for n in range(300)}
    files |= {f"small/{n}.bin": bytes([n, 0]) * 99 for n in range(90)}
    files |= {"large.bin": LARGE, "twin.bin": LARGE}
    store = store_on(tmp_path / "one")
    create(store, files)
    store.promote("corpus")
    assert len(hub.repos["me/prepared"].commits) == 2
    parts = hub.seen(r"PUT /storage/[0-9a-f]+/\d+$")
    assert len({s.path for s in parts}) == 4
    assert contents(store_on(tmp_path / "two").restore("corpus"), files) == files


def test_ordinary_files_past_the_bound_are_sent_as_large_ones(tmp_path, hub):
    text = {f"{n}.txt": b"%07d\n" % n * (1 << 17) for n in range(36)}  # 1 MiB each
    store = store_on(tmp_path)
    create(store, text)
    store.promote("corpus")
    kept = [f for p, f in hub.repos["me/prepared"].files.items() if p.endswith(".txt")]
    ordinary = [f for f in kept if not f.sha256]
    assert len(kept) == 36
    assert 30 <= len(ordinary) <= 32
    (commit,) = hub.seen("POST .*/commit/")
    assert commit.length < 48 << 20


# -- others at the same time --------------------------------------------------------------------


def test_a_restore_reads_one_commit_while_another_generation_is_published(tmp_path, servers, hub):
    first, second = Sample.of(FILES), Sample.of({p: b"new" + d for p, d in FILES.items()})
    backend = HubBackend(URL)
    publish(backend, "corpus", first)
    pinned = hub.repos["me/prepared"].tip
    replace = lambda: publish(HubBackend(URL), "corpus", second)  # noqa: E731
    hub.faults.append(servers.Fault("GET /storage/", times=1, before=replace))
    hub.log.clear()
    got = store_on(tmp_path / "one").restore("corpus")
    assert contents(got) == FILES
    assert got.generation == first.generation
    restored = [s for s in hub.seen("GET .*/resolve/") if pinned in s.path]
    assert {s.path.rpartition("/")[2] for s in restored} >= {"train.bin", ".tieredstore.records"}
    assert contents(store_on(tmp_path / "two").restore("corpus")) == second.files


def test_a_verify_looks_at_one_commit_too(tmp_path, hub):
    first, second = Sample.of(FILES), Sample.of({p: b"new" + d for p, d in FILES.items()})
    backend = HubBackend(URL)
    publish(backend, "corpus", first)
    found = Tier("hub", backend).locate("corpus")
    publish(HubBackend(URL), "corpus", second)
    verified = verify_copy(found, "corpus", Reporter())
    assert verified.problems == ()
    assert verified.size == sum(map(len, FILES.values()))


def test_an_unrelated_commit_in_between_is_built_upon(servers, hub):
    backend = HubBackend(URL)
    hub.repo("me/prepared")
    meanwhile = lambda: hub.put("me/prepared", "other.txt", b"theirs")  # noqa: E731
    hub.faults.append(servers.Fault("POST .*/commit/", times=2, before=meanwhile))
    publish(backend, "corpus", Sample.of(FILES), None)
    assert [s.status for s in hub.seen("POST .*/commit/")] == [412, 412, 200]
    assert read_artifact(backend, "corpus") == FILES
    assert hub.read("me/prepared", "other.txt") == b"theirs"


def test_of_two_publishers_the_later_one_is_told(servers, hub):
    mine, theirs = HubBackend(URL), HubBackend(URL)
    sample, rival = Sample.of(FILES), Sample.of({"a": b"1"})
    staged = stage(mine, "corpus", sample)
    win = lambda: publish(theirs, "corpus", rival, None)  # noqa: E731
    hub.faults.append(servers.Fault("POST .*/commit/", times=1, before=win))
    with pytest.raises(HeadConflict):
        staged.publish(sample.head(), sample.records, None)
    assert read_artifact(mine, "corpus") == rival.files


def test_a_commit_whose_answer_is_lost_is_not_done_twice(servers, hub):
    backend = HubBackend(URL)
    hub.repo("me/prepared")
    hub.faults.append(servers.Fault("POST .*/commit/", times=1, cut=0))
    publish(backend, "corpus", Sample.of(FILES), None)
    assert read_artifact(backend, "corpus") == FILES
    assert len(hub.repos["me/prepared"].commits) == 2


def test_one_generation_under_two_names_is_read_where_each_lies(hub):
    backend, sample = HubBackend(URL), Sample.of(FILES)
    heads = []
    for name in ("late", "early"):
        publish(backend, name, sample)
        heads.append(backend.read_head(name).head)
    publish(backend, "late", Sample.of({"a": b"1"}))
    backend.read_head("early")
    for name, head in zip(("late", "early"), heads, strict=True):
        assert backend.read_records(name, head) == sample.records
        with backend.source(name, head).open("train.bin") as reader:
            assert reader.readinto(0, memoryview(bytearray(10))) == 10


# -- killed -------------------------------------------------------------------------------------


def configured(tmp_path, hub):
    """A configuration file, and the environment that a command needs."""
    (tmp_path / "tieredstore.toml").write_text(
        '[[tier]]\nname = "local"\nbackend = "local"\npath = "data"\n'
        f'[[tier]]\nname = "hub"\nbackend = "hf"\nurl = "{URL}"\ndurable = true\n'
        "timeout = 5\nretry_for = 1\n"
    )
    return {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "TMPDIR": str(tmp_path),
    }


def command(tmp_path, env, *words):
    call = [sys.executable, "-m", "tieredstore.cli", *words]
    return subprocess.Popen(
        call, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_promote_that_was_killed_sends_only_what_is_missing(tmp_path, servers, hub):
    files = {f"{n}.bin": random.Random(n).randbytes(2 << 20) for n in range(12)}
    env = configured(tmp_path, hub)
    create(TieredStore([local_tier(tmp_path / "data")]), files)
    stuck = threading.Event()
    hub.faults.append(servers.Fault("PUT", skip=4, before=lambda: stuck.wait(30)))
    process = command(tmp_path, env, "promote", "corpus")
    until = time.monotonic() + 30
    while len(hub.storage) < 4 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    out, _ = process.communicate()
    hub.faults.clear()
    had = set(hub.storage)
    assert len(had) == 4, out
    assert read_artifact(HubBackend(URL), "corpus") is None
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("tieredstore-")]

    hub.log.clear()
    process = command(tmp_path, env, "promote", "corpus")
    out, _ = process.communicate(timeout=60)
    stuck.set()
    assert process.returncode == 0, out
    sent = {s.path.split("/")[2] for s in hub.seen("PUT")}
    assert not sent & had
    assert sum(s.length for s in hub.seen("PUT")) < 8 * (2 << 20) + (1 << 16)
    assert read_artifact(HubBackend(URL), "corpus") == files


def test_nothing_of_a_spool_stays_on_disk(tmp_path, servers, hub, monkeypatch):
    spooled = tmp_path / "spool"
    spooled.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spooled))
    staging = stage(HubBackend(URL), "corpus", Sample.of(FILES))
    assert list(spooled.iterdir()) == []
    staging.discard()
    hub.faults.append(servers.Fault("PUT", status=403))
    with pytest.raises(TierUnavailable):
        publish(HubBackend(URL, retry_for=0.3), "corpus", Sample.of(FILES))
    assert list(spooled.iterdir()) == []


def test_a_generation_that_lacks_a_file_is_never_committed(hub):
    old = publish(HubBackend(URL), "corpus", Sample.of({"train.bin": b"of the old one"}))
    sample = Sample.of(FILES)
    part = {path: data for path, data in FILES.items() if path != "train.bin"}
    staging = stage(HubBackend(URL), "corpus", Sample(part, None, sample.generation))
    with pytest.raises(CorruptData, match=r"'corpus/train.bin' was not staged"):
        staging.publish(sample.head(), sample.records, old.generation)
    assert read_artifact(HubBackend(URL), "corpus") == old.files


# -- what the Hub does not take -----------------------------------------------------------------


@pytest.mark.parametrize("path", [".git/config", "a/.GIT/b", "x/.cache/y"])
def test_names_that_git_keeps_for_itself_are_refused(hub, path):
    with pytest.raises(InvalidName, match="the Hub takes no"):
        publish(HubBackend(URL), "corpus", Sample.of({path: b"1"}))
    assert read_artifact(HubBackend(URL), "corpus") is None


def test_too_many_files_for_one_commit_are_refused_before_anything_is_sent(
    tmp_path, hub, monkeypatch
):
    monkeypatch.setattr(hf_repo, "MAX_FILES", 30)
    store = store_on(tmp_path)
    create(store, {f"{n}.bin": b"\0" for n in range(29)})
    with pytest.raises(PromoteFailed) as caught:
        store.promote("corpus")
    assert "29 files, the Hub takes 30 in one commit" in str(caught.value)
    assert 'pack = "auto"' in str(caught.value)
    assert not hub.seen("POST|PUT")


def test_a_folder_or_file_past_the_limits_is_refused(hub, monkeypatch):
    hub.repo("me/prepared")
    staging = HubBackend(URL).begin("corpus", Sample.of({"a": b"1"}).head())
    with pytest.raises(Unsupported, match=r"the Hub takes 500000000000 in one file; split it"):
        staging.create(FileRecord("large", 500 * 10**9 + 1))
    for number in range(10_000):
        staging.create(FileRecord(f"full/{number}", 0))
    with pytest.raises(Unsupported, match=r"corpus/full: more than 10000 entries.*pack = "):
        staging.create(FileRecord("full/one more", 0))
    staging.create(FileRecord("other/one more", 0))


@pytest.mark.parametrize(
    "url",
    ["hf://me/prepared", "hf://models/me/x", "https://u:hf_secret@host/x", "hf://datasets/me"],
)
def test_a_url_that_names_no_dataset_is_refused_unseen(url):
    with pytest.raises(ConfigError, match="expected such as 'hf://datasets/me/prepared'") as caught:
        HubBackend(url)
    assert "secret" not in str(caught.value)


def test_a_file_that_takes_longer_than_one_call_may_is_sent_all_the_same(
    tmp_path, servers, hub, monkeypatch
):
    monkeypatch.setattr("tieredstore.backends.hf.upload._HELD_UP", 0.05)
    hub.faults.append(servers.Fault("PUT", before=lambda: time.sleep(0.3)))
    files = {f"{n}.bin": random.Random(n).randbytes((1 << 20) + n + 1) for n in range(9)}
    sample = publish(HubBackend(URL), "corpus", Sample.of(files))
    assert read_artifact(HubBackend(URL), "corpus") == sample.files
    hub.faults[:] = [servers.Fault("PUT", skip=2, status=403)]
    with pytest.raises(TierUnavailable, match="403"):
        publish(HubBackend(URL), "other", Sample.of({p: d[::-1] for p, d in files.items()}))
    assert read_artifact(HubBackend(URL), "other") is None


def test_xet_is_left_to_the_hubs_library_where_the_server_chooses_it(hub, monkeypatch):
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    sent = []

    def preupload(self, repo_id, additions, **options):
        for addition in additions:
            with addition.as_file() as file:
                sent.append((repo_id, addition.path_in_repo, file.read()))
                hub.storage[addition.upload_info.sha256.hex()] = sent[-1][-1]

    monkeypatch.setattr("huggingface_hub.HfApi.preupload_lfs_files", preupload)
    hub.xet = True
    publish(HubBackend(URL), "corpus", Sample.of(FILES))
    assert ("me/prepared", "corpus/train.bin", LARGE) in sent
    assert not hub.seen("PUT")
    assert read_artifact(HubBackend(URL), "corpus") == FILES


def test_a_token_that_cannot_be_one_is_refused_unseen(hub, monkeypatch):
    with pytest.raises(ConfigError, match="no access token") as caught:
        HubBackend(URL, token="s3cret word")
    monkeypatch.setenv("HF_TOKEN", "s3crét")
    with pytest.raises(TierUnavailable, match="no access token") as found:
        HubBackend(URL).read_head("corpus")
    assert "s3cr" not in str(caught.value) + str(found.value)
    assert hub.log == []
