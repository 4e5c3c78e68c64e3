"""Jobs that load one data file at once: one builds, none fails, whatever ``flock`` does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("datasets", reason="the extra caches is not installed")

COUNT = int(os.environ.get("DATASETS_PREP_LOADERS", "8"))
ROUNDS = int(os.environ.get("DATASETS_PREP_LOADER_ROUNDS", "1"))
SCRIPT = Path(__file__).with_name("hf_loading.py")
ROWS = 2000
GROUP, USER = 54321, 54330


class Bed:
    """A data file, a cache, and what processes said of them."""

    def __init__(self, root):
        self.root = root
        self.cache = root / "cache"
        self.data = root / "data" / "questions.json"
        self.data.parent.mkdir()
        rows = [{"n": n, "text": "x" * 200} for n in range(ROWS)]
        self.data.write_text(json.dumps({"train": [], "test": rows}))
        self.runs = 0
        # The cache is group-shared or read-only, not the folder above it.
        root.chmod(0o755)

    @property
    def env(self):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TIEREDSTORE_"))}
        return kept | {"HF_DATASETS_CACHE": str(self.cache), "HF_HUB_OFFLINE": "1"}

    def prebuild(self):
        summary = self.root / "summary.yaml"
        tasks = {"evaluation": {"tasks": [{"dataset": str(self.data)}]}}
        summary.write_text(json.dumps(tasks))
        command = [sys.executable, "-m", "datasets_prep.cli", "cache", "prebuild", str(summary)]
        subprocess.run(command, env=self.env, check=True, capture_output=True, timeout=100)

    def load(self, how, *, flock, takes=0.3, maps=False, **more):
        """What each process answered, and how many builds began."""
        self.runs += 1
        run = self.root / f"run{self.runs}"
        order = {"how": how, "flock": flock, "takes": takes, "maps": maps, "count": COUNT, **more}
        for name in ("ready", "answers", "builds"):
            (run / name).mkdir(parents=True)
            (run / name).chmod(0o777)
            order[name] = str(run / name)
        order["data"] = str(self.data)
        command = [sys.executable, str(SCRIPT), json.dumps(order)]
        run.chmod(0o777)
        env = self.env | {"TMPDIR": str(run)}  # who ends at once leaves its temporary folder
        subprocess.run(command, env=env, cwd=run, check=True, timeout=110)
        answers = [json.loads(path.read_text()) for path in Path(order["answers"]).iterdir()]
        return answers, len(os.listdir(order["builds"]))


@pytest.fixture
def bed(root):
    return Bed(root)


WHOLE = {"rows": ROWS, "sum": sum(range(ROWS))}
LOCKS = pytest.mark.parametrize("flock", [True, False], ids=["flock", "no-flock"])


@LOCKS
def test_one_of_all_who_load_it_cold_builds_it(bed, flock):
    for _ in range(ROUNDS):
        shutil.rmtree(bed.cache, ignore_errors=True)
        answers, builds = bed.load("hf_cache", flock=flock)
        assert answers == [WHOLE] * COUNT
        assert builds == 1


@LOCKS
def test_after_a_pre_build_jobs_that_were_not_changed_build_nothing(bed, flock):
    bed.prebuild()
    for _ in range(ROUNDS):
        answers, builds = bed.load("load_dataset", flock=flock)
        assert answers == [WHOLE] * COUNT
        assert builds == 0


def test_two_users_of_a_group_share_one_build(bed):
    if os.geteuid() != 0:
        pytest.skip("only root can run processes of two users")
    for _ in range(ROUNDS):
        shutil.rmtree(bed.cache, ignore_errors=True)
        bed.cache.mkdir()
        os.chown(bed.cache, USER, GROUP)
        bed.cache.chmod(0o2770)
        answers, builds = bed.load("hf_cache", flock=False, user=USER, group=GROUP)
        assert answers == [WHOLE] * COUNT
        assert builds == 1


def test_a_read_only_cache_is_opened_and_mapped_over(bed):
    """Where ``load_dataset`` itself raises PermissionError: it locks what it only reads."""
    if os.geteuid() != 0:
        pytest.skip("only root can run processes of another user, who may not write there")
    bed.prebuild()
    plain, _ = bed.load("load_dataset", flock=True, user=USER, group=GROUP)
    assert all("PermissionError" in each["raised"] for each in plain)
    for when in range(ROUNDS):
        if when == 0:  # no entry of the cache is of its key any more, a copy of the store is
            os.utime(bed.data, (1, 1))
        else:
            bed.prebuild()
        answers, builds = bed.load("hf_cache", flock=False, maps=True, user=USER, group=GROUP)
        assert answers == [WHOLE] * COUNT
        assert builds == 0


@pytest.mark.skipif(ROUNDS == 1, reason="by hand: DATASETS_PREP_LOADER_ROUNDS=3")
def test_plain_load_dataset_fails_where_flock_does_nothing(bed):
    """What all of this is for, side by side."""
    failed = []
    for _ in range(ROUNDS):
        shutil.rmtree(bed.cache, ignore_errors=True)
        answers, builds = bed.load("load_dataset", flock=False)
        raised = [each["raised"] for each in answers if "raised" in each]
        failed.append((len(raised), builds, sorted({each[:60] for each in raised})))
    print(failed)  # noqa: T201 - the figures
    assert all(count for count, _, _ in failed)
