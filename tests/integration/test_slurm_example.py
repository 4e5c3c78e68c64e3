"""The training repo's experiments on a real SLURM cluster, by the command that its page names."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]
TOOL = "tools/slurm/generate_slurm_scripts.py"


def test_experiments_are_prepared_once_and_run(tmp_path: Path, slurm: SimpleNamespace) -> None:
    repo = tmp_path / "training repo"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "examples/training_repo", repo, ignore=ignored)
    kept = {k: v for k, v in slurm.env.items() if not k.startswith("TIEREDSTORE_")}
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{kept['PATH']}"

    def call(*options: str, code: int = 0) -> list[str]:
        done = subprocess.run(
            [sys.executable, TOOL, "experiments", *options],
            cwd=repo,
            env={**kept, "PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return (done.stdout + done.stderr).splitlines()

    assert [line for line in call("--dry-run") if line.startswith("# --")] == [
        "# -- prepare.sh",
        "# -- context.sh",
        "# -- seeds.sh",
    ]
    assert not (repo / "experiments/slurm").exists()

    lines = call("--submit")
    ids = {name: number for number, _, name in (line.partition("\t") for line in lines[3:])}
    assert list(ids) == ["prepare", "context", "seeds"]
    for number in ids.values():
        slurm.wait(number)
    logs = {file.name: file.read_text() for file in (repo / "logs").iterdir()}
    assert len(logs) == 4
    trained = [text for name, text in logs.items() if not name.startswith("prepare")]
    assert all("step 50: train loss" in text for text in trained), logs
    assert len(set(trained)) == 3

    (repo / "experiments/slurm/seeds.sh").write_text("mine")
    assert "--overwrite" in call(code=1)[0]
    own = repo / "own.sh.j2"
    own.write_text("{% extends 'base.sh.j2' %}{% block after %}echo 'own template'{% endblock %}")
    call("--template", "own.sh.j2", "--overwrite")
    assert "own template" in (repo / "experiments/slurm/seeds.sh").read_text()
