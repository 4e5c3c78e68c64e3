"""Runs every example as its reader would, and checks what it promises."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(EXAMPLES / "training_repo", tmp_path / "repo", ignore=ignored)
    (tmp_path / "volume").mkdir()
    return tmp_path / "repo"


@pytest.fixture
def run(repo: Path) -> Run:
    """Runs a command in the training repo, with a volume beside it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TIEREDSTORE_")}
    env = {
        **kept,
        "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{kept['PATH']}",
        "TIEREDSTORE_RUNPOD_VOLUME": str(repo.parent / "volume"),
        "OMP_NUM_THREADS": "1",
    }

    def go(*command: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(c) for c in command],
            cwd=repo,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return go


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """An input of the shape of Shakespeare's: repetitive lines that a model can learn."""
    lines = [f"KING {n % 7}: To be, or not to be, that is question {n % 11}.\n" for n in range(900)]
    path = tmp_path / "input.txt"
    path.write_text("".join(lines))
    return path


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"example_{name}", EXAMPLES / "training_repo" / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def losses(output: str) -> list[float]:
    return [float(n) for n in re.findall(r"^step \d+: train loss ([\d.]+)", output, re.MULTILINE)]


# -- training_repo ------------------------------------------------------------------------------


def test_the_commands_people_type_prepare_hit_and_restore(repo: Path, run: Run, text: Path) -> None:
    prepare = ["python", "data/shakespeare/prepare.py", "--tokenizer", "char", "--source", text]
    first = run(*prepare, "--subset", "0.5")
    assert "subset: 0.5" in first.stdout
    data = repo / "data" / "shakespeare" / "shakespeare"
    kept = {file: (data / file).read_bytes() for file in ("train.bin", "val.bin", "meta.pkl")}
    assert len(kept["train.bin"]) == 2 * int(int(text.stat().st_size * 0.9) * 0.5)
    for file, content in kept.items():
        assert (repo.parent / "volume/data/shakespeare" / file).read_bytes() == content

    again = run(*prepare, "--subset", "0.5")
    assert "✅ All required files found locally" in again.stdout

    shutil.rmtree(data)
    restored = run(*prepare, "--subset", "0.5")
    assert "restored from RunPod storage" in restored.stdout
    assert {file: (data / file).read_bytes() for file in kept} == kept

    forced = run(*prepare, "--force")
    assert "Starting Shakespeare dataset preparation" in forced.stdout
    assert (data / "train.bin").stat().st_size == 2 * int(text.stat().st_size * 0.9)
    assert (repo / "data/shakespeare/prepare.py").is_file()


def test_training_finds_its_data_and_the_loss_falls(repo: Path, run: Run, text: Path) -> None:
    run("python", "data/shakespeare/prepare.py", "--tokenizer", "char", "--source", text)
    shutil.rmtree(repo / "data/shakespeare/shakespeare")  # restored by the training script
    settings = ["--max_iters=60", "--eval_interval=30", "--batch_size=64"]
    done = run("python", "train.py", "config/train_shakespeare.py", *settings)
    found = losses(done.stdout)
    assert len(found) == 3
    assert found[-1] < found[0] - 0.5
    assert len(re.findall(r"^iter \d+: loss", done.stdout, re.MULTILINE)) == 6


def test_training_prepares_what_is_nowhere(repo: Path, run: Run) -> None:
    done = run("python", "train.py", "config/train_pydoc_topics.py", "--max_iters=40")
    found = losses(done.stdout)
    assert found[-1] < found[0] - 0.3
    assert list((repo / "data/pydoc_topics").rglob("train.bin"))
    assert (repo.parent / "volume/data/pydoc_topics/train.bin").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max_iters=many"], "--max_iters=many: expected int"),
        (["--max_iters=0"], "max_iters is 0, expected at least 1"),
        (["--no_such=1"], "no setting 'no_such'"),
        (["--max_iters"], "expected --key=value"),
        (["config/none.py"], "No such file"),
        (["--dataset=__import__('os').getcwd()", "--max_iters=x"], "expected int"),
    ],
)
def test_a_wrong_setting_is_one_line(run: Run, arguments: list[str], said: str) -> None:
    done = run("python", "train.py", "config/train_pydoc_topics.py", *arguments, code=2)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_config_file_of_the_wrong_type_is_one_line(repo: Path, run: Run) -> None:
    (repo / "config/wrong.py").write_text("batch_size = 'large'\n")
    done = run("python", "train.py", "config/wrong.py", code=2)
    assert "config/wrong.py: batch_size is 'large', expected int" in done.stderr


def test_the_gradients_are_those_of_the_loss() -> None:
    model_py = load("model")
    model = model_py.NGramModel(vocab=7, context=3, width=4, hidden=5, seed=0)
    random = np.random.default_rng(0)
    for name, value in model.parameters.items():
        model.parameters[name] = value.astype(np.float64) + random.normal(size=value.shape) * 0.1
    contexts, targets = random.integers(0, 7, (11, 3)), random.integers(0, 7, 11)
    _, gradients = model.gradients(contexts, targets)
    for name, value in model.parameters.items():
        for _ in range(5):
            at = tuple(random.integers(0, n) for n in value.shape)
            before = value[at]
            value[at] = before + 1e-5
            above = model.loss(contexts, targets)
            value[at] = before - 1e-5
            below = model.loss(contexts, targets)
            value[at] = before
            assert gradients[name][at] == pytest.approx((above - below) / 2e-5, abs=1e-7)


# -- the other programs -------------------------------------------------------------------------


def test_the_wrapper_keeps_and_gets(repo: Path, run: Run, tmp_path: Path) -> None:
    wrapper = [sys.executable, EXAMPLES / "cli_wrapper.py"]
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    (out / "deep" / "model.bin").write_bytes(b"weights" * 1000)
    kept = run(*wrapper, "keep", "runs/42", out, "--option", "model=small")
    assert "runs/42: copied in runpod" in kept.stdout
    shutil.rmtree(repo / "data" / "runs")
    got = run(*wrapper, "get", "runs/42")
    assert "(from runpod)" in got.stdout
    folder = Path(got.stdout.split(" (from")[0])
    assert (repo / folder / "deep/model.bin").read_bytes() == b"weights" * 1000

    missing = run(*wrapper, "get", "runs/43", code=1)
    assert missing.stderr.startswith("error: runs/43: ")
    assert missing.stderr.count("\n") == 1


def test_the_wrapper_names_its_dependencies() -> None:
    text = (EXAMPLES / "cli_wrapper.py").read_text()
    found = re.search(r"^# /// script\n((?:#.*\n)+?)# ///$", text, re.MULTILINE)
    assert found
    import tomllib

    inline = tomllib.loads(found[1].replace("# ", ""))
    assert inline["dependencies"] == ["tieredstore"]
    assert inline["requires-python"] == ">=3.11"


def test_the_demo_tells_its_story_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    before = {p for p in EXAMPLES.rglob("*") if "__pycache__" not in p.parts}
    (tmp_path / "tmp").mkdir()
    done = run("env", f"TMPDIR={tmp_path / 'tmp'}", sys.executable, EXAMPLES / "demo.py")
    for command in ("datasets-prep prepare", "tieredstore restore", "tieredstore status"):
        assert f"$ {command}" in done.stdout
    assert "restored from runpod" in done.stdout
    found = losses(done.stdout)
    assert found[-1] < found[0] - 0.3
    assert list((tmp_path / "tmp").iterdir()) == []
    assert {p for p in EXAMPLES.rglob("*") if "__pycache__" not in p.parts} == before


def test_the_launcher_makes_a_range_in_chunks_and_goes_on(run: Run, repo: Path) -> None:
    words = ("python", "multi_gpu_launcher.py", "--phase", "1", "--start", "0", "--end", "120")
    assert "2 of 2 chunks completed, 2 now" in run(*words).stdout
    shutil.rmtree(repo / "data" / "phase1_0")
    again = run(*words, "--cleanup").stdout
    assert again.count("[SKIPPED - Already completed]") == 2
    assert "2 chunks removed" in again
    [merged] = (repo.parent / "volume" / "data" / "phase1_0").glob("dataset_gpu0_*.parquet")
    assert pq.read_table(merged)["item"].to_pylist() == list(range(121))
    run(*words, "--no-checkpoint")
    assert (repo / "data" / "phase1_plain" / "dataset.parquet").exists()
