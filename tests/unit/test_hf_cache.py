"""Entries, seeds, versions, job caches, advice: all that needs no ``datasets``."""

import json
import os
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from datasets_prep import config
from datasets_prep.errors import CacheError, OptionError, SourceError
from datasets_prep.hf_cache import advising, collecting, jobs, seeding, shared
from datasets_prep.hf_cache.entries import INFO, Entry, Note, entries
from datasets_prep.hf_cache.source import Source
from datasets_prep.hf_cache.summaries import datasets_of
from datasets_prep.slurm import Queue

NAME = "json/default-1/0.0.0/2"
QUEUE = Queue(env={"PATH": "/nowhere"})


def make_entry(root: Path, data: bytes = b"arrow", name: str = NAME, note: bool = True) -> Entry:
    folder = root / name
    folder.mkdir(parents=True)
    splits = {"train": {"num_examples": 1}}
    (folder / INFO).write_text(json.dumps({"dataset_name": "json", "splits": splits}))
    (folder / "json-train.arrow").write_bytes(data)
    entry = Entry(root, name)
    if note:
        files = entry.arrow()
        said = Note("/data/a.json", 1, 2, 3, "xxh3-128:0", {"field": "test"}, files)
        (folder / ".datasets_prep.json").write_text(said.text())
    return entry


# -- entries ------------------------------------------------------------------------------------


def test_what_an_entry_lacks_is_said(tmp_path):
    assert Entry(tmp_path, NAME).lacks() == "it is not there"
    entry = make_entry(tmp_path)
    assert entry.lacks() == ""
    (entry.path / "json-train.arrow").write_bytes(b"arr")
    assert entry.lacks() == "json-train.arrow has 3 bytes, expected 5"
    (entry.path / "json-train.arrow").unlink()
    assert entry.lacks() == "json-train.arrow is missing"
    (entry.path / INFO).write_text('{"splits": 3}')
    assert entry.lacks() == f"{INFO} is damaged"
    (entry.path / INFO).unlink()
    assert entry.lacks() == f"{INFO} is missing"


def test_an_entry_of_several_shards_needs_them_all(tmp_path):
    entry = make_entry(tmp_path, note=False)
    split = {"num_examples": 3, "shard_lengths": [2, 1]}
    (entry.path / INFO).write_text(json.dumps({"dataset_name": "json", "splits": {"a": split}}))
    (entry.path / "json-a-00000-of-00002.arrow").touch()
    assert entry.lacks() == "json-a-00001-of-00002.arrow is missing"


# -- seeding ------------------------------------------------------------------------------------


def test_a_seed_takes_the_data_by_link_and_leaves_what_map_has_made(tmp_path):
    entry = make_entry(tmp_path / "a")
    (entry.path / "cache-123.arrow").touch()
    done = seeding.seed([entry], tmp_path / "b", (seeding.hard_link,))
    assert (done.entries, done.size) == (1, entry.size)
    assert done.ways == {"hard_link": 1, "copy": 1}, "datasets may write to dataset_info.json"
    [seeded] = entries(tmp_path / "b")
    assert set(os.listdir(seeded.path)) == {INFO, "json-train.arrow", ".datasets_prep.json"}
    assert seeded.note() == entry.note()
    assert os.path.samefile(seeded.path / "json-train.arrow", entry.path / "json-train.arrow")
    assert not os.path.samefile(seeded.path / INFO, entry.path / INFO)


def test_what_is_not_whole_is_no_seed(tmp_path):
    entry = make_entry(tmp_path / "a")
    (entry.path / "json-train.arrow").write_bytes(b"")
    assert seeding.seed([entry], tmp_path / "b", seeding.OWN).entries == 0
    assert entries(tmp_path / "b") == []


def test_the_next_way_is_taken_where_one_is_not_to_be_had(tmp_path):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    entry = make_entry(tmp_path / "a")
    folder = other / f"seed-{os.getpid()}"
    try:
        done = seeding.seed([entry], folder, seeding.OWN)
        assert done.ways == {"copy": 2}
        assert (folder / NAME / "json-train.arrow").read_bytes() == b"arrow"
    finally:
        subprocess.run(["rm", "-r", str(folder)], check=True)
    with pytest.raises(CacheError, match="cannot be made of"):
        seeding.seed([entry], other / f"seed-{os.getpid()}", (seeding.hard_link,))
    subprocess.run(["rm", "-r", str(folder)], check=True)


def test_a_damaged_entry_is_replaced_and_a_whole_one_kept(tmp_path):
    entry, target = make_entry(tmp_path / "a"), make_entry(tmp_path / "b", b"arr")
    files = seeding.Files(entry.path, entry.arrow(), entry.note())
    assert seeding.put(files, target, seeding.OWN)
    assert (target.path / "json-train.arrow").read_bytes() == b"arrow"
    assert not seeding.put(files, target, seeding.OWN)
    assert os.listdir(target.path.parent) == ["2"], "nothing is left beside it"


def test_an_entry_of_other_bytes_with_the_same_sizes_is_replaced(tmp_path):
    """A data file that was changed in place, and given its old time again."""
    entry, target = make_entry(tmp_path / "a", b"other"), make_entry(tmp_path / "b")
    note = replace(entry.note(), digest="xxh3-128:1")
    assert seeding.put(seeding.Files(entry.path, entry.arrow(), note), target, seeding.OWN)
    assert (target.path / "json-train.arrow").read_bytes() == b"other"
    assert target.note() == note
    later = replace(note, ctime_ns=9)  # somebody changed its mode
    assert not seeding.put(seeding.Files(entry.path, entry.arrow(), later), target, seeding.OWN)
    assert target.note() == later


def test_of_many_who_put_the_same_entry_one_does(tmp_path):
    entry, done = make_entry(tmp_path / "a"), []
    files = seeding.Files(entry.path, entry.arrow(), entry.note())
    target = Entry(tmp_path / "b", NAME)
    begin = threading.Barrier(12)

    def work():
        begin.wait()
        done.append(seeding.put(files, target, seeding.OWN))

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False] * 11 + [True]
    assert os.listdir(target.path.parent) == ["2"]


# -- data files and summaries -------------------------------------------------------------------


def test_a_data_file_that_changes_is_noticed(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"x" * 3_000_000)
    source = Source.of(path)
    assert source.digest() == source.digest()
    path.write_bytes(b"y" * 3_000_000)
    os.utime(path, ns=(source.mtime_ns, source.mtime_ns))
    with pytest.raises(SourceError, match="changed while"):
        source.digest()
    with pytest.raises(SourceError, match="No such file"):
        Source.of(tmp_path / "b.json")
    with pytest.raises(SourceError, match="no file"):
        Source.of(tmp_path)


def test_a_summary_names_each_data_file_once_relative_to_itself(tmp_path):
    summary = tmp_path / "s.yaml"
    summary.write_text(
        "evaluation:\n  tasks:\n  - {dataset: a.json}\n  - {dataset: /d/b.json, name: x}\n"
        "  - {name: y}\n"
        f"  - {{dataset: {tmp_path}/sub/../a.json}}\n"
    )
    assert datasets_of(summary) == [str(tmp_path / "a.json"), "/d/b.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1", "evaluation is None, expected a table"),
        ("evaluation: {tasks: []}", "evaluation.tasks is \\[\\], expected a list"),
        ("evaluation: {tasks: [{name: x}]}", "no task of evaluation.tasks has a dataset"),
        ("evaluation: {tasks: [{name: x}, {dataset: 3}]}", "task 2: dataset is 3, expected a path"),
        ("evaluation: {tasks: [3]}", "task 1 is 3, expected a table"),
    ],
)
def test_a_summary_that_says_nothing_is_refused_by_name(tmp_path, text, said):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(OptionError, match=said):
        datasets_of(tmp_path / "s.yaml")


# -- advice -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "size", "jobs_", "way"),
    [
        ("quick", "500MB", 19, advising.PER_JOB),
        ("quick", "500MB", 20, advising.PARQUET),
        ("regular", "999MB", 1, advising.PARQUET),
        ("regular", "999MB", 99, advising.PARQUET),
        ("quick", "5GB", 9, advising.PER_JOB),
        ("regular", "1GB", 9, advising.PER_JOB),
        ("quick", "5GB", 60, advising.PARQUET),
        ("regular", "9.9GB", 10, advising.PARQUET),
        ("quick", "10GB", 1, advising.BOTH),
        ("production", "1MB", 1, advising.PARQUET),
        ("production", "5GB", 500, advising.PARQUET),
        ("quick", "100MB", 100, advising.SHARED),
        ("regular", "5GB", 100, advising.SHARED),
        ("regular", "20GB", 200, advising.BOTH),
    ],
)
def test_the_way_for_a_case(use, size, jobs_, way):
    advice = advising.advise(use, advising.parse_size(size), jobs_)
    assert advice.way == way
    assert advice.why
    assert advice.costs
    assert advice.commands


def test_sizes_as_people_write_them():
    known = {"7": 7, "1.5GiB": 3 << 29, "5GB": 5 * 10**9, "2 kB": 2000, "3M": 3 * 10**6}
    assert {text: advising.parse_size(text) for text in known} == known
    for wrong in ("", "GB", "-1", "5XB", "1e9"):
        with pytest.raises(ValueError, match="expected such as"):
            advising.parse_size(wrong)


# -- caches of jobs -----------------------------------------------------------------------------


def test_array_tasks_steps_and_processes_have_names_of_their_own(monkeypatch):
    for name in config.slurm_job():
        monkeypatch.delenv(name)
    assert jobs.owner() != jobs.owner()
    monkeypatch.setenv("SLURM_JOB_ID", "12")  # each task of an array has another one
    assert jobs.owner() == "12"
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert jobs.owner() == "12.0-3"
    assert jobs.owner_of_process().startswith(f"12.{os.getpid()}-")


def test_a_folder_for_everybody_gets_one_for_this_user_first(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    assert jobs.folder_of(mine, "1") == mine / ".cache" / "hf-datasets-1"
    mine.chmod(0o1777)
    above = jobs.folder_of(mine, "1").parent
    assert above.parent.parent == mine
    assert jobs.place([mine], []) == mine
    assert stat.S_IMODE(above.parent.stat().st_mode) == 0o700


def test_many_jobs_that_are_the_first_in_a_scratch_folder_all_get_a_place(tmp_path):
    begin, found = threading.Barrier(16), []

    def work():
        begin.wait()
        found.append(jobs.place([tmp_path], []))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path] * 16


def test_a_cache_goes_where_there_is_room(tmp_path, monkeypatch):
    near, far = tmp_path / "near", tmp_path / "far"
    near.mkdir()
    far.mkdir()
    entry = make_entry(tmp_path / "prebuilt")
    bases = [tmp_path / "missing", near, far]
    assert jobs.place(bases, [entry]) == near
    monkeypatch.setattr(jobs, "_has_room", lambda base, *_: base == far)
    assert jobs.place(bases, [entry]) == far
    with pytest.raises(CacheError, match="no folder that can be written to"):
        jobs.place(bases[:1], [entry])


def test_a_block_has_a_cache_of_its_own_and_leaves_none(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "prebuilt"))
    monkeypatch.delenv("DATASETS_PREP_HF_CACHE", raising=False)
    make_entry(tmp_path / "prebuilt")
    make_entry(tmp_path / "prebuilt", name="csv/default-1/0.0.0/2", note=False)
    with pytest.raises(ZeroDivisionError), jobs.job_cache(tmp_path) as made:  # noqa: PT012
        assert os.environ["HF_DATASETS_CACHE"] == str(made.path) == str(config.datasets_cache())
        assert config.prebuilt_cache() == tmp_path / "prebuilt"
        assert len(entries(made.path)) == 2
        assert not (made.path / NAME / "json-train.arrow").is_symlink()
        assert (made.path / "csv/default-1/0.0.0/2/json-train.arrow").is_symlink()
        1 / 0  # noqa: B018
    assert os.environ["HF_DATASETS_CACHE"] == str(tmp_path / "prebuilt")
    assert os.listdir(tmp_path / ".cache") == []


def test_a_process_that_is_told_to_end_leaves_no_cache(tmp_path):
    code = (
        "import pathlib, sys, time; from datasets_prep.hf_cache import job_cache\n"
        "with job_cache(pathlib.Path(sys.argv[1])): print('in', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "in\n"
    assert len(os.listdir(tmp_path / ".cache")) == 1
    process.terminate()
    assert process.wait(30) == 143
    process.stdout.close()
    assert os.listdir(tmp_path / ".cache") == []


def test_caches_of_processes_that_are_gone_are_found(tmp_path):
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    host = os.uname().nodename
    above = tmp_path / ".cache"
    names = {
        f"{host}@{gone.stdout.strip()}.aa": "ended",
        f"{host}@{os.getpid()}.aa": "running",
        "elsewhere@1.aa": "unknown",
        "10-0-0-1@1.aa": "unknown",  # no job 10
        "77": "unknown",  # there is no SLURM here
        "what": "unknown",
    }
    for name in names:
        (above / f"hf-datasets-{name}").mkdir(parents=True)
    (above / ".hf-datasets-gone-1").mkdir()  # a collector was killed
    (above / "other").mkdir()
    found = collecting.found([tmp_path], QUEUE)
    assert {each.owner: each.state for each in found} == names | {"": "ended"}
    for each in found:
        if each.state == collecting.ENDED:
            assert collecting.remove(each)
            assert not collecting.remove(each)
    assert len(os.listdir(above)) == 6


# -- shared -------------------------------------------------------------------------------------


@pytest.fixture
def unchecked(monkeypatch):
    """These entries are no Arrow files; that they are opened is seen where they are."""
    monkeypatch.setattr(shared, "check", lambda path: 1)


def test_versions_follow_one_another_and_old_ones_stay_for_their_readers(tmp_path, unchecked):
    one = make_entry(tmp_path / "a")
    folder = tmp_path / "shared"
    first = shared.publish([one], folder)
    assert shared.version_of(folder) == first
    assert shared.publish([one], folder) == first, "it has all of it"
    writable = [p for p in first.rglob("*") if p.lstat().st_mode & 0o222]
    assert writable == []
    other = make_entry(tmp_path / "b", name="json/default-9/0.0.0/2", note=False)
    second = shared.publish([other], folder)
    assert {e.name for e in entries(second)} == {one.name, other.name}
    newer = make_entry(tmp_path / "c", name="json/default-3/0.0.0/2")  # the same file, changed
    third = shared.publish([newer], folder)
    assert {e.name for e in entries(third)} == {other.name, newer.name}
    assert (first / NAME / "json-train.arrow").read_bytes() == b"arrow"
    assert list(shared.outdated(folder)) == []
    time.sleep(0.02)
    outdated = list(shared.outdated(folder, 0.0))
    assert outdated == sorted([first, second])
    for version in outdated:
        shared.remove(version)
    assert [p.name for p in (folder / "versions").iterdir()] == [third.name]


def test_a_version_with_an_entry_that_is_not_whole_is_not_published(tmp_path, unchecked):
    entry = make_entry(tmp_path / "a")
    (entry.path / "json-train.arrow").unlink()
    with pytest.raises(CacheError, match="1 entries are not whole"):
        shared.publish([entry], tmp_path / "shared")
    assert os.listdir(tmp_path / "shared") == ["versions"]
    assert os.listdir(tmp_path / "shared" / "versions") == []
