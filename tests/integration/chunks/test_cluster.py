"""A run on a real SLURM cluster: an array over what is missing, a merge after it, nothing twice."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

from datasets_prep import chunks
from datasets_prep.slurm import Queue, Task

from .conftest import Project, items

ITEMS = 399  # forty chunks of ten


def on_cluster(project: Project, slurm: SimpleNamespace, *options: str, **more: str) -> list[str]:
    """Submit a run, and give the ids of its jobs."""
    environment = {k: str(v) for k, v in slurm.env.items()} | {"SLOW": "0.1"} | more
    last = environment.pop("ITEMS", str(ITEMS))
    code, said = project.call(
        *("run", "--phase", "1", "--end", last, "--chunk-size", "10", "--workers", "1"),
        *("--engine", "slurm", "--slurm", "time=5", "--slurm", "memory=200", "--slurm", "cpus=1"),
        *("--merge", "all", *options, *project.command),
        **environment,
    )
    assert code == 0, said
    return [line.split()[-1] for line in said.splitlines() if "submitted as" in line]


def ended(queue: Queue, ids: list[str], seconds: float = 100) -> list[Task]:
    until = time.monotonic() + seconds
    while True:
        found = queue.tasks(ids)
        if all(task.ended for task in found):
            return found
        assert time.monotonic() < until, found
        time.sleep(0.5)


def test_an_array_survives_a_drained_node_and_a_cancelled_job(
    project: Project, slurm: SimpleNamespace
) -> None:
    queue = Queue(env=slurm.env)
    array, merge = on_cluster(project, slurm)
    while len(project.notes() if (project.folder / "notes").exists() else []) < 4:
        time.sleep(0.1)
    slurm.drain("n1")
    running = [t for t in queue.tasks([array]) if t.state == "RUNNING"]
    queue.cancel([f"{array}_{running[-1].index}"])
    queue.requeue(f"{array}_{running[0].index}")
    slurm.hurry(f"{array}_{running[0].index}")
    tasks = ended(queue, [array])
    assert len(tasks) == 40
    states = {task.state for task in tasks}
    assert states <= {"COMPLETED", "CANCELLED"}, tasks
    [merged] = ended(queue, [merge])
    if merged.state == "FAILED":  # a chunk was missing: nothing less than all is merged
        assert "CANCELLED" in states
        ids = on_cluster(project, slurm)
        assert len(ids) == 2
        assert {task.state for task in ended(queue, ids)} == {"COMPLETED"}
        assert len(queue.tasks([ids[0]])) == 1  # what was missing, and nothing else
    slurm.resume("n1")
    [path] = (project.folder / "data/phase1_0").glob("dataset_all_*.bin")
    assert path.read_bytes() == items(ITEMS)
    code, said = project.call("status", "--phase", "1", "--json")
    assert json.loads(said)["done"] == 40, said
    assert code == 0


NO_LOCKS = """
import fcntl
fcntl.flock = lambda *_: None
"""


def test_a_node_that_was_thought_dead_writes_beside_the_one_that_took_over(
    project: Project, slurm: SimpleNamespace
) -> None:
    (project.folder / "locks").mkdir()
    (project.folder / "locks" / "sitecustomize.py").write_text(NO_LOCKS)
    queue = Queue(env=slurm.env)
    array, merge = on_cluster(
        *(project, slurm, "--slurm", "nodes=1"),
        PYTHONPATH=str(project.folder / "locks"),
        SLOW="6",
        ITEMS="79",
    )
    while not (project.folder / "notes").exists() or len(project.notes()) < 8:
        time.sleep(0.1)
    node = next(task.nodes for task in queue.tasks([array]) if task.state == "RUNNING")
    slurm.kill_node(node)  # what runs there goes on
    slurm.down(node)
    until = time.monotonic() + 20
    while not (waiting := [t for t in queue.tasks([array]) if t.state == "PENDING"]):
        assert time.monotonic() < until, "no task was requeued"
        time.sleep(0.2)
    for task in waiting:
        slurm.hurry(f"{array}_{task.index}")
    assert {task.state for task in ended(queue, [array])} == {"COMPLETED"}
    [merged] = ended(queue, [merge])
    assert merged.state == "COMPLETED"
    assert len(project.notes()) > 8, "no chunk was made twice, so nothing is shown"
    [path] = (project.folder / "data/phase1_0").glob("dataset_all_*.bin")
    assert path.read_bytes() == items(79)
    store = project.store()
    assert all(found.ok for name in store.names() for found in store.verify(name))
    slurm.start_node(node)


def test_jobs_can_be_looked_at_before(project: Project) -> None:
    code, said = project.call(
        *("run", "--phase", "1", "--end", "99", "--chunk-size", "10", "--workers", "1"),
        *("--engine", "slurm", "--slurm", "partition=gpu", "--dry-run", *project.command),
    )
    assert code == 0, said
    assert '#SBATCH --array="0-9"' in said
    assert '#SBATCH --partition="gpu"' in said
    assert not (project.folder / "slurm").exists()
    code, said = project.run("--engine", "slurm", "--slurm", "partitoin=gpu", "--dry-run")
    assert code == 2
    assert "did you mean 'partition'" in said


def test_an_executor_of_ones_own(project: Project, tmp_path: Path) -> None:
    phase = chunks.Phase("1", command=(sys.executable, "run.py", "{start}", "{end}"))
    options = chunks.RunOptions(
        workers=1, chunk_size=10, folder=tmp_path, config=tmp_path / "tieredstore.toml"
    )
    with ProcessPoolExecutor(2) as pool:
        futures = chunks.submit(pool, phase, 0, 99, 4, options)
        outcomes = [future.result(timeout=100) for future in futures]
    assert [len(outcome.made) for outcome in outcomes] == [3, 3, 2, 2]
    assert all(outcome.complete for outcome in outcomes)
    merged = chunks.Merge(project.store(), outcomes[0].plan, chunks.MergeOptions(whole=True)).run()
    assert (tmp_path / "data" / merged[0].artifacts[0]).read_bytes() == items()
