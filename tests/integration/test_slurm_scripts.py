"""Job scripts on a real SLURM cluster: whatever is in a field, however a job ends."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import tieredstore
from datasets_prep import slurm as scripts
from datasets_prep.errors import InvalidJob, SlurmFailed
from datasets_prep.slurm import Job, Promote, Queue, Restore, Staging

PYTHON = sys.executable
SHELLCHECK = shutil.which("shellcheck")
HOSTILE = [
    "a  b ",
    'it\'s "x"',
    "$(touch owned)",
    "`touch owned`",
    "';touch owned;'",
    '";touch owned;"',
    "a&touch owned|b>c<d",
    "-rf",
    "--wrap=touch owned",
    "#SBATCH --wrap=touch",
    "${HOME} $HOME ~",
    "*?[a-z]{b,c}!",
    "%j %A %% %",
    "dé 日本 ☃",
    "hetjob :",
    "{{task}} {x}",
]
UNSAYABLE = ["a\ntouch owned\n", "a\rb", "\x1b[2J", "back\\slash $(touch owned)"]
SHOW = """
import json, os, sys
seen = {"argv": sys.argv[1:], "value": os.environ["VALUE"], "cwd": os.getcwd(),
        "name": os.environ["SLURM_JOB_NAME"], "scratch": os.environ.get("JOB_SCRATCH", "")}
json.dump(seen, open("seen.json", "w"))
"""
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


@pytest.fixture
def queue(slurm: SimpleNamespace) -> Queue:
    """The cluster's queue; jobs find the commands of this environment."""
    path = f"{os.path.dirname(PYTHON)}{os.pathsep}{slurm.env['PATH']}"
    kept = {k: v for k, v in slurm.env.items() if not k.startswith("TIEREDSTORE_")}
    return Queue(env={**kept, "PATH": path})


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A configuration whose first tier is in the job's own scratch, and the second durable."""
    durable = tmp_path / "durable"
    config = tmp_path / "tiers.toml"
    config.write_text(
        '[[tier]]\nname = "node"\nbackend = "local"\npath = "${JOB_SCRATCH}/data"\n'
        f'[[tier]]\nname = "far"\nbackend = "local"\npath = "{durable}"\ndurable = true\n'
    )
    return config


@pytest.fixture
def far(tmp_path: Path) -> tieredstore.TieredStore:
    """The durable tier of that configuration, as somebody elsewhere sees it."""
    return tieredstore.TieredStore([tieredstore.local_tier(tmp_path / "durable")])


def text(store: tieredstore.TieredStore, name: str, file: str) -> str:
    return (store.restore(name).path / file).read_text()


def log(job: Job) -> str:
    return "".join(path.read_text() for path in Path(job.folder, "logs").iterdir())


def until(look: Callable[[], object], cluster: SimpleNamespace) -> None:
    sys.modules[type(cluster).__module__].until(look, 30)


# -- what is in the fields ----------------------------------------------------------------------


def hostile_job(folder: Path, value: str) -> Job:
    """A job with this in every field that can hold it."""
    said = value.replace("/", "_")
    place = folder / said
    place.mkdir()
    return Job(
        name=value,
        command=(PYTHON, "-c", SHOW, value, "{job}"),
        environment={"VALUE": value},
        folder=str(place),
        logs=f"logs {said}",
        scratch=str(folder / "scratch" / said),
        sbatch={"comment": value},
        staging=Staging(config=value),
        time="5",
    )


def test_hostile_values_arrive_as_they_are_and_nothing_else_happens(
    tmp_path: Path, slurm: SimpleNamespace, queue: Queue
) -> None:
    jobs = [hostile_job(tmp_path, value) for value in HOSTILE]
    rendered = [scripts.render(job) for job in jobs]
    for script in rendered:
        assert scripts.check(script, queue) == ""
    ids = scripts.submit(rendered, queue)
    for number in ids.values():
        slurm.wait(number)
    for job in jobs:
        seen = json.loads(Path(job.folder, "seen.json").read_text())
        expected = job.name.replace("{{", "{").replace("}}", "}")
        assert seen["argv"] == [expected, ids[job.name]]
        assert (seen["value"], seen["name"], seen["cwd"]) == (expected, job.name, job.folder)
        assert os.path.dirname(seen["scratch"]) == job.scratch
        assert list(Path(job.scratch).iterdir()) == []
        assert [p.read_text() for p in Path(job.folder, job.logs).iterdir()] == [""]
        told = slurm.call("squeue", "-h", "--states=all", "-j", ids[job.name], "-o", "%k|")
        assert told == f"{job.name}|".strip()
    assert {task.state for task in queue.tasks(ids.values())} == {"COMPLETED"}
    assert not list(tmp_path.rglob("owned"))


def test_what_slurm_cannot_be_told_is_still_told_to_the_command(
    tmp_path: Path, slurm: SimpleNamespace, queue: Queue
) -> None:
    jobs = []
    for number, value in enumerate(UNSAYABLE):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = (PYTHON, "-c", SHOW, value)
        job = Job(str(number), command, environment={"VALUE": value}, folder=str(folder))
        for key in ("name", "folder", "logs", "account"):
            if "\\" not in value or key == "logs":
                with pytest.raises(InvalidJob, match=key):
                    replace(job, **{key: value})
        jobs.append(job)
    for number in scripts.submit(jobs, queue).values():
        slurm.wait(number)
    for job, value in zip(jobs, UNSAYABLE, strict=True):
        seen = json.loads(Path(job.folder, "seen.json").read_text())
        assert (seen["argv"], seen["value"]) == ([value], value)
    assert not list(tmp_path.rglob("owned"))


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed (apt-get install)")
def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    full = replace(
        hostile_job(tmp_path, HOSTILE[1]),
        array="0-3",
        modules=("a b", "$(c)"),
        conda="it's",
        venv="$(d)",
        warning=60,
        requeue=True,
        on_warning="requeue",
        staging=Staging(
            "x y",
            (Restore("a"), Restore("-b", ("c d", "e"))),
            (Promote("a/{task}", "out", "success"), Promote("-b", "$(c)"), Promote("c")),
        ),
    )
    lines = replace(full, name="lines", command="for i in 1 2; do echo $i 'x'; done\n")
    shown = [scripts.render(job) for job in (full, lines, Job("plain", ("true",)))]
    files = scripts.write(shown, tmp_path / "scripts")
    done = subprocess.run(
        [SHELLCHECK, *files], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("", 0)


def test_a_virtual_environment_and_conda_are_entered(
    tmp_path: Path, slurm: SimpleNamespace, queue: Queue
) -> None:
    """Conda itself is too large to be had here: a program stands for it that tells what it gets."""
    place = tmp_path / "it's $(x)"
    venv.create(place / "venv")
    conda = tmp_path / "bin" / "conda"
    conda.parent.mkdir()
    conda.write_text('#!/bin/sh\necho \'conda() { printf "%s\\n" "$@" > conda.txt; }\'\n')
    conda.chmod(0o755)
    queue = Queue(env={**queue._env, "CONDA_EXE": str(conda)})
    job = Job("v", "command -v python > which", venv="venv", conda="a b", folder=str(place))
    slurm.wait(scripts.submit([job], queue)["v"])
    assert Path(place, "which").read_text() == f"{place}/venv/bin/python\n"
    assert Path(place, "conda.txt").read_text() == "activate\na b\n"


@pytest.mark.skipif(
    not os.path.exists("/etc/profile.d/modules.sh"), reason="environment-modules is not installed"
)
def test_modules_are_loaded(tmp_path: Path, slurm: SimpleNamespace, queue: Queue) -> None:
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "1.2").write_text("#%Module1.0\nsetenv TOOL loaded\n")
    queue = Queue(env={**queue._env, "MODULEPATH": str(tmp_path)})
    job = Job("m", 'echo "$TOOL" > out', modules=("tool/1.2",), folder=str(tmp_path))
    slurm.wait(scripts.submit([job], queue)["m"])
    assert (tmp_path / "out").read_text() == "loaded\n", log(job)
    job = replace(job, command="touch ran", modules=("nothing/9",))
    assert slurm.wait(scripts.submit([job], queue)["m"]) == "FAILED"
    assert not (tmp_path / "ran").exists()


# -- staging ------------------------------------------------------------------------------------


def test_artifacts_come_to_the_node_and_results_go_from_it(
    tmp_path: Path, slurm: SimpleNamespace, queue: Queue, chain: Path, far: tieredstore.TieredStore
) -> None:
    with far.create("in put/it's $(x)") as stage:
        (stage.path / "a b").write_text("input")
        (stage.path / "other").write_text("not asked for")
    command = 'cp "$JOB_SCRATCH/data/in put/it\'s $(x)"/* "$JOB_SCRATCH/out"'.replace("$(", "\\$(")
    job = Job(
        "stage",
        f'mkdir "$JOB_SCRATCH/out"; {command}',
        array="4-5",
        folder=str(tmp_path),
        scratch=str(tmp_path / "local disk"),
        staging=Staging(
            str(chain),
            (Restore("in put/it's $(x)", ("a b",)),),
            (Promote("runs/{task} $(x)", "{scratch}/out"),),
        ),
    )
    ids = scripts.submit([job], queue)
    assert slurm.wait(ids["stage"]) == "COMPLETED", log(job)
    for task in (4, 5):
        got = far.restore(f"runs/{task} $(x)")
        assert [p.name for p in got.path.iterdir() if not p.name.startswith(".")] == ["a b"]
        assert (got.path / "a b").read_text() == "input"
    assert list((tmp_path / "local disk").iterdir()) == []


def test_every_node_of_a_job_gets_what_it_needs(
    tmp_path: Path, slurm: SimpleNamespace, queue: Queue, far: tieredstore.TieredStore
) -> None:
    with far.create("input") as stage:
        (stage.path / "a").write_text("input")
    config = tmp_path / "nodes.toml"
    config.write_text(
        '[[tier]]\nname = "node"\nbackend = "local"\n'
        f'path = "{tmp_path}/${{SLURMD_NODENAME}}"\nlayout = "{{name}}"\n'
        f'[[tier]]\nname = "far"\nbackend = "local"\npath = "{tmp_path}/durable"\ndurable = true\n'
    )
    needed = Staging(str(config), (Restore("input"),))
    job = Job("wide", ("true",), nodes="2", folder=str(tmp_path), staging=needed)
    assert slurm.wait(scripts.submit([job], queue)["wide"]) == "COMPLETED", log(job)
    assert len(list(tmp_path.glob("n?/input/a"))) == 2


def test_what_a_command_that_fails_leaves_is_promoted_where_it_is_to_be(
    tmp_path: Path, slurm: SimpleNamespace, queue: Queue, chain: Path, far: tieredstore.TieredStore
) -> None:
    wanted = (Promote("run", "out"), Promote("good", "out", "success"), Promote("no", "nowhere"))
    job = Job(
        "fails",
        "mkdir out; echo half > out/part; exit 7",
        folder=str(tmp_path),
        scratch=str(tmp_path / "local"),
        staging=Staging(str(chain), (), wanted),
    )
    number = scripts.submit([job], queue)["fails"]
    slurm.wait(number)
    [task] = queue.tasks([number])
    assert (task.state, task.status, task.ended, task.succeeded) == ("FAILED", 7, True, False)
    assert set(far.status()) == {"run"}
    assert list((tmp_path / "local").iterdir()) == []


def test_a_result_that_is_missing_or_an_artifact_that_cannot_be_had_fails_the_job(
    tmp_path: Path, slurm: SimpleNamespace, queue: Queue, chain: Path
) -> None:
    keep = Job(
        "keep",
        ("touch", "ran-keep"),
        folder=str(tmp_path),
        scratch=str(tmp_path / "local"),
        staging=Staging(str(chain), (), (Promote("run", "nowhere"),)),
    )
    need = replace(
        keep,
        name="need",
        command=("touch", "ran-need"),
        staging=Staging(str(chain), (Restore("nothing"),)),
    )
    ids = scripts.submit([keep, need], queue)
    for number in ids.values():
        assert slurm.wait(number) == "FAILED"
    assert (tmp_path / "ran-keep").exists()
    assert not (tmp_path / "ran-need").exists()
    assert "nothing" in log(need)
    assert "Traceback" not in log(need)


# -- ways to end --------------------------------------------------------------------------------


def waiting_job(tmp_path: Path, chain: Path) -> Job:
    return Job(
        "wait",
        (PYTHON, "-c", WAIT),
        folder=str(tmp_path),
        scratch=str(tmp_path / "local"),
        staging=Staging(str(chain), (), (Promote("run", "out"),)),
    )


def test_a_job_that_is_cancelled_promotes_and_cleans(
    tmp_path: Path, slurm: SimpleNamespace, queue: Queue, chain: Path, far: tieredstore.TieredStore
) -> None:
    job = waiting_job(tmp_path, chain)
    number = scripts.submit([job], queue)["wait"]
    until((tmp_path / "begun").exists, slurm)
    queue.cancel([number])
    assert slurm.wait(number) == "CANCELLED"
    until(lambda: not any((tmp_path / "local").iterdir()), slurm)
    assert text(far, "run", "part") == "told to end"
    assert not (tmp_path / "out" / "more").exists()


def test_jobs_whose_time_runs_out_promote_and_clean_and_may_go_back_to_the_queue(
    tmp_path: Path, slurm: SimpleNamespace, queue: Queue, chain: Path, far: tieredstore.TieredStore
) -> None:
    """SLURM's limits are whole minutes; it warns up to a minute earlier than it was told."""
    second = (
        "if pathlib.Path('begun').exists():\n    pathlib.Path('out/rest').touch(); sys.exit()\n"
    )
    first, rest = WAIT.split('pathlib.Path("begun")', 1)
    common = {"time": "1", "warning": 55}
    ends = replace(waiting_job(tmp_path, chain), **common)
    again = replace(
        ends,
        name="again",
        command=(PYTHON, "-c", f'{first}{second}pathlib.Path("begun"){rest}'),
        folder=str(tmp_path / "again"),
        requeue=True,
        on_warning="requeue",
        staging=Staging(str(chain), (), (Promote("again", "out"),)),
    )
    (tmp_path / "again").mkdir()
    ids = scripts.submit([ends, again], queue)
    until(lambda: [task.restarts for task in queue.tasks([ids["again"]])] == [1], slurm)
    assert text(far, "again", "part") == "told to end"
    slurm.wait(ids["wait"])
    [task] = queue.tasks([ids["wait"]])
    assert (task.state, task.status) == ("FAILED", 3), log(ends)
    assert text(far, "run", "part") == "told to end"

    slurm.hurry(ids["again"])
    assert slurm.wait(ids["again"]) == "COMPLETED", log(again)
    elsewhere = tieredstore.TieredStore([tieredstore.local_tier(tmp_path / "durable")])
    assert (elsewhere.restore("again").path / "rest").exists()
    assert list((tmp_path / "local").iterdir()) == []


def test_a_running_job_can_be_told_that_its_time_runs_out(
    tmp_path: Path, slurm: SimpleNamespace, queue: Queue, chain: Path
) -> None:
    number = scripts.submit([waiting_job(tmp_path, chain)], queue)["wait"]
    until((tmp_path / "begun").exists, slurm)
    queue.warn(number)
    slurm.wait(number)
    assert [task.status for task in queue.tasks([number])] == [3]


def test_a_job_that_gives_way_to_another_promotes_and_runs_again(
    tmp_path: Path, slurm: SimpleNamespace, queue: Queue, chain: Path, far: tieredstore.TieredStore
) -> None:
    job = replace(
        waiting_job(tmp_path, chain),
        requeue=True,
        time="5",
        partition="main",
        sbatch={"exclusive": "", "nodelist": "n1"},
    )
    number = scripts.submit([job], queue)["wait"]
    until((tmp_path / "begun").exists, slurm)
    urgent = Job(
        "urgent",
        ("touch", "urgent"),
        folder=str(tmp_path),
        partition="urgent",
        time="1",
        sbatch={"exclusive": "", "nodelist": "n1"},
    )
    slurm.wait(scripts.submit([urgent], queue)["urgent"])
    assert text(far, "run", "part") == "told to end"
    [task] = queue.tasks([number])
    assert (task.state, task.restarts) == ("PENDING", 1)
    (tmp_path / "begun").unlink()
    slurm.hurry(number)
    until((tmp_path / "begun").exists, slurm)


# -- several jobs -------------------------------------------------------------------------------


def test_a_chain_runs_in_its_order_and_what_needs_a_failed_one_does_not(
    tmp_path: Path, slurm: SimpleNamespace, queue: Queue
) -> None:
    def step(name: str, code: int, *after: str) -> Job:
        return Job(name, f"echo '{name}' >> order; exit {code}", folder=str(tmp_path), after=after)

    jobs = [
        step("merge", 0, "afterany:bad", "train"),
        step("never", 0, "bad"),
        step("train", 0, "prepare"),
        step("bad", 1, "prepare"),
        step("prepare", 0),
    ]
    ids = scripts.submit(jobs, queue)
    for number in ids.values():
        slurm.wait(number)
    states = {name: queue.tasks([number])[0].state for name, number in ids.items()}
    assert states == {
        "prepare": "COMPLETED",
        "train": "COMPLETED",
        "bad": "FAILED",
        "never": "CANCELLED",
        "merge": "COMPLETED",
    }
    order = (tmp_path / "order").read_text().split()
    assert (order[0], order[-1], sorted(order[1:-1])) == ("prepare", "merge", ["bad", "train"])


def test_all_are_submitted_or_none(tmp_path: Path, slurm: SimpleNamespace, queue: Queue) -> None:
    good = Job("good", ("touch", "ran"), folder=str(tmp_path))
    bad = replace(good, name="bad", partition="nowhere", after=("good",))
    with pytest.raises(SlurmFailed, match=r"'bad'.*partition"):
        scripts.check(scripts.render(bad), queue)
    with pytest.raises(SlurmFailed, match=r"'bad'.*partition"):
        scripts.submit([good, bad], queue)
    assert slurm.call("squeue", "-h", "-t", "PENDING,RUNNING") == ""
    assert not (tmp_path / "ran").exists()


def test_the_tasks_of_an_array_are_seen_one_by_one(
    tmp_path: Path, slurm: SimpleNamespace, queue: Queue
) -> None:
    command = ("bash", "-c", "echo $CUDA_VISIBLE_DEVICES > out-{task}; exit {task}")
    job = Job("array", command, array="0-2,5%2", gpus="1", memory="50M", folder=str(tmp_path))
    after = Job("after", ("touch", "merged"), folder=str(tmp_path), after=("afterany:array",))
    ids = scripts.submit([after, job], queue)
    slurm.wait(ids["after"])
    tasks = {task.index: (task.state, task.status) for task in queue.tasks([ids["array"]])}
    failed = {n: ("FAILED", n) for n in (1, 2, 5)}
    assert tasks == {0: ("COMPLETED", 0), **failed}
    assert {(tmp_path / f"out-{n}").read_text().strip() for n in tasks} <= {"0", "1"}
    assert (tmp_path / "merged").exists()
    assert queue.max_array() == 1001
    assert queue.tasks(["987654"]) == []
    with pytest.raises(SlurmFailed, match="array"):
        scripts.submit([replace(job, array="0-5000")], queue)


# -- the command --------------------------------------------------------------------------------


def test_the_command_writes_checks_and_submits(
    tmp_path: Path, slurm: SimpleNamespace, queue: Queue
) -> None:
    config = tmp_path / "jobs.yaml"
    config.write_text(
        "defaults: {time: 5, partition: main}\n"
        "job:\n"
        "  - {name: prepare it, command: [touch, 'a b']}\n"
        "  - {name: train, command: 'mv a\\ b done', after: prepare it}\n"
    )

    def call(*options: str, code: int = 0) -> list[str]:
        program = [os.path.join(os.path.dirname(PYTHON), "datasets-prep"), "slurm", "script"]
        done = subprocess.run(
            [*program, *options],
            cwd=tmp_path,
            env=queue._env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return (done.stdout + done.stderr).splitlines()

    shown = call("jobs.yaml", "--dry-run")
    assert [line for line in shown if line.startswith("# --")][1] == "# -- train.sh"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["jobs.yaml"]

    files = call("jobs.yaml")
    assert len(files) == 2
    assert call("jobs.yaml") == files
    [said] = call("jobs.yaml", "--time", "6", code=1)
    assert "--overwrite" in said
    *_, first, second = call("jobs.yaml", "--time", "6", "--overwrite", "--submit")
    assert (first.split("\t")[1], second.split("\t")[1]) == ("prepare it", "train")
    slurm.wait(second.split("\t")[0])
    assert (tmp_path / "done").exists()

    [said] = call("jobs.yaml", "--partition", "nowhere", "--output-dir", "x", code=1)
    assert "partition" in said
    assert not (tmp_path / "x").exists()
    [said] = call("jobs.yaml", "--tiem", "5", code=2)
    [said] = call(code=2)
    one = call(
        "--dry-run", "--name", "n", "--env", "A=b=c", "--sbatch", "exclusive", "--", "a", "--b"
    )
    assert "    run a --b" in one
    assert "export A=b=c" in one
    assert "#SBATCH --exclusive" in one


def test_ids_are_those_that_slurm_gave(
    tmp_path: Path, slurm: SimpleNamespace, queue: Queue
) -> None:
    jobs = [Job(str(n), ("true",), folder=str(tmp_path)) for n in range(3)]
    ids = list(scripts.submit(jobs, queue).values())
    later = Job("later", ("true",), folder=str(tmp_path), after=(ids[0],))
    ids.append(scripts.submit([later], queue)["later"])
    assert all(int(b) > int(a) for a, b in itertools.pairwise(ids))
    for number in ids:
        slurm.wait(number)
