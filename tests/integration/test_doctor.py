"""``tieredstore doctor`` on real places: what it finds, what it advises, and that nothing is left.

Each run is the command in a process of its own, with several tiers where they do not disturb one
another.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

import tieredstore
from tieredstore.backends.local import LocalBackend
from tieredstore.doctor.advice import advice
from tieredstore.doctor.finding import Examined, Finding, Place

_SERVERS = Path(__file__).parents[1] / "servers"
_numbers = itertools.count()


def load(server):
    """A module of ``tests/servers``."""
    name = f"doctor_{server}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _SERVERS / f"{server}.py")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


class Doctor:
    """Runs the command on a configuration of these tiers."""

    def __init__(self, folder):
        self.folder = folder
        self.begun = []
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}

    def begin(self, tiers, *arguments, **environment):
        rows = [{"name": name, "backend": "local", **row} for name, row in tiers.items()]
        if rows[0]["backend"] != "local":
            rows.insert(
                0, {"name": "first", "backend": "local", "path": str(self.folder / "first")}
            )
        config = self.folder / f"config-{next(_numbers)}.toml"
        config.write_text("".join(map(table, rows)))
        command = [sys.executable, "-m", "tieredstore.cli", *arguments, "--config", str(config)]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.begun.append(process)
        return process

    def close(self):
        for process in self.begun:
            process.kill()
            process.communicate()

    def __call__(self, tiers, *arguments, code=None, **environment):
        """The findings by tier and check, and the advice."""
        return self.end(self.begin(tiers, "doctor", "--json", *arguments, **environment), code)

    @staticmethod
    def end(process, code=None):
        out, errors = process.communicate(timeout=110)
        assert out, errors
        found = json.loads(out)
        assert "tiers" in found, found
        unusable = [t["tier"] for t in found["tiers"] if not t["usable"]]
        assert process.returncode == (1 if unusable else 0), errors
        assert code is None or process.returncode == code, (out, errors)
        tiers = {t["tier"]: {f["check"]: f for f in t["findings"]} for t in found["tiers"]}
        return tiers, "\n".join(found["advice"]), unusable


def table(row):
    return "[[tier]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in row.items())


@pytest.fixture
def doctor(tmp_path):
    made = Doctor(tmp_path)
    yield made
    made.close()


def values(findings):
    return {check: found["value"] for check, found in findings.items()}


@contextmanager
def mounted(at, *arguments):
    """Something mounted at a folder for a while."""
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *arguments, str(at)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no mount here: {done.stderr.decode().strip()[:200]}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


# -- mounted places -----------------------------------------------------------------------------


def test_a_disk_and_memory_do_all_of_it_and_nothing_is_left(doctor, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    store = tieredstore.TieredStore([tieredstore.Tier("there", LocalBackend(str(there)))])
    with store.create("set") as stage:
        (stage.path / "file").write_bytes(b"data")
    before = tree(there)
    tiers = {"there": {"path": str(there)}, "missing": {"path": str(tmp_path / "a" / "b")}}
    found, _, unusable = doctor(tiers)
    assert unusable == []
    for checks in found.values():
        known = values(checks)
        for check in ("flock", "fcntl locks", "rename", "exchange", "hard links", "case"):
            assert known[check] is True, check
        assert known["longest name"] == 255
        assert abs(known["clock"]) < 2
        assert all(known[check] < 5 for check in ("latency", "fsync", "look"))
    assert tree(there) == before
    assert not (tmp_path / "a").exists()


def test_the_table_and_the_advice_as_a_person_sees_them(doctor, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    tiers = {"good": {"path": str(tmp_path / "good")}, "bad": {"path": str(tmp_path / "file")}}
    process = doctor.begin(tiers, "doctor")
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    rows = [line.split("\t") for line in out.splitlines() if "\t" in line]
    assert {len(row) for row in rows} == {5}
    assert ["good", "flock", "good", "excludes another process here", ""] in rows
    assert {row[0] for row in rows} == {"(this machine)", "good", "bad"}
    [told] = [line for line in out.splitlines() if line.startswith("1. ")]
    assert "'bad': cannot be used: reachable" in told
    assert "error: cannot be used as configured: bad" in errors
    [one] = doctor(tiers, "--tier", "good", code=0)[0]
    assert one == "good"


def test_where_flock_does_nothing_it_says_so(doctor, tmp_path):
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(
        "import fcntl\nfcntl.flock = lambda *_: None\nfcntl.lockf = lambda *_: None\n"
    )
    tiers = {"there": {"path": str(tmp_path / "there")}}
    found, told, unusable = doctor(tiers, PYTHONPATH=str(tmp_path / "patch"))
    assert unusable == []
    assert values(found["there"])["flock"] is False
    assert found["there"]["O_EXCL"]["value"] is True
    assert "tier 'there': flock does not exclude on this mount: use backend = " in told


def test_a_clock_that_is_an_hour_off_is_told(tmp_path):
    faketime = shutil.which("faketime")
    if faketime is None:
        pytest.skip("faketime is not installed")
    place = Place("there", "LocalBackend", str(tmp_path / "there"), mounted=True)
    command = [faketime, "-f", "+63m", sys.executable, "-m", "tieredstore.doctor.child"]
    done = subprocess.run(
        command,
        input=json.dumps({"place": asdict(place)}),
        env={**os.environ, "NO_FAKE_STAT": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = map(json.loads, done.stdout.splitlines())
    found = Examined(place, tuple(Finding.read(x["finding"]) for x in lines if "finding" in x))
    assert abs(found.value("clock") + 63 * 60) < 5
    assert advice((), [found], {}) == ["tier 'there': its clock is 63 min behind; set it by NTP"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_read_only_full_and_folding_places(doctor, tmp_path):
    for name in ("ro", "full", "fold", "source"):
        (tmp_path / name).mkdir()
    with (
        mounted(tmp_path / "ro", "--bind", str(tmp_path / "source")) as read_only,
        mounted(tmp_path / "full", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as full,
        folding(tmp_path) as fold,
    ):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(read_only)], check=True)
        (full / "filler").write_bytes(bytes((1 << 20) - 4096))
        with (full / "rest").open("wb", buffering=0) as rest, pytest.raises(OSError):  # noqa: PT012
            while True:
                rest.write(bytes(512))
        tiers = {
            "first": {"path": str(tmp_path / "first")},
            "writable": {"path": str(read_only)},
            "read": {"path": str(read_only), "read_only": True},
            "full": {"path": str(full)},
        }
        if fold:
            tiers["fold"] = {"path": str(fold)}
        found, told, unusable = doctor(tiers)
        assert tree(full) == ["filler", "rest"]
    assert unusable == ["writable"]
    assert "Read-only file system" in found["writable"]["rights"]["meaning"]
    assert "tier 'writable': cannot be written" in told
    assert "read_only = true" in told
    assert "look" in found["read"]
    assert found["full"]["rights"]["result"] == "full"
    assert "tier 'full': 100% full, and min_free is not set" in told
    if fold:
        assert values(found["fold"])["case"] is False
        assert "upper from lower case" in told
        assert values(found["fold"])["exchange"] is False
        assert "no RENAME_EXCHANGE" in told


@contextmanager
def folding(tmp_path):
    """A file system that does not tell case apart, or nothing where it cannot be had."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    programs = shutil.which("mkfs.exfat") and shutil.which("mount.exfat-fuse")
    if (
        not programs
        or subprocess.run(["mkfs.exfat", image], capture_output=True, check=False).returncode
    ):
        yield None
        return
    with mounted(tmp_path / "fold", "-t", "exfat-fuse", "-o", "loop", str(image)) as at:
        yield at


# -- what hangs -----------------------------------------------------------------------------------


@pytest.fixture
def hanging(tmp_path):
    """A mount whose daemon was stopped, with an artifact in it; and one like it that works."""
    passingfs = load("passingfs")
    if passingfs.missing():
        pytest.skip(passingfs.missing())
    back = tmp_path / "back"
    back.mkdir()
    store = tieredstore.TieredStore([tieredstore.Tier("a", LocalBackend(str(back / "tier")))])
    with store.create("set") as stage:
        (stage.path / "file").write_bytes(b"data")
    mount = passingfs.Mounted(back, tmp_path / "hangs")
    os.kill(mount.process.pid, signal.SIGSTOP)
    yield mount.at / "tier"
    os.kill(mount.process.pid, signal.SIGCONT)
    mount.stop()


def test_a_mount_that_hangs_is_named_within_the_limit(doctor, tmp_path, hanging):
    tiers = {"first": {"path": str(tmp_path / "first")}, "hangs": {"path": str(hanging)}}
    begun = time.monotonic()
    found, told, unusable = doctor(tiers, "--limit", "5")
    assert time.monotonic() - begun < 60
    assert unusable == ["hangs"]
    [said] = found["hangs"].values()
    assert said["result"].startswith("hangs: no answer within 5 s")
    assert "tier 'hangs': hangs at 'reachable'" in told
    assert len(found["first"]) > 15
    begun = time.monotonic()
    first = {"hangs": {"path": str(hanging)}, "other": {"path": str(tmp_path / "other")}}
    _, _, unusable = doctor(first, "--limit", "5")
    assert unusable == ["hangs"]
    assert time.monotonic() - begun < 60


VERBS = {
    "status": ["status"],
    "locate": ["locate", "set"],
    "restore": ["restore", "nothing"],
    "promote": ["promote", "set"],
    "verify": ["verify"],
    "repair": ["verify", "--repair", "set"],
    "evict": ["evict", "set"],
    "gc": ["gc"],
}
NEAR = {  # these look at the first tier alone
    "hit": ["restore", "set"],
    "pin": ["pin", "set"],
    "unpin": ["unpin", "set"],
    "put": ["put", "other", "config-0.toml"],
    "flush": ["flush"],
    "refresh": ["refresh", "--expiring", "7d"],
}
SOME = ("status", "hit", "put", "gc")  # enough for a first tier that is looked at before all


@pytest.mark.parametrize("where", ["below", "first"])
def test_no_command_is_kept_from_its_end(doctor, tmp_path, hanging, where):
    near = {"path": str(tmp_path / "near"), "deadline": 1}
    hangs = {"path": str(hanging), "durable": True, "deadline": 1}
    store = tieredstore.TieredStore([tieredstore.Tier("a", LocalBackend(near["path"]))])
    with store.create("set") as stage:
        (stage.path / "file").write_bytes(b"data")
    layout = {"layout": "{name}"}
    tiers = {"near": near | layout, "hangs": hangs | layout}
    if where == "first":
        tiers = dict(reversed(tiers.items()))
    begun = time.monotonic()
    verbs = VERBS | NEAR
    if where == "first":
        verbs = {verb: verbs[verb] for verb in SOME}
    started = {verb: doctor.begin(tiers, *words) for verb, words in verbs.items()}
    for verb, process in started.items():
        try:
            out, errors = process.communicate(timeout=max(1, 60 - (time.monotonic() - begun)))
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"{verb} did not end")
        assert "Traceback" not in errors, verb
        near_only = where == "below" and (verb in NEAR or "pinned" in errors)  # pin runs beside it
        assert "hangs" in out + errors or near_only, verb
        if where == "first":
            assert process.returncode == 1, verb
            assert "no answer within 1 s" in errors, verb


# -- two nodes ------------------------------------------------------------------------------------


@pytest.fixture(params=["fuse", "sshfs"])
def two_mounts(request, tmp_path):
    """Two mounts of one folder whose locks are silently local."""
    module = load("passingfs" if request.param == "fuse" else "sshfs")
    if request.param == "sshfs" and not os.environ.get("TIEREDSTORE_TEST_DOCTOR_SSHFS"):
        pytest.skip("takes a minute: set TIEREDSTORE_TEST_DOCTOR_SSHFS=1")
    if module.missing():
        pytest.skip(module.missing())
    if request.param == "sshfs":
        cluster = module.start(tmp_path / "cluster")
        yield cluster.mounts
        cluster.stop()
        return
    (tmp_path / "back").mkdir()
    mounts = [module.Mounted(tmp_path / "back", tmp_path / name) for name in "AB"]
    yield [mount.at for mount in mounts]
    for mount in mounts:
        mount.stop()


def meet(doctor, one, other):
    begun = [
        doctor.begin({"shared": {"path": str(at)}}, "doctor", "--json", "--nodes", "2")
        for at in (one, other)
    ]
    return [doctor.end(process, 0) for process in begun]


def test_two_runs_on_mounts_whose_locks_are_local(doctor, two_mounts):
    for found, told, _ in meet(doctor, *two_mounts):
        known = values(found["shared"])
        assert known["flock"] is True
        assert known["flock across nodes"] is False
        assert known["O_EXCL across nodes"] is True
        assert abs(known["clock across nodes"]) < 2
        assert known["stale attributes"] >= 0
        assert "flock does not exclude between nodes" in told
    assert os.listdir(two_mounts[0]) == []


def test_two_runs_on_one_disk_agree_and_one_alone_says_so(doctor, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    for found, _, _ in meet(doctor, shared, shared):
        known = values(found["shared"])
        assert known["flock across nodes"] is known["fcntl locks across nodes"] is True
        assert known["stale attributes"] < 1
        assert "which is this node" in found["shared"]["other node"]["result"]
    found, _, _ = doctor({"shared": {"path": str(shared)}}, "--nodes", "2", "--wait", "1", code=0)
    assert "none came within 1 s" in found["shared"]["other node"]["result"]
    assert os.listdir(shared) == []


# -- places over a network --------------------------------------------------------------------


def test_s3_that_works_and_every_way_in_which_it_does_not(doctor, tmp_path, moto, ceph):
    names = [f"doctor-{next(_numbers)}" for _ in range(2)]
    on_moto, on_ceph = moto.make_bucket(names[0]), ceph.make_bucket(names[1])
    good, known = ceph.environment, tmp_path / "credentials"
    key, secret = good["AWS_ACCESS_KEY_ID"], good["AWS_SECRET_ACCESS_KEY"]
    pairs = {"good": (key, secret), "stranger": ("NOBODY", secret), "wrong": (key, "wrong")}
    known.write_text(
        "".join(
            f"[{name}]\naws_access_key_id = {one}\naws_secret_access_key = {two}\n"
            for name, (one, two) in pairs.items()
        )
    )
    with load("dead").dead("refuses") as dead, load("dead").dead("hangs") as hangs:
        rows = {
            "moto": {"url": on_moto, "endpoint_url": moto.url},
            "ceph": {"url": f"{on_ceph}/below", "endpoint_url": ceph.url},
            "read": {"url": on_ceph, "endpoint_url": ceph.url, "read_only": True},
            "stranger": {"url": on_ceph, "endpoint_url": ceph.url, "profile": "stranger"},
            "wrong": {"url": on_ceph, "endpoint_url": ceph.url, "profile": "wrong"},
            "nowhere": {"url": "s3://not-there", "endpoint_url": ceph.url},
            "dead": {"url": on_ceph, "endpoint_url": dead.url},
            "hangs": {"url": on_ceph, "endpoint_url": hangs.url},
        }
        tiers = {
            n: {"backend": "s3", "region": "us-east-1", "profile": "good", **r}
            for n, r in rows.items()
        }
        environment = {
            **{k: v for k, v in good.items() if "KEY" not in k},
            "AWS_SHARED_CREDENTIALS_FILE": str(known),
        }
        found, told, unusable = doctor(tiers, "--limit", "10", **environment)
    assert unusable == ["stranger", "wrong", "nowhere", "dead", "hangs"]
    for tier in ("moto", "ceph"):
        known_of = values(found[tier])
        assert known_of["conditional writes"] is True, tier
        assert known_of["multipart"] is True, tier
        assert known_of["latency"] < 5
    assert "quoted" in found["moto"]["conditional writes"]["result"]
    assert "write" not in found["read"]
    said = {
        tier: checks["bucket"]["result"] for tier, checks in found.items() if "bucket" in checks
    }
    assert said["stranger"] == "refused: InvalidAccessKeyId"
    assert said["wrong"] == "refused: SignatureDoesNotMatch"
    assert said["nowhere"] == "refused: NoSuchBucket"
    assert "Connection refused" in found["dead"]["reachable"]["result"]
    assert said["hangs"].startswith("hangs: ")
    assert "the secret key does not fit" in told
    assert secret not in json.dumps(found) + told
    assert keys_of(ceph, names[1], key, secret) == []
    assert keys_of(moto, names[0], "k", "s") == []


def keys_of(server, bucket, key, secret):
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )
    found = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    client.close()
    return [entry["Key"] for entry in found]


def test_web_servers(doctor, tmp_path):
    nginx = load("nginx")
    if nginx.missing():
        pytest.skip(nginx.missing())
    server = nginx.make(tmp_path / "server", tmp_path / "root")
    server.start()
    try:
        both = [
            tieredstore.Tier("first", LocalBackend(str(tmp_path / "first"))),
            tieredstore.Tier("web", LocalBackend(str(tmp_path / "root")), durable=True),
        ]
        store = tieredstore.TieredStore(both)
        with store.create("set") as stage:
            (stage.path / "file").write_bytes(b"data")
        store.promote("set")
        with load("dead").dead("fails") as fails, load("dead").dead("refuses") as dead:
            web = {"backend": "http", "retry_for": 1}
            tiers = {
                "first": {"path": str(tmp_path / "first"), "layout": "{name}"},
                "web": {"url": server.url, **web},
                "fails": {"url": fails.url, **web},
                "dead": {"url": dead.url, **web},
            }
            found, _, unusable = doctor(tiers)
    finally:
        server.stop()
    assert unusable == ["fails", "dead"]
    assert values(found["web"])["artifacts"] is True
    assert values(found["web"])["ranges"] is True


def test_the_hub(doctor, tmp_path):
    pytest.importorskip("huggingface_hub")
    server = load("hub").Hub()
    server.start()
    try:
        server.repo("me/prepared")
        hub = {"backend": "hf", "retry_for": 1}
        tiers = {
            "mine": {"url": "hf://datasets/me/prepared", **hub},
            "new": {"url": "hf://datasets/me/new", **hub},
            "theirs": {"url": "hf://datasets/they/gone", "read_only": True, **hub},
        }
        known = {
            "HF_ENDPOINT": server.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": server.token,
            "HF_HOME": str(tmp_path / "home"),
        }
        found, _, unusable = doctor(tiers, **known)
        assert unusable == ["theirs"]
        assert values(found["mine"])["token"] is True
        assert found["new"]["repository"]["result"] == "not there yet"
        assert server.token not in json.dumps(found)
        found, _, unusable = doctor(tiers, "--tier", "mine", **known | {"HF_TOKEN": "hf_wrong"})
        assert found["mine"]["token"]["result"] == "refused"
        found, _, unusable = doctor(tiers, "--tier", "mine", **known, HF_HUB_OFFLINE="1")
        assert found["mine"]["online"]["result"] == "no"
        found, _, unusable = doctor(tiers, "--tier", "mine", **known, TIEREDSTORE_OFFLINE="1")
        assert (found["mine"]["reachable"]["result"], unusable) == ("offline", [])
    finally:
        server.stop()
