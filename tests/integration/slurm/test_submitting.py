"""Several jobs: chains, arrays, all or none; and the command that writes and submits them."""

import itertools
from dataclasses import replace

import pytest

from datasets_prep import slurm as scripts
from datasets_prep.cli import run
from datasets_prep.errors import SlurmFailed
from datasets_prep.slurm import Job


def test_a_chain_runs_in_its_order_and_what_needs_a_failed_one_does_not(bed) -> None:
    def step(name: str, code: int, *after: str) -> Job:
        return Job(name, f"echo '{name}' >> order; exit {code}", folder=str(bed.path), after=after)

    jobs = [
        step("merge", 0, "afterany:bad", "train"),
        step("never", 0, "bad"),
        step("train", 0, "prepare"),
        step("bad", 1, "prepare"),
        step("prepare", 0),
    ]
    ids = scripts.submit(jobs, bed.queue)
    for number in ids.values():
        bed.cluster.wait(number)
    states = {name: bed.queue.tasks([number])[0].state for name, number in ids.items()}
    assert states == {
        "prepare": "COMPLETED",
        "train": "COMPLETED",
        "bad": "FAILED",
        "never": "CANCELLED",
        "merge": "COMPLETED",
    }
    order = (bed.path / "order").read_text().split()
    assert (order[0], order[-1], sorted(order[1:-1])) == ("prepare", "merge", ["bad", "train"])


def test_all_are_submitted_or_none(bed) -> None:
    done = Job("done", ("true",), folder=str(bed.path))
    before = bed.submit(done)
    bed.cluster.wait(before)
    good = Job("good", ("touch", "ran"), folder=str(bed.path), after=(before,))
    bad = replace(good, name="bad", partition="nowhere", after=("good",))
    with pytest.raises(SlurmFailed, match=r"'bad'.*partition"):
        scripts.check(scripts.render(bad), bed.queue)
    with pytest.raises(SlurmFailed, match=r"'bad'.*partition"):
        scripts.submit([good, bad], bed.queue)
    assert bed.cluster.call("squeue", "-h", "-t", "PENDING,RUNNING") == ""
    assert not (bed.path / "ran").exists()


def test_the_tasks_of_an_array_are_seen_one_by_one(bed) -> None:
    command = ("bash", "-c", "echo $CUDA_VISIBLE_DEVICES > out-{task}; exit {task}")
    job = Job("array", command, array="0-2,5%2", gpus="1", memory="50M", folder=str(bed.path))
    after = Job("after", ("touch", "merged"), folder=str(bed.path), after=("afterany:array",))
    ids = scripts.submit([after, job], bed.queue)
    bed.cluster.wait(ids["after"])
    tasks = {task.index: (task.state, task.status) for task in bed.queue.tasks([ids["array"]])}
    failed = {n: ("FAILED", n) for n in (1, 2, 5)}
    assert tasks == {0: ("COMPLETED", 0), **failed}
    assert {(bed.path / f"out-{n}").read_text().strip() for n in tasks} <= {"0", "1"}
    assert (bed.path / "merged").exists()
    assert bed.queue.max_array() == 1001
    assert bed.queue.tasks(["987654"]) == []
    with pytest.raises(SlurmFailed, match="array"):
        scripts.submit([replace(job, array="0-5000")], bed.queue)


def test_the_command_writes_checks_and_submits(bed, monkeypatch, capfd) -> None:
    config = bed.path / "jobs.yaml"
    config.write_text(
        "defaults: {time: 5, partition: main}\n"
        "job:\n"
        "  - {name: prepare it, command: [touch, 'a b']}\n"
        "  - {name: train, command: 'mv a\\ b done', after: prepare it}\n"
    )
    monkeypatch.chdir(bed.path)
    monkeypatch.setenv("SLURM_CONF", bed.env["SLURM_CONF"])
    monkeypatch.setenv("PATH", bed.env["PATH"])

    def call(*options: str, code: int = 0) -> list[str]:
        try:
            done = run(["slurm", "script", *options])
        except SystemExit as end:
            done = end.code
        shown = capfd.readouterr()
        assert done == code, shown
        return (shown.out + shown.err).splitlines()

    shown = call("jobs.yaml", "--dry-run")
    assert [line for line in shown if line.startswith("# --")][1] == "# -- train.sh"
    assert sorted(p.name for p in bed.path.iterdir()) == ["jobs.yaml", "tiers.toml"]

    files = call("jobs.yaml")
    assert len(files) == 2
    assert call("jobs.yaml") == files
    [said] = call("jobs.yaml", "--time", "6", code=1)
    assert "--overwrite" in said
    *_, first, second = call("jobs.yaml", "--time", "6", "--overwrite", "--submit")
    assert (first.split("\t")[1], second.split("\t")[1]) == ("prepare it", "train")
    bed.cluster.wait(second.split("\t")[0])
    assert (bed.path / "done").exists()

    [said] = call("jobs.yaml", "--partition", "nowhere", "--output-dir", "x", code=1)
    assert "partition" in said
    assert not (bed.path / "x").exists()
    [said] = call("jobs.yaml", "--tiem", "5", code=2)
    [said] = call(code=2)
    config.write_text("{command: [x], time: 9, warning: 60}")
    assert any("--signal" in line for line in call("jobs.yaml", "--dry-run"))
    assert not any("--signal" in line for line in call("jobs.yaml", "--warning", "0", "--dry-run"))
    one = call(
        "--dry-run", "--name", "n", "--env", "A=b=c", "--sbatch", "exclusive", "--", "a", "--b"
    )
    assert "    job_run exec -- a --b" in one
    assert "export A=b=c" in one
    assert "#SBATCH --exclusive" in one


def test_ids_are_those_that_slurm_gave(bed) -> None:
    jobs = [Job(str(n), ("true",), folder=str(bed.path)) for n in range(3)]
    ids = list(scripts.submit(jobs, bed.queue).values())
    later = Job("later", ("true",), folder=str(bed.path), after=(ids[0],))
    ids.append(bed.submit(later))
    assert all(int(b) > int(a) for a, b in itertools.pairwise(ids))
    for number in ids:
        bed.cluster.wait(number)
