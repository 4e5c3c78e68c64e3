"""Whatever is in a field of a job arrives as it is, and nothing else happens."""

import json
import os
import random
import shutil
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import pytest

from datasets_prep import slurm as scripts
from datasets_prep.errors import InvalidJob
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
RANDOM = int(os.environ.get("DATASETS_PREP_HOSTILE", "20"))
SEED = int(os.environ.get("DATASETS_PREP_SEED", "1"))
SPECIAL = "\"'\\$`!#%&*?[]{}()<>|;:=,~^-_./@ aZ09\xa0é日☃\U0001f600"
UNSAYABLE = ["a\ntouch owned\n", "a\rb", "\x1b[2J", "back\\slash $(touch owned)"]
SHOW = """
import json, os, sys
seen = {"argv": sys.argv[1:], "value": os.environ["VALUE"], "cwd": os.getcwd(),
        "name": os.environ["SLURM_JOB_NAME"], "scratch": os.environ.get("JOB_SCRATCH", "")}
json.dump(seen, open("seen.json", "w"))
"""


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
        cache="none",  # it would be told of in the log, which is to be empty
        sbatch={"comment": value},
        staging=Staging(config=value),
        time="5",
    )


def test_hostile_values_arrive_as_they_are_and_nothing_else_happens(bed) -> None:
    jobs = [hostile_job(bed.path, value) for value in HOSTILE]
    rendered = [scripts.render(job) for job in jobs]
    for script in rendered:
        assert scripts.check(script, bed.queue) == ""
    ids = scripts.submit(rendered, bed.queue)
    for number in ids.values():
        bed.cluster.wait(number)
    for job in jobs:
        seen = json.loads(Path(job.folder, "seen.json").read_text())
        expected = job.name.replace("{{", "{").replace("}}", "}")
        assert seen["argv"] == [expected, ids[job.name]]
        assert (seen["value"], seen["name"], seen["cwd"]) == (expected, job.name, job.folder)
        assert os.path.dirname(seen["scratch"]) == job.scratch
        assert list(Path(job.scratch).iterdir()) == []
        assert [p.read_text() for p in Path(job.folder, job.logs).iterdir()] == [""]
        told = bed.cluster.call("squeue", "-h", "--states=all", "-j", ids[job.name], "-o", "%k|")
        assert told == f"{job.name}|".strip()
    assert {task.state for task in bed.queue.tasks(ids.values())} == {"COMPLETED"}
    assert not list(bed.path.rglob("owned"))


def test_what_slurm_cannot_be_told_is_still_told_to_the_command(bed) -> None:
    jobs = []
    for number, value in enumerate(UNSAYABLE):
        folder = bed.path / str(number)
        folder.mkdir()
        command = (PYTHON, "-c", SHOW, value)
        job = Job(str(number), command, environment={"VALUE": value}, folder=str(folder))
        for key in ("name", "folder", "logs", "account"):
            if "\\" not in value or key == "logs":
                with pytest.raises(InvalidJob, match=key):
                    replace(job, **{key: value})
        jobs.append(job)
    for number in scripts.submit(jobs, bed.queue).values():
        bed.cluster.wait(number)
    for job, value in zip(jobs, UNSAYABLE, strict=True):
        seen = json.loads(Path(job.folder, "seen.json").read_text())
        assert (seen["argv"], seen["value"]) == ([value], value)
    assert not list(bed.path.rglob("owned"))


def test_random_texts_arrive_as_they_are(bed) -> None:
    """In ``#SBATCH`` lines of jobs that are held, and in the arguments of one that runs."""
    rolls = random.Random(SEED)

    def text(letters: str) -> str:
        return "".join(rolls.choices(letters, k=rolls.randint(1, 40)))

    said = {}
    for _ in range(RANDOM):
        job = Job(f"n{text(SPECIAL)}", ("true",), sbatch={"comment": text(SPECIAL), "hold": ""})
        said[bed.submit(replace(job, folder=str(bed.path)))] = [job.name, job.sbatch["comment"]]
    shown = bed.cluster.call("squeue", "-h", "-t", "PENDING", "-o", "%i\x1f%j\x1f%k\x1f")
    rows = [line.split("\x1f") for line in shown.split("\n")]
    assert {row[0]: row[1:3] for row in rows} == said
    bed.queue.cancel(said)

    texts = [text(f"{SPECIAL}\n\t\r\x1b\x7f\x01") for _ in range(10 * RANDOM)]
    plain = [t.replace("{", "(").replace("}", ")") for t in texts]
    values = {"VALUE": plain[0]}
    run = Job("run", (PYTHON, "-c", SHOW, *plain), environment=values, folder=str(bed.path))
    assert bed.ended(run).succeeded
    seen = json.loads((bed.path / "seen.json").read_text())
    assert (seen["argv"], seen["value"]) == (plain, plain[0])


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed (apt-get install)")
def test_shellcheck_finds_nothing(tmp_path) -> None:
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
    shared = replace(full, name="shared", cache="shared", cache_from="it's $(e)")
    shown = [scripts.render(job) for job in (full, lines, shared, Job("plain", ("true",)))]
    files = scripts.write(shown, tmp_path / "scripts")
    done = subprocess.run(
        [SHELLCHECK, *files], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("", 0)


def test_programs_and_variables_may_be_called_like_the_scripts_own(bed) -> None:
    (bed.path / "bin").mkdir()
    for name in ("run", "go", "test", "job_run", "exit", "--x"):
        program = bed.path / "bin" / name
        program.write_text(f'#!/bin/sh\necho "$code $file" > "ran{name}"\n')
        program.chmod(0o755)
        found = {"PATH": f"{bed.path}/bin:/usr/bin:/bin", "code": "a", "file": "b"}
        job = Job("called", (name,), environment=found, folder=str(bed.path))
        assert bed.ended(job).succeeded, bed.log(job)
        assert (bed.path / f"ran{name}").read_text() == "a b\n"


def test_a_virtual_environment_and_conda_are_entered(bed) -> None:
    """Conda itself is too large to be had here: a program stands for it that tells what it gets."""
    place = bed.path / "it's $(x)"
    venv.create(place / "venv")
    conda = bed.path / "bin" / "conda"
    conda.parent.mkdir()
    conda.write_text('#!/bin/sh\necho \'conda() { printf "%s\\n" "$@" > conda.txt; }\'\n')
    conda.chmod(0o755)
    bed.queue = Queue(env={**bed.env, "CONDA_EXE": str(conda)})
    job = Job("v", "command -v python > which", venv="venv", conda="a b", folder=str(place))
    bed.cluster.wait(bed.submit(job))
    assert Path(place, "which").read_text() == f"{place}/venv/bin/python\n"
    assert Path(place, "conda.txt").read_text() == "activate\na b\n"


@pytest.mark.skipif(
    not os.path.exists("/etc/profile.d/modules.sh"), reason="environment-modules is not installed"
)
def test_modules_are_loaded(bed) -> None:
    (bed.path / "tool").mkdir()
    (bed.path / "tool" / "1.2").write_text("#%Module1.0\nsetenv TOOL loaded\n")
    bed.queue = Queue(env={**bed.env, "MODULEPATH": str(bed.path)})
    job = Job("m", 'echo "$TOOL" > out', modules=("tool/1.2",), folder=str(bed.path))
    bed.cluster.wait(bed.submit(job))
    assert (bed.path / "out").read_text() == "loaded\n", bed.log(job)
    job = replace(job, command="touch ran", modules=("nothing/9",))
    assert bed.cluster.wait(bed.submit(job)) == "FAILED"
    assert not (bed.path / "ran").exists()
