"""Configurations of jobs, and scripts as files."""

import os
import stat
from pathlib import Path

import pytest

from datasets_prep import slurm
from datasets_prep.errors import InvalidJob
from datasets_prep.slurm import Job, Promote, Restore, Staging

TOML = """
[defaults]
account = "lab"
time = 02:30:00
environment = { OMP_NUM_THREADS = 4 }

[[job]]
name = "prepare"
command = ["datasets-prep", "prepare", "x"]

[[job]]
name = "train"
command = "python train.py"
after = "prepare"
gpus = 2
environment = { A = "b" }
[job.staging]
config = "t.toml"
restore = ["x", { name = "y", files = ["z"] }]
promote = [{ name = "run", path = "out", when = "success", replace = true }]
"""
YAML = """
defaults:
  account: lab
  time: 02:30:00
  environment: {OMP_NUM_THREADS: 4}
job:
  - name: prepare
    command: [datasets-prep, prepare, x]
  - name: train
    command: python train.py
    after: prepare
    gpus: 2
    environment: {A: b}
    staging:
      config: t.toml
      restore: [x, {name: y, files: [z]}]
      promote: [{name: run, path: out, when: success, replace: true}]
"""


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "text"), [("jobs.toml", TOML), ("jobs.yaml", YAML)])
def test_toml_and_yaml_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    prepare, train = slurm.load(written(tmp_path, name, text))
    shared = {"account": "lab", "time": "02:30:00", "folder": str(tmp_path)}
    assert prepare == Job(
        "prepare",
        ("datasets-prep", "prepare", "x"),
        environment={"OMP_NUM_THREADS": "4"},
        **shared,
    )
    assert train == Job(
        "train",
        "python train.py",
        after=("prepare",),
        gpus="2",
        environment={"OMP_NUM_THREADS": "4", "A": "b"},
        staging=Staging(
            "t.toml",
            (Restore("x"), Restore("y", ("z",))),
            (Promote("run", "out", "success", replace=True),),
        ),
        **shared,
    )


def test_yaml_guesses_nothing(tmp_path: Path) -> None:
    """In YAML 1.1 the time is 7200, the account false and the partition 8."""
    text = "command: [a]\ntime: 2:00:00\naccount: no\npartition: 010\nenvironment: {A: 1e3}\n"
    [job] = slurm.load(written(tmp_path, "one.yml", text))
    assert (job.time, job.account, job.partition) == ("2:00:00", "no", "010")
    assert (job.name, job.environment) == ("one", {"A": "1e3"})


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.yaml", "command: [a]\ncommand: [b]\n", "line 2: the key 'command' is there twice"),
        ("a.yaml", "values: {a: {b: 1, b: 2}}\ncommand: x\n", "'b' is there twice"),
        ("a.yaml", "command: !!python/object/apply:os.system ['touch owned']\n", "constructor"),
        ("a.yaml", "[", "no valid YAML"),
        ("a.yaml", "? [a]\n: b\n", "line 1: a key is a list"),
        ("a.yaml", "- a\n", "holds no table"),
        ("a.toml", "command = 'a'\ncommand = 'b'\n", "no valid TOML"),
        ("a.json", "{}", "expected a name that ends in"),
        ("a.toml", "partitoin = 'x'\ncommand = 'a'\n", "unknown key 'partitoin'; .*'partition'"),
        ("a.toml", "comand = 'x'\n", "'command'"),
        ("a.toml", "xyzzy = 'x'\n", "known are name, command"),
        ("a.toml", "time = '5'\n", "no command"),
        ("a.toml", "command = 'x'\ncpus = 'two'\n", "cpus is 'two', expected a whole number"),
        ("a.toml", "command = 'x'\ncpus = true\n", "cpus is True"),
        ("a.toml", "command = 'x'\nrequeue = 1\n", "requeue is 1, expected true or false"),
        ("a.toml", "command = 'x'\nenvironment = 1\n", "environment is 1, expected a table"),
        ("a.toml", "command = 'x'\nstaging = { restor = 'x' }\n", "'restor' in staging.*'restore'"),
        ("a.toml", "command = 'x'\nstaging = { promote = { nam = 1 } }\n", "'nam'.*'name'"),
        ("a.toml", "command = 'x'\ntime = 'soon'\n", "time is 'soon', expected minutes"),
        ("a.toml", "x = 1\n[[job]]\ncommand = 'x'\n", "unknown key 'x' beside 'job'"),
        ("a.toml", "job = 3\n", "job is 3, expected a list of tables"),
        ("a.toml", "[[job]]\ncommand = 'x'\n", "job 1: no name"),
    ],
)
def test_mistakes_are_one_line_with_file_and_key(
    tmp_path: Path, name: str, text: str, why: str
) -> None:
    with pytest.raises(InvalidJob, match=why) as error:
        slurm.load(written(tmp_path, name, text))
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_several_experiments_share_defaults_and_a_job_that_prepares(tmp_path: Path) -> None:
    written(tmp_path, "exp/defaults.yaml", "partition: gpu\nfolder: ..\n")
    written(tmp_path, "exp/prepare.toml", "command = ['prepare']\n")
    written(tmp_path, "exp/a.yaml", "command: [train, a]\nafter: prepare\npartition: big\n")
    pair = "[[job]]\nname = 'one'\ncommand = 'x'\n[[job]]\nname = 'two'\ncommand = 'x'\n"
    written(tmp_path, "exp/b.toml", f"{pair}after = ['one', 'afterany:prepare']\n")
    written(tmp_path, "exp/notes.txt", "not one of them\n")
    jobs = {job.name: job for job in slurm.load(tmp_path / "exp", {"time": "5"})}
    assert list(jobs) == ["a", "b-one", "b-two", "prepare"]
    assert jobs["b-two"].after == ("afterok:b-one", "afterany:prepare")
    assert {job.partition for job in jobs.values()} == {"big", "gpu"}
    assert {(job.time, os.path.normpath(job.folder)) for job in jobs.values()} == {
        ("5", str(tmp_path))
    }
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidJob, match="no experiments"):
        slurm.load(tmp_path / "none")


# -- files --------------------------------------------------------------------------------------


def test_a_script_is_never_replaced_unasked(tmp_path: Path) -> None:
    one, other = (
        slurm.render(Job(name, ("true",), folder=str(tmp_path))) for name in ("one", "other")
    )
    folder = tmp_path / "scripts"
    assert slurm.write([one], folder) == [folder / "one.sh"]
    assert stat.S_IMODE((folder / "one.sh").stat().st_mode) == 0o755
    assert (tmp_path / "logs").is_dir()
    assert slurm.write([one], folder) == [folder / "one.sh"]

    (folder / "one.sh").write_text("mine\n")
    with pytest.raises(FileExistsError, match=r"one\.sh.*--overwrite"):
        slurm.write([other, one], folder)
    assert sorted(p.name for p in folder.iterdir()) == ["one.sh"]
    assert (folder / "one.sh").read_text() == "mine\n"

    slurm.overwrite([other, one], folder)
    assert (folder / "one.sh").read_bytes() == one.data
    assert sorted(p.name for p in folder.iterdir()) == ["one.sh", "other.sh"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious = written(tmp_path, "precious", "mine\n")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "one.sh").symlink_to(precious)
    script = slurm.render(Job("one", ("true",), folder=str(tmp_path)))
    with pytest.raises(FileExistsError):
        slurm.write([script], tmp_path / "s")
    slurm.overwrite([script], tmp_path / "s")
    assert precious.read_text() == "mine\n"
    assert (tmp_path / "s" / "one.sh").read_bytes() == script.data
