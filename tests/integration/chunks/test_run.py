"""Chunks are made once, by whoever is there, and found again whatever has happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import Project, items


def test_a_range_is_cut_as_people_know_it_and_made_once(project: Project) -> None:
    options = ["--gpus", "0,1,2", "--merge", "none"]
    code, said = project.call(
        "run", "--phase", "1", "--start", "0", "--end", "488", *options, *project.command
    )
    assert code == 0, said
    assert "GPU 0: Processing chunks for range 0-162\n" in said
    assert "GPU 2: Processing chunks for range 326-488\n" in said
    folder = project.folder / "data" / "phase1_0" / "chunks" / "gpu0"
    made = sorted(path.name for path in folder.glob("chunk_*"))
    assert made == ["chunk_00000-00049", "chunk_00050-00099", "chunk_00100-00162"]
    assert (folder / made[0] / "run.log").read_text() == "items 0 to 49, GPU 0\n"
    assert (project.folder / "volume/phase1_0/chunks/gpu2/chunk_00426-00488/data.bin").exists()
    done = json.loads((project.folder / "volume/phase1_0/chunks/gpu0/completed.json").read_text())
    assert {row["state"] for row in done["value"].values()} == {"done"}
    # two GPUs tomorrow, and another size: the plan that three began is finished
    shutil.rmtree(folder / "chunk_00100-00162")
    shutil.rmtree(project.folder / "volume/phase1_0/chunks/gpu0/chunk_00100-00162")
    code, said = project.call(
        *("run", "--phase", "1", "--end", "488", "--gpus", "0,1", "--chunk-size", "7"),
        *("--merge", "none", *project.command),
    )
    assert code == 0, said
    assert "Chunk 0/3: 0-49 [SKIPPED - Already completed]\n" in said
    assert "Chunk 2/3: 100-162 [PROCESSING...]\n" in said
    assert said.count("PROCESSING") == 1


def test_a_machine_that_lost_its_disk_makes_nothing_again(project: Project) -> None:
    assert project.run("--merge", "none")[0] == 0
    shutil.rmtree(project.folder / "data")
    code, said = project.run()
    assert code == 0, said
    assert said.count("SKIPPED") == 10
    assert len(project.notes()) == 10
    assert project.merged() == items()


def test_a_file_that_happens_to_exist_does_not_count(project: Project) -> None:
    for path in ("data", "volume"):
        chunk = project.folder / path / "phase1_0/chunks/gpu0/chunk_00000-00009"
        chunk.mkdir(parents=True)
        (chunk / "data.bin").write_bytes(b"half")
    code, said = project.run()
    assert code == 1
    assert "tier 'volume' holds it made otherwise (recipe unknown)" in said
    assert project.run("--force")[0] == 0
    assert project.merged() == items()


def test_chunks_made_by_other_code_are_made_again_everywhere(project: Project) -> None:
    assert project.run("--merge", "none")[0] == 0
    runner = project.folder / "run.py"
    runner.write_text(runner.read_text().replace("range(start", "range(1000 + start"))
    runner.write_text(runner.read_text().replace("end + 1)", "1000 + end + 1)"))
    code, said = project.run("--merge", "none")
    assert code == 0, said
    assert "Chunk 0/5: 0-9 [STALE - run.py changed]\n" in said
    for path in ("data", "volume"):
        chunk = project.folder / path / "phase1_0/chunks/gpu0/chunk_00000-00009"
        assert (chunk / "data.bin").read_bytes()[:4] == (1000).to_bytes(4, "little")
    assert len(project.notes()) == 20


def test_a_chunk_that_fails_is_tried_again_and_told_at_the_end_and_the_others_go_on(
    project: Project,
) -> None:
    code, said = project.run("--retries", "1", FAIL="20")
    assert code == 1
    assert "Chunk 2/5: 20-29 [FAILED: exit status 3; tried again, 1 left]" in said
    assert "phase1_0: 9 of 10 chunks completed, 9 now\n" in said
    assert said.rstrip().endswith("a long story\n    it went wrong here")
    assert project.notes().count(20) == 2
    log = project.folder / "data/phase1_0/failed/chunk_00020-00029.log"
    assert "it went wrong here" in log.read_text()
    code, said = project.call("status", "--phase", "1", "--json")
    found = json.loads(said)
    assert (found["done"], found["failed"], found["total"]) == (9, 1, 10)
    assert project.run()[0] == 0
    assert project.merged() == items()


def test_a_command_that_writes_too_little_has_failed(project: Project) -> None:
    project.command[1] = "*.parquet"
    code, said = project.run("--retries", "0", end=9)
    assert code == 1
    assert "it wrote no *.parquet" in said
    project.command[:2] = []
    (project.folder / "run.py").write_text("print('nothing', __file__)")
    code, said = project.run("--retries", "0", end=9)
    assert code == 1
    assert "it wrote nothing to PHASE1_OUTPUT_DIR" in said


def test_a_gpu_that_only_fails_hands_its_chunks_to_the_others(project: Project) -> None:
    code, said = project.run("--gpus", "0,1", FAIL="gpu1", end=199)
    assert code == 0, said
    assert "GPU 1 is given up after 3 failures in a row" in said
    assert project.merged() == items(199)


def test_a_killed_worker_costs_its_chunk_one_try(project: Project) -> None:
    runner = project.folder / "run.py"
    kill = (
        'import signal\nmark = pathlib.Path(f"killed-{start}")\n'
        "if start in {0, 50} and not mark.exists():\n"
        "    mark.touch()\n    os.kill(os.getppid(), signal.SIGKILL)\n    time.sleep(30)\n"
    )
    runner.write_text(runner.read_text().replace("failing =", f"{kill}failing ="))
    code, said = project.run()
    assert code == 0, said
    assert said.count("was ended by SIGKILL; tried again") == 2
    assert project.merged() == items()


def test_two_machines_share_a_run_and_make_nothing_twice(project: Project) -> None:
    together = [project.start(*project.words(), SLOW="0.05") for _ in range(2)]
    said = [process.communicate(timeout=100)[0] for process in together]
    assert [process.returncode for process in together] == [0, 0], said
    assert project.notes() == list(range(0, 100, 10))
    [artifacts] = [list((project.folder / "data/phase1_0").glob("dataset_gpu0_*"))]
    assert len(artifacts) == 1
    assert project.merged() == items()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_told_to_stop_drops_what_it_makes(
    project: Project, number: int, code: int
) -> None:
    process = project.start(*project.words(), SLOW="20")
    while not (project.folder / "notes").is_dir() or len(project.notes()) < 2:
        time.sleep(0.05)
    since = time.monotonic()
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert time.monotonic() - since < 15
    assert "Traceback" not in said
    assert not list((project.folder / "data/phase1_0/chunks").rglob("data.bin"))
    assert not list((project.folder / "data/.tieredstore/stage").glob("2*"))
    assert project.run()[0] == 0
    assert project.merged() == items()


def test_a_signal_lets_the_chunks_that_are_being_made_end(project: Project) -> None:
    process = project.start(*project.words("--merge", "none"), SLOW="0.7")
    while not (project.folder / "notes").is_dir() or len(project.notes()) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "2 of 10 chunks completed, 2 now" in said


def test_what_a_killed_run_had_started_ends_with_it(project: Project) -> None:
    process = project.start(*project.words(), SLOW="60")
    while not (project.folder / "notes").is_dir() or len(project.notes()) < 2:
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    pids = [int(note.name.split("-")[1]) for note in (project.folder / "notes").iterdir()]
    until = time.monotonic() + 10
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < until, "a command goes on without its run"
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


CALLABLE = """
import os, pathlib

class Model:
    def __init__(self):
        loads = pathlib.Path("loads")
        loads.mkdir(exist_ok=True)
        (loads / str(os.getpid())).touch(exist_ok=False)

    def __call__(self, task):
        print("on", task.gpu or "cpu")
        numbers = range(task.start, task.end + 1)
        (task.folder / "data.bin").write_bytes(b"".join(n.to_bytes(4, "little") for n in numbers))
"""


def test_a_callable_is_loaded_once_for_each_worker(project: Project) -> None:
    (project.folder / "work.py").write_text(CALLABLE)
    project.command = ["--callable", "work.py:Model"]
    code, said = project.run("--gpus", "0,1")
    assert code == 0, said
    assert len(list((project.folder / "loads").iterdir())) == 2
    log = project.folder / "data/phase1_0/chunks/gpu0/chunk_00000-00009/run.log"
    assert log.read_text().startswith("on ")
    assert project.merged() == items()


def test_a_callable_that_raises_leaves_its_traceback_in_the_log(project: Project) -> None:
    (project.folder / "work.py").write_text(
        "def make(task):\n    raise ValueError('no such item')\n"
    )
    project.command = ["--callable", "work.py:make"]
    code, said = project.run("--retries", "0", "--workers", "1", end=9)
    assert code == 1
    assert "ValueError: no such item" in said
    assert (
        "Traceback" in (project.folder / "data/phase1_0/failed/chunk_00000-00009.log").read_text()
    )


def test_without_checkpoints_the_command_runs_once_for_each_gpu(project: Project) -> None:
    code, said = project.run("--no-checkpoint", "--gpus", "0,1")
    assert code == 0, said
    assert "items 0 to 49, GPU 0" in said
    assert project.notes() == [0, 50]
    assert (project.folder / "plain" / "data.bin").exists()
    assert not (project.folder / "data").exists()
    code, said = project.run("--no-checkpoint", "--gpus", "0", FAIL="0")
    assert code == 1
    assert "phase 1 failed for 0-99: exit status 3" in said


def test_phases_come_from_a_small_table(project: Project) -> None:
    (project.folder / "datasets_prep.toml").write_text(
        "checkpoint_frequency = 25\n[phases.1]\noutputs = ['*.bin']\n"
        f"command = ['{project.command[3]}', 'run.py', '{{start}}', '{{end}}']\n"
    )
    code, said = project.call("run", "--phase", "1", "--end", "99", "--workers", "1")
    assert code == 0, said
    assert "4 of 4 chunks completed" in said
    (project.folder / "datasets_prep.toml").write_text("[phases.1]\ncomand = ['x']\n")
    code, said = project.call("run", "--phase", "1", "--end", "99")
    assert code == 2
    assert "[phases.1]: unknown key 'comand'" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--phase", "../x", "--end", "9"], "phase '../x'"),
        (["--phase", "1", "--end", "-1"], "range 0--1"),
        (["--phase", "1", "--start", "5", "--end", "4"], "range 5-4"),
        (["--phase", "1", "--end", "9", "--chunk-size", "0"], "chunk size 0"),
        (["--phase", "1", "--end", "9", "--gpus", "0,0"], "gpus '0,0'"),
        (["--phase", "1", "--end", "9", "--workers", "0"], "0 workers"),
        (["--phase", "1", "--end", "9", "--code", "gone.py"], "gone.py is not there"),
        (["--phase", "1", "--end", "9", "--variable", "A B"], "'A B' cannot name"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_touched(
    project: Project, words: list[str], expected: str
) -> None:
    code, said = project.call("run", *words, *project.command)
    assert code == 2
    assert expected in said
    assert not (project.folder / "notes").exists()
    assert not list(project.folder.glob("data/**/chunk_*"))


def test_a_command_that_is_not_told_its_range_is_refused(project: Project) -> None:
    code, said = project.call("run", "--phase", "1", "--end", "9", "--", "true", "{start}")
    assert code == 2
    assert "{end} is nowhere in the command" in said
    code, said = project.call("run", "--phase", "1", "--end", "9")
    assert code == 2
    assert "give its command after --" in said


def test_another_range_of_the_same_run_is_refused(project: Project) -> None:
    assert project.run("--merge", "none")[0] == 0
    code, said = project.run("--merge", "none", end=149)
    assert code == 1
    assert "planned for 0-99, asked for 0-149" in said


def test_kills_at_random_moments_lose_and_double_nothing(project: Project) -> None:
    """Launchers and workers are killed again and again; in the end all is there, once."""
    import random

    dice = random.Random(7)
    kills = int(os.environ.get("DATASETS_PREP_CHUNK_KILLS", "8"))
    for _ in range(kills):
        process = project.start(*project.words("--merge", "none", end=399), SLOW="0.02")
        time.sleep(dice.uniform(0.3, 1.5))
        if dice.random() < 0.5:
            _kill_a_worker(process)
            time.sleep(dice.uniform(0.0, 0.3))
        process.kill()
        process.communicate(timeout=60)
    code, said = project.run(end=399)
    assert code == 0, said
    assert project.merged() == items(399)
    for chunk in project.store().names():
        assert all(found.ok for found in project.store().verify(chunk))


def _kill_a_worker(process: subprocess.Popen[str]) -> None:
    """Kill a child of a process, if it has one."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    for pid in found.stdout.split()[:1]:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            return
