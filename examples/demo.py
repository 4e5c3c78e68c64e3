"""What the project is for, in a minute: prepare a dataset, lose it, get it back, train on it.

Types the commands that a user would type, in a copy of the training repo beside this file; a
temporary folder stands for the RunPod volume. Needs neither internet nor an account.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).with_name("training_repo")

STORY = [
    (
        "A pod prepares a dataset; the files go to ./data and to the volume.",
        "datasets-prep prepare pydoc_topics --tokenizer char",
    ),
    (
        "The pod dies, and its disk with it. The volume stays.",
        "rm -r data/pydoc_topics/pydoc_topics",
    ),
    (
        "The next pod restores the data, every byte verified, instead of preparing it again.",
        "tieredstore restore pydoc_topics",
    ),
    (
        "Every byte in every tier, compared with its manifest once more.",
        "tieredstore verify pydoc_topics",
    ),
    (
        "A training script finds its data where it expects it.",
        "python train.py config/train_pydoc_topics.py --max_iters=200 --log_interval=50",
    ),
    ("What lies where.", "tieredstore status"),
]


def environment(volume: Path) -> dict[str, str]:
    """This program's own, with the commands of its virtual environment first."""
    commands = os.path.dirname(sys.executable)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TIEREDSTORE_")}
    kept["PATH"] = f"{commands}{os.pathsep}{kept.get('PATH', os.defpath)}"
    kept["TIEREDSTORE_RUNPOD_VOLUME"] = str(volume)
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    return kept


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="tieredstore-demo-") as temporary:
        repo, volume = Path(temporary, "repo"), Path(temporary, "volume")
        shutil.copytree(REPO, repo, ignore=shutil.ignore_patterns("__pycache__"))
        volume.mkdir()
        settings = environment(volume)
        for why, command in STORY:
            print(f"\n# {why}\n$ {command}", flush=True)
            done = subprocess.run(shlex.split(command), cwd=repo, env=settings, check=False)
            if done.returncode:
                print(f"error: the command ended with {done.returncode}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
