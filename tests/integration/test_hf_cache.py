"""``datasets-prep cache`` beside ``datasets`` itself: the same keys, and no second build."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from datasets_prep import hf_cache
from datasets_prep.errors import CacheError, FieldMissing, OptionError, SourceError
from datasets_prep.hf_cache import getting, opening
from datasets_prep.hf_cache.entries import Entry
from datasets_prep.hf_cache.request import Request, key_of
from tieredstore import local_tier, open_store

datasets = pytest.importorskip("datasets", reason="the extra caches is not installed")
STAMP = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "


class Bed:
    def __init__(self, path, monkeypatch):
        self.path = path
        self.cache = path / "cache"
        monkeypatch.setenv("HF_DATASETS_CACHE", str(self.cache))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", self.cache)
        monkeypatch.chdir(path)

    def data(self, name="a.json", **fields):
        rows = [{"n": n, "text": f"row {n}"} for n in range(100)]
        path = self.path / name
        path.write_text(json.dumps(fields or {"test": rows}))
        return path

    def command(self, *words):
        done = subprocess.run(
            [sys.executable, "-m", "datasets_prep.cli", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
            stdin=subprocess.DEVNULL,
        )
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def bed(tmp_path, monkeypatch):
    return Bed(tmp_path, monkeypatch)


@pytest.fixture
def builds(monkeypatch):
    """Which builds began in this process."""
    begun = []
    real = datasets.builder.DatasetBuilder._download_and_prepare

    def build(self, *args, **options):
        begun.append(self.config.data_files)
        return real(self, *args, **options)

    monkeypatch.setattr(datasets.builder.DatasetBuilder, "_download_and_prepare", build)
    return begun


def plain(path, field="test"):
    return datasets.load_dataset("json", data_files=str(path), field=field, split="train")


def test_what_was_pre_built_is_found_by_jobs_and_told_as_it_is(bed, builds):
    good, other = bed.data(), bed.data("b.json", validation=[{"n": 1}], train=[])
    broken = bed.path / "c.json"
    broken.write_text('{"test": [')
    summary = bed.path / "summary.yaml"
    names = [good.name, other.name, "gone.json", broken.name, good.name]
    tasks = [{"name": f"t{n}", "dataset": name} for n, name in enumerate(names)]
    summary.write_text(json.dumps({"evaluation": {"tasks": tasks}}))
    words = ("cache", "prebuild", summary, "--on-failure", "continue", "--shared", "shared")
    done = bed.command(*words)
    assert done.returncode == 3
    said = json.loads(done.stdout)
    assert said == {
        "status": "partial",
        "datasets_cached": 2,
        "datasets_failed": 2,
        "paths_cached": [str(good), str(other)],
        "paths_failed": [str(bed.path / "gone.json"), str(broken)],
        "continue": True,
    }
    lines = done.stderr.splitlines()
    assert all(re.match(STAMP, line) for line in lines), done.stderr
    logged = [re.sub(STAMP, "", line) for line in lines]
    assert logged[:3] == [
        f"CACHE_PREBUILD: {summary}",
        "Unique datasets: 4",
        f"CACHE_BUILT: {good}",
    ]
    assert logged[3].startswith(f"CACHE_PREBUILD: warning: {other} has no field 'test'")
    assert logged[4] == f"CACHE_BUILT: {other}"
    assert logged[5].startswith(f"CACHE_FAILED: {bed.path / 'gone.json'} (")
    assert logged[6].startswith(f"CACHE_FAILED: {broken} (")
    assert logged[7] == "CACHE_PREBUILD_COMPLETE: 2 cached, 2 failed"

    assert plain(good).num_rows == 100
    assert plain(other, "validation").num_rows == 1
    assert hf_cache.load(good, field="test")["text"][99] == "row 99"
    with hf_cache.job_cache(bed.path) as made:
        assert plain(good).cache_files[0]["filename"].startswith(str(made.path))
    shutil.rmtree(bed.cache)
    env = bed.command("cache", "job-env", "--scratch", bed.path, "--shared", "shared")
    own = re.search("HF_DATASETS_CACHE=(.*)", env.stdout)[1]
    args = {"data_files": str(good), "field": "test", "split": "train"}
    assert datasets.load_dataset("json", cache_dir=own, **args).num_rows == 100
    assert builds == []


def test_status_and_exit_code_tell_the_same_truth(bed):
    summary = bed.path / "summary.yaml"
    summary.write_text("evaluation: {tasks: [{dataset: gone.json}]}")
    stops = bed.command("cache", "prebuild", summary, "--pretty")
    said = json.loads(stops.stdout)
    assert (stops.returncode, said["status"], said["continue"]) == (4, "failed", False)
    goes_on = bed.command("cache", "prebuild", summary, "--yes")
    said = json.loads(goes_on.stdout)
    assert (goes_on.returncode, said["status"], said["continue"]) == (4, "failed", True)
    bed.data("gone.json")
    all_built = bed.command("cache", "prebuild", summary)
    said = json.loads(all_built.stdout)
    assert (all_built.returncode, said["status"], said["continue"]) == (0, "success", True)
    key = bed.command("cache", "key", "gone.json", "--field", "test")
    assert key.returncode == 0
    assert key.stdout.endswith("\twhole, 100 rows\n")
    assert str(bed.path / "gone.json") in bed.command("cache", "ls").stdout


def test_the_key_is_that_of_datasets_for_that_path_and_time(bed):
    path = bed.data()
    before = key_of(Request.of("a.json", "test"))
    assert Entry(bed.cache, before.entry).lacks() == "it is not there"
    plain(path)
    assert Entry(bed.cache, before.entry).lacks() == ""
    assert key_of(Request.of(path)) != before
    os.utime(path, (1, 1))
    assert key_of(Request.of(path, "test")) != before


def test_damage_is_seen_and_mended_by_the_next_pre_build(bed):
    path = bed.data()
    store = hf_cache.open_cache_store()
    first = hf_cache.prebuild([str(path)], "test", store, bed.cache, lambda _: None)
    [entry] = first.entries
    arrow = entry.path / "json-train.arrow"
    size = arrow.stat().st_size
    arrow.unlink()
    arrow.write_bytes(bytes(size))  # the size alone tells nothing
    with pytest.raises(CacheError):
        opening.check(entry.path)
    again = hf_cache.prebuild([str(path)], "test", store, bed.cache, lambda _: None)
    assert again.status == "success"
    assert plain(path).num_rows == 100


def test_a_data_file_changed_under_its_old_time_is_built_anew(bed):
    path = bed.data(test=[{"n": 1}])
    store, seen = hf_cache.open_cache_store(), path.stat()
    hf_cache.prebuild([str(path)], "test", store, bed.cache, lambda _: None)
    path.write_text(path.read_text().replace("1", "2"))
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert hf_cache.load(path, field="test", store=store)["n"][0] == 2
    hf_cache.prebuild([str(path)], "test", store, bed.cache, lambda _: None)
    assert plain(path)["n"][0] == 2


def test_a_copy_follows_the_bytes_of_its_data_file(bed, builds):
    path = bed.data()
    store = open_store({"tier": [{"name": "a", "backend": "local", "path": "store"}]})
    assert hf_cache.load(path, field="test", store=store).num_rows == 100
    shutil.copy(path, bed.path / "copy.json")
    assert hf_cache.load("copy.json", field="test", store=store).num_rows == 100
    assert len(builds) == 1, "equal bytes are built once"
    path.write_text(json.dumps({"test": [{"n": 1}]}))
    assert hf_cache.load(path, field="test", store=store).num_rows == 1
    assert hf_cache.load(path, field="test", split="train[:1]", store=store).num_rows == 1
    assert len(builds) == 2


def test_a_copy_is_restored_from_a_bucket(bed, builds, moto, monkeypatch):
    path = bed.data()
    moto.make_bucket("caches")
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    node = {"name": "node", "backend": "local", "path": "node"}
    far = {"name": "far", "backend": "s3", "url": "s3://caches/x", "endpoint_url": moto.url}
    tiers = {"tier": [node, {**far, "durable": True}]}
    hf_cache.load(path, field="test", store=open_store(tiers))
    shutil.rmtree(bed.path / "node")
    found = hf_cache.load(path, field="test", store=open_store(tiers))
    twice = found.map(lambda row: {"twice": 2 * row["n"]})
    assert twice["twice"][99] == 198
    assert len(builds) == 1
    [artifact] = (bed.path / "node" / getting.PREPARER).iterdir()
    assert not list(artifact.glob("cache-*")), "results of map do not lie in the store"


def test_what_cannot_be_loaded_is_named(bed):
    store = open_store(first=local_tier(bed.path / "store"))
    path = bed.data()
    with pytest.raises(FieldMissing, match="no field 'nope'"):
        hf_cache.load(path, field="nope", store=store)
    with pytest.raises(SourceError, match="No such file"):
        hf_cache.load("gone.json", store=store)
    with pytest.raises(CacheError, match="refused by datasets"):
        hf_cache.load(path, builder="json", colour="red", store=store)
    with pytest.raises(OptionError, match="expected plain values"):
        hf_cache.load(path, features=Path, store=store)
    with pytest.raises(CacheError, match="split 'other'"):
        hf_cache.load(path, field="test", split="other", store=store)
    assert not list((bed.path / "store").glob("hf-datasets/*/.building"))
