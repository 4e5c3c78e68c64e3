"""Jobs have caches of Hugging Face datasets of their own, which go whichever way a job ends."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from datasets_prep import slurm as scripts
from datasets_prep.slurm import Job

PYTHON = sys.executable
JOBS = int(os.environ.get("DATASETS_PREP_CACHE_JOBS", "4"))
LOAD = """
import sys, datasets
found = datasets.load_dataset("json", data_files=sys.argv[1], field="test", split="train")
print("rows", found.num_rows)
"""


class Caches:
    """A data file, its pre-built cache, and a scratch folder of all nodes."""

    def __init__(self, bed):
        self.bed = bed
        self.data = bed.path / "questions.json"
        self.data.write_text(json.dumps({"test": [{"n": n} for n in range(500)]}))
        self.summary = bed.path / "summary.yaml"
        self.summary.write_text(f"evaluation: {{tasks: [{{dataset: {self.data.name}}}]}}\n")
        self.scratch = bed.path / "it's local $(x)"
        self.prebuilt = bed.path / "prebuilt"

    def job(self, name, *command, **keys):
        set_to = {"HF_DATASETS_CACHE": str(self.prebuilt), "HF_HUB_OFFLINE": "1"}
        fixed = {"folder": str(self.bed.path), "logs": f"logs-{name}", "environment": set_to}
        return Job(name, command, scratch=str(self.scratch), **fixed, **keys)

    def prebuild(self, **keys):
        command = (PYTHON, "-m", "datasets_prep.cli", "cache", "prebuild", str(self.summary))
        return self.job("prebuild", *command, **keys)

    def log(self, job):
        return self.bed.log(job)

    @property
    def left(self):
        return sorted(path.name for path in (self.scratch / ".cache").glob("*"))

    def gc(self, *options):
        from datasets_prep.slurm import Queue

        return Queue(60, self.bed.env).run(
            *(PYTHON, "-m", "datasets_prep.cli", "cache", "gc", "--scratch", str(self.scratch)),
            *options,
        )


@pytest.fixture
def caches(bed):
    pytest.importorskip("datasets", reason="the extra caches is not installed")
    return Caches(bed)


def test_however_jobs_end_no_cache_is_left(caches, bed):
    """After a pre-build that all wait for: ends, fails, cancelled, killed; by hand out of time."""
    after = {"after": ("prebuild",)}
    wait = "echo $PPID >$SLURM_JOB_NAME; mv $SLURM_JOB_NAME begun-$SLURM_JOB_NAME; sleep 300"
    good = [
        caches.job(f"good{n}", PYTHON, "-c", LOAD, str(caches.data), **after)
        for n in range(max(1, JOBS - 4))
    ]
    ends = {
        "fails": caches.job("fails", "bash", "-c", "exit 7", **after),
        "cancelled": caches.job("cancelled", "bash", "-c", wait, **after),
        "killed": caches.job("killed", "bash", "-c", wait, **after),
    }
    if JOBS > 4:
        ends["late"] = caches.job("late", "bash", "-c", wait, time="1", **after)
    ids = scripts.submit([caches.prebuild(), *good, *ends.values()], bed.queue)
    for name in ("cancelled", "killed"):
        bed.until((bed.path / f"begun-{name}").exists)
    during = caches.left
    assert {f"hf-datasets-{ids[name]}" for name in ("cancelled", "killed")} <= set(during)
    assert "hf-datasets-" + ids["killed"] in caches.left, "gc lets alone what runs"
    caches.gc()
    assert {f"hf-datasets-{ids[name]}" for name in ("cancelled", "killed")} <= set(caches.left)

    bed.queue.cancel([ids["cancelled"]])
    os.kill(int((bed.path / "begun-killed").read_text()), signal.SIGKILL)  # the script itself
    for name in ids:
        bed.cluster.wait(ids[name], seconds=120)
    states = {name: bed.task(number).state for name, number in ids.items()}
    assert states.pop("late", "TIMEOUT") == "TIMEOUT"
    assert states.pop("prebuild") == "COMPLETED", caches.log(caches.prebuild())
    assert states.pop("fails") == "FAILED"
    assert states.pop("cancelled") == "CANCELLED"
    states.pop("killed")
    assert set(states.values()) == {"COMPLETED"}, [caches.log(job) for job in good]

    for job in good:
        log = caches.log(job)
        cache = caches.scratch / ".cache" / f"hf-datasets-{ids[job.name]}"
        assert f"Using job-specific cache: {cache}\n" in log
        assert f"Cleaning up job-specific cache: {cache}\n" in log
        assert "rows 500" in log
        assert "Generating" not in log, "it was seeded, nothing is built"
    bed.until(lambda: caches.left == [f"hf-datasets-{ids['killed']}"])
    for name in ends.keys() - {"killed"}:
        assert "Cleaning up job-specific cache: " in caches.log(ends[name])

    assert "would remove" in caches.gc("--dry-run")
    assert caches.left != []
    assert "removed" in caches.gc()
    assert caches.left == []


def test_jobs_that_depend_on_a_pre_build_begin_after_it_and_not_when_it_fails(caches, bed):
    missing = bed.path / "missing.yaml"
    missing.write_text("evaluation: {tasks: [{dataset: nowhere.json}]}\n")
    command = (PYTHON, "-m", "datasets_prep.cli", "cache", "prebuild", str(missing))
    prebuild = caches.job("prebuild", *command)
    needs = caches.job("needs", "touch", "begun", after=("prebuild",))
    ids = scripts.submit([prebuild, needs], bed.queue)
    bed.cluster.wait(ids["needs"])
    assert bed.task(ids["needs"]).state == "CANCELLED"
    assert not (bed.path / "begun").exists()
    assert "CACHE_FAILED: " + str(bed.path / "nowhere.json") in caches.log(prebuild)


def test_a_job_with_a_shared_cache_has_links_and_locks_of_its_own(caches, bed):
    version = caches.prebuilt / "versions" / "20260101t000000-0"
    entry = version / "json" / "default-1" / "0.0.0" / "2"
    entry.mkdir(parents=True)
    (entry / "dataset_info.json").write_text(
        json.dumps({"dataset_name": "json", "splits": {"train": {}}})
    )
    (entry / "json-train.arrow").write_bytes(b"data")
    (caches.prebuilt / "current").symlink_to("versions/20260101t000000-0")
    show = 'cd "$HF_DATASETS_CACHE"; readlink -f json/*/*/*/json-train.arrow; touch json/lock'
    job = caches.job("shared", "bash", "-c", show, cache="shared", cache_from=str(caches.prebuilt))
    assert bed.ended(job).succeeded, caches.log(job)
    assert str(entry / "json-train.arrow") in caches.log(job)
    assert caches.left == []


def test_jobs_without_the_command_have_an_empty_cache_all_the_same(caches, bed):
    show = 'ls -A "$HF_DATASETS_CACHE" | wc -l'
    bare = {"PATH": "/usr/bin:/bin", "HF_DATASETS_CACHE": str(Path("/nowhere"))}
    job = Job(
        "bare",
        ("bash", "-c", show),
        folder=str(bed.path),
        scratch=str(caches.scratch),
        environment=bare,
    )
    assert bed.ended(job).succeeded, bed.log(job)
    begins, count, ends = bed.log(job).splitlines()
    assert begins.startswith(f"Using job-specific cache: {caches.scratch}/hf-datasets-")
    assert count == "0"
    assert ends == begins.replace("Using", "Cleaning up")
    assert not list(caches.scratch.glob("*"))
    none = Job(
        "none",
        ("bash", "-c", 'echo "$HF_DATASETS_CACHE"'),
        cache="none",
        folder=str(bed.path),
        environment=bare,
        logs="logs-none",
    )
    assert bed.ended(none).succeeded
    assert bed.log(none) == "/nowhere\n"
