"""Folders of SLURM jobs that have ended: found and dropped, and nothing where SLURM is silent."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import tieredstore
from tieredstore import Tier, TieredStore
from tieredstore.backends.local import LocalBackend
from tieredstore.cli import run
from tieredstore.mounted import job_folders

HERE = Path(__file__).parent
CONFIG = """
[[tier]]
name = "job"
backend = "local"
path = "{folder}/job-${{SLURM_JOB_ID:-none}}/data"
"""


@pytest.fixture
def bare(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)


def config_in(folder):
    (folder / "tieredstore.toml").write_text(CONFIG.format(folder=folder))
    return str(folder / "tieredstore.toml")


def made(folder):
    """A store in a folder, with an artifact in it."""
    with TieredStore([Tier("job", LocalBackend(str(folder)))]).create("set") as stage:
        (stage.path / "a").write_bytes(b"a" * 100)


def queue(monkeypatch, folder, script):
    """In the place of SLURM's command."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "squeue").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)


@pytest.fixture
def jobs(tmp_path, bare, monkeypatch):
    """Jobs 11 to 14: one runs, one is requeued, one has ended, one is not known any more."""
    for number in (11, 12, 13, 14):
        made(tmp_path / f"job-{number}" / "data")
    rows = "printf '11 RUNNING\\n12 PENDING\\n13 COMPLETED\\n'"
    queue(monkeypatch, tmp_path, rows)
    return tieredstore.open_store(config_in(tmp_path))


def found(store):
    (tier,) = store.litter(grace=0.0)
    return {Path(one.path).parent.name for one in tier.litter if one.what == "job"}


def test_only_folders_of_jobs_that_ended(jobs, tmp_path):
    (tmp_path / "job-99").mkdir()  # no store has made it
    (tmp_path / "job-98" / "data" / "files").mkdir(parents=True)
    (tmp_path / "job-97").mkdir()
    (tmp_path / "job-97" / "data").symlink_to(tmp_path / "job-14" / "data")
    made(tmp_path / "job-x" / "data")
    (tmp_path / "job-13" / "slurm.out").write_text("kept")
    assert found(jobs) == {"job-13", "job-14"}
    assert jobs.litter(grace=3600.0)[0].litter == ()
    (tier,) = jobs.collect(grace=0.0)
    assert len(tier.dropped) == 2
    assert tier.freed > 200
    left = sorted(path.name for path in tmp_path.glob("job-*"))
    assert left == ["job-11", "job-12", "job-13", "job-97", "job-98", "job-99", "job-x"]
    assert [path.name for path in (tmp_path / "job-13").iterdir()] == ["slurm.out"]


def test_what_lives_or_waits_there_keeps_a_folder(jobs, tmp_path):
    staged = LocalBackend(str(tmp_path / "job-13" / "data")).mount.staged("part", "0" * 16)
    queued = tmp_path / "job-14" / "data" / ".tieredstore" / "queue"
    queued.mkdir()
    (queued / "promote").write_bytes(b"{}")
    assert found(jobs) == set()
    staged.leave()
    assert found(jobs) == {"job-13"}


def test_a_job_that_is_requeued_meanwhile_keeps_its_folder(jobs, tmp_path, monkeypatch):
    (tier,) = jobs.litter(grace=0.0)
    monkeypatch.setattr(job_folders, "_FRESH", 0.0)
    queue(monkeypatch, tmp_path, "printf '13 CONFIGURING\\n'")
    dropped = {Path(o.path).parent.name: jobs.tiers[0].jobs.drop(o) for o in tier.litter}
    assert dropped["job-13"] is None
    assert dropped["job-14"] > 100
    assert (tmp_path / "job-13" / "data" / "set" / "a").exists()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1", "Unable to contact"),
        ("echo 'JOBID PARTITION NAME'", "something else than jobs"),
        ("exec sleep 60", "no answer within"),
        (None, "squeue is not installed"),
    ],
)
def test_nothing_is_dropped_where_slurm_is_silent(jobs, tmp_path, monkeypatch, capsys, script, why):
    monkeypatch.setattr(job_folders, "_PATIENCE", 1.0)
    if script is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        queue(monkeypatch, tmp_path, script)
    assert run(["gc", "--older-than", "0s", "--config", str(tmp_path / "tieredstore.toml")]) == 1
    error = capsys.readouterr().err
    assert "folders of other jobs are left as they are: squeue" in error
    assert why in error
    assert len(list(tmp_path.glob("job-*/data/set/a"))) == 4


def test_where_there_are_no_other_folders_slurm_is_not_asked(tmp_path, bare, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    store = tieredstore.open_store(config_in(tmp_path))
    assert [tier.failed for tier in store.litter()] == [""]


def test_a_durable_tier_has_no_folders_of_jobs(tmp_path, bare):
    table = {"name": "a", "backend": "local", "path": f"{tmp_path}/$SLURM_JOB_ID"}
    os.environ["SLURM_JOB_ID"] = "7"
    try:
        assert tieredstore.open_store({"tier": [table]}).tiers[0].jobs is not None
        table["durable"] = True
        assert tieredstore.open_store({"tier": [table]}).tiers[0].jobs is None
    finally:
        del os.environ["SLURM_JOB_ID"]


def test_what_a_killed_collector_has_left_is_ended(jobs, tmp_path, monkeypatch):
    code = (
        "import os, sys, tieredstore; from tieredstore.mounted import beneath; "
        "beneath.delete_tree = lambda *_: os._exit(9); "
        "tieredstore.open_store(sys.argv[1]).collect(grace=0.0)"
    )
    config = str(tmp_path / "tieredstore.toml")
    subprocess.run([sys.executable, "-c", code, config], check=False)
    assert len(list(tmp_path.glob("job-*/.tieredstore-gone-*"))) >= 1
    jobs.collect(grace=0.0)
    assert sorted(path.name for path in tmp_path.glob("job-*")) == ["job-11", "job-12"]


def test_with_a_real_slurm(bare, monkeypatch):
    spec = importlib.util.spec_from_file_location("gc_slurm", HERE.parent / "servers" / "slurm.py")
    slurm = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = slurm
    spec.loader.exec_module(slurm)
    if slurm.missing():
        pytest.skip(slurm.missing())
    folder = Path(tempfile.mkdtemp())
    cluster = slurm.start(folder / "slurm", nodes=1, grace=1)
    try:
        config = config_in(folder)
        code = folder / "job.py"
        code.write_text(
            "import sys, time, tieredstore\n"
            f"store = tieredstore.open_store({config!r})\n"
            "with store.create('set') as stage:\n"
            "    (stage.path / 'a').write_bytes(b'a')\n"
            "time.sleep(float(sys.argv[1]))\n"
        )
        numbers = []
        for seconds in (0, 300):
            script = folder / f"{seconds}.sh"
            script.write_text(f"#!/bin/sh\nexec {sys.executable} {code} {seconds}\n")
            script.chmod(script.stat().st_mode | stat.S_IXUSR)
            numbers.append(cluster.submit("--output", str(folder / "%j.out"), str(script)))
        ended, running = numbers
        assert cluster.wait(ended) == "COMPLETED", (folder / f"{ended}.out").read_text()
        assert cluster.wait(running, "RUNNING") == "RUNNING"
        there = folder / f"job-{running}" / "data" / "set" / "set" / "a"
        slurm.until(there.exists, 60)
        for name, value in cluster.env.items():
            monkeypatch.setenv(name, value)
        store = tieredstore.open_store(config)
        (tier,) = store.collect(grace=0.0)
        assert [one.path for one in tier.dropped] == [str(folder / f"job-{ended}" / "data")]
        assert there.exists()
        assert not (folder / f"job-{ended}").exists()
        cluster.call("scancel", running)
        cluster.wait(running)
        monkeypatch.setattr(job_folders, "_FRESH", 0.0)
        slurm.until(lambda: store.collect(grace=0.0)[0].dropped, 30)
        assert not (folder / f"job-{running}").exists()
    finally:
        cluster.stop()
        shutil.rmtree(folder)
