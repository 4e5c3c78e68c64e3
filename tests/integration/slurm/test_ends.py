"""However a job ends, its results are promoted and its scratch is gone."""

import os
import random
import sys
import time
from dataclasses import replace

from datasets_prep import slurm as scripts
from datasets_prep.slurm import Job, Promote, Restore, Staging

PYTHON = sys.executable
CANCELS = int(os.environ.get("DATASETS_PREP_CANCELS", "2"))
SEED = int(os.environ.get("DATASETS_PREP_SEED", "1"))
WAIT = """
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path("out/part").write_text("told to end")
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("out").mkdir(exist_ok=True)
pathlib.Path("begun").touch()
time.sleep(60)
"""


def waiting_job(bed) -> Job:
    return Job(
        "wait",
        (PYTHON, "-c", WAIT),
        folder=str(bed.path),
        scratch=str(bed.path / "local"),
        staging=Staging(str(bed.config), (), (Promote("run", "out"),)),
    )


def test_a_job_that_is_cancelled_promotes_and_cleans(bed) -> None:
    job = waiting_job(bed)
    number = bed.submit(job)
    bed.until((bed.path / "begun").exists)
    bed.queue.cancel([number])
    assert bed.cluster.wait(number) == "CANCELLED"
    bed.until(lambda: not bed.left)
    assert bed.text("run", "part") == "told to end"


def test_jobs_whose_time_runs_out_promote_and_clean_and_may_go_back_to_the_queue(bed) -> None:
    """SLURM's limits are whole minutes; it warns up to a minute earlier than it was told."""
    second = (
        "if pathlib.Path('begun').exists():\n    pathlib.Path('out/rest').touch(); sys.exit()\n"
    )
    first, rest = WAIT.split('pathlib.Path("begun")', 1)
    ends = replace(waiting_job(bed), time="1", warning=45)
    again = replace(
        ends,
        name="again",
        command=(PYTHON, "-c", f'{first}{second}pathlib.Path("begun"){rest}'),
        folder=str(bed.path / "again"),
        requeue=True,
        on_warning="requeue",
        staging=Staging(str(bed.config), (), (Promote("again", "out"),)),
    )
    (bed.path / "again").mkdir()
    ids = scripts.submit([ends, again], bed.queue)
    bed.until(lambda: [task.restarts for task in bed.queue.tasks([ids["again"]])] == [1])
    assert bed.text("again", "part") == "told to end"
    bed.cluster.wait(ids["wait"])
    task = bed.task(ids["wait"])
    assert (task.state, task.status) == ("FAILED", 3), bed.log(ends)
    assert bed.text("run", "part") == "told to end"

    time.sleep(2)  # SLURM fails a job that begins while its last run is still being cleared away
    bed.cluster.call("scontrol", "update", f"JobId={ids['again']}", "TimeLimit=10")
    bed.cluster.hurry(ids["again"])
    assert bed.cluster.wait(ids["again"]) == "COMPLETED", bed.log(again)
    assert (bed.far.restore("again").path / "rest").exists()
    assert bed.left == []


def test_what_a_command_has_started_is_told_too_and_waited_for(bed) -> None:
    """The shell ends at once; what it runs takes its time to save."""
    slow = WAIT.replace("def stop(*_):", "def stop(*_):\n    time.sleep(3)")
    (bed.path / "slow.py").write_text(slow)
    job = replace(waiting_job(bed), command=f"{PYTHON} slow.py\necho 'not reached'\n")
    number = bed.submit(job)
    bed.until((bed.path / "begun").exists)
    bed.queue.warn(number)
    bed.cluster.wait(number)
    assert bed.task(number).status == 128 + 15
    assert bed.text("run", "part") == "told to end"
    assert "not reached" not in bed.log(job)


def test_a_command_that_does_not_listen_is_killed_in_time_to_promote(bed) -> None:
    deaf = WAIT.replace("signal.signal(signal.SIGTERM, stop)", "signal.signal(15, signal.SIG_IGN)")
    deaf = deaf.replace("time.sleep(60)", "pathlib.Path('out/part').touch(); time.sleep(60)")
    job = replace(waiting_job(bed), command=(PYTHON, "-c", deaf), warning=4)
    number = bed.submit(job)
    bed.until((bed.path / "out/part").exists)
    bed.queue.warn(number)
    bed.cluster.wait(number, seconds=30)
    assert bed.task(number).status == 128 + 9
    assert bed.text("run", "part") == ""


def test_a_job_that_gives_way_to_another_promotes_and_runs_again(bed) -> None:
    job = replace(
        waiting_job(bed),
        requeue=True,
        time="5",
        partition="main",
        sbatch={"exclusive": "", "nodelist": "n1"},
    )
    number = bed.submit(job)
    bed.until((bed.path / "begun").exists)
    urgent = Job(
        "urgent",
        ("touch", "urgent"),
        folder=str(bed.path),
        partition="urgent",
        time="1",
        sbatch={"exclusive": "", "nodelist": "n1"},
    )
    bed.cluster.wait(bed.submit(urgent))
    assert bed.text("run", "part") == "told to end"
    task = bed.task(number)
    assert (task.state, task.restarts) == ("PENDING", 1)
    (bed.path / "begun").unlink()
    bed.cluster.hurry(number)
    bed.until((bed.path / "begun").exists)


def test_tasks_that_are_cancelled_at_random_moments_leave_nothing_half(bed) -> None:
    """Before, in and after the restore, the command and the promote."""
    with bed.far.create("input") as stage:
        (stage.path / "a").write_bytes(os.urandom(1 << 20))
    made = (bed.far.restore("input").path / "a").read_bytes()
    job = Job(
        "random",
        'cd "$JOB_SCRATCH"; mkdir out; for n in 1 2 3; do\n'
        "  cp data/input/input/a part; mv part out/$n; sleep 0.2\ndone\n",
        array=f"0-{CANCELS - 1}%16",
        folder=str(bed.path),
        scratch=str(bed.path / "local"),
        staging=Staging(
            str(bed.config),
            (Restore("input"),),
            (Promote("runs/{task}", "{scratch}/out", replace=True),),
        ),
    )
    number = bed.submit(job)
    rolls = random.Random(SEED)
    for task in rolls.sample(range(CANCELS), CANCELS):
        time.sleep(rolls.uniform(0, 4 / min(CANCELS, 16)))
        bed.queue.cancel([f"{number}_{task}"])
    bed.cluster.wait(number, seconds=60 + CANCELS)
    bed.until(lambda: not bed.left)
    kept = [name for name in bed.far.status() if name != "input"]
    for name in kept:
        files = [p for p in bed.far.restore(name).path.iterdir() if not p.name.startswith(".")]
        assert files
        assert all(file.read_bytes() == made for file in files)

    again = bed.submit(job)
    assert bed.cluster.wait(again, seconds=60 + CANCELS) == "COMPLETED", bed.log(job)
    for task in range(CANCELS):
        got = bed.far.restore(f"runs/{task}").path
        assert [(got / n).read_bytes() == made for n in "123"] == [True] * 3
    assert bed.left == []
