"""Token for token what nanoGPT's own recipe gives, however often it is killed on the way."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Pod, write_files

pytestmark = pytest.mark.realdata
KILLS = int(os.environ.get("DATASETS_PREP_CORPUS_KILLS", "2"))
ALL = "DATASETS_PREP_CORPUS_KILLS" in os.environ or "DATASETS_PREP_CORPUS_MB" in os.environ

# What nanoGPT does with OpenWebText, by the libraries that it does it with; nothing of ours.
RECIPE = """
import sys
import numpy as np
import tiktoken
from datasets import disable_progress_bars, load_dataset

encoding = tiktoken.get_encoding("gpt2")

def encode(row):
    ids = encoding.encode_ordinary(row["text"]) + [encoding.eot_token]
    return {"ids": ids, "len": len(ids)}

if __name__ == "__main__":
    disable_progress_bars()
    source, kind, out, workers = sys.argv[1:]
    loaded = load_dataset(kind, data_files=f"{source}/*", split="train")
    parts = loaded.train_test_split(test_size=0.0005, seed=2357, shuffle=True)
    for split, rows in (("train", parts["train"]), ("val", parts["test"])):
        encoded = rows.map(encode, remove_columns=rows.column_names, num_proc=int(workers))
        with open(f"{out}/{split}.bin", "wb") as file:
            for batch in encoded.with_format("numpy").iter(batch_size=1000):
                file.write(np.concatenate(list(batch["ids"])).astype(np.uint16).tobytes())
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    return write_files(tmp_path_factory.mktemp("source"), texts, "parquet", count=6)


@pytest.fixture(scope="module")
def expected(
    tmp_path_factory: pytest.TempPathFactory, source: Path, vocabulary: Path
) -> dict[str, bytes]:
    pytest.importorskip("datasets", reason="nanoGPT's recipe needs datasets")
    out = tmp_path_factory.mktemp("nanogpt")
    (out / "recipe.py").write_text(RECIPE)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(out / "hf"), "TMPDIR": str(out)}
    environment = {**os.environ, **offline, "TIKTOKEN_CACHE_DIR": str(vocabulary)}
    words = [sys.executable, "recipe.py", str(source), "parquet", str(out), "1"]
    subprocess.run(words, cwd=out, env=environment, check=True, timeout=900)
    return {file: (out / file).read_bytes() for file in ("train.bin", "val.bin")}


def _check(pod: Pod, expected: dict[str, bytes]) -> None:
    files = pod.files("openwebtext")
    assert {file: files[file] for file in expected} == expected
    assert pickle.loads(files["meta.pkl"]) == {"vocab_size": 50257, "tokenizer": "gpt2"}


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("workers", [1, 2, 5] if ALL else [2])
@pytest.mark.timeout(600)
def test_all_is_as_nanogpt_has_it(
    pod: Pod,
    source: Path,
    vocabulary: Path,
    expected: dict[str, bytes],
    workers: int,
    *,
    fast: bool,
) -> None:
    pod.use_vocabulary(vocabulary)
    if fast:
        pytest.importorskip("gigatoken", reason="the extra fast is not installed")
    else:
        pod.without("gigatoken")
    pod.prepare("openwebtext", source, "--num-proc", workers)
    _check(pod, expected)


@pytest.mark.timeout(900)
def test_killed_at_random_moments_it_goes_on_and_ends_the_same(
    pod: Pod, source: Path, expected: dict[str, bytes], vocabulary: Path
) -> None:
    """Of the command alone, of all its processes, or of one that works; then with other numbers."""
    pod.use_vocabulary(vocabulary)
    pod.without("gigatoken")
    chance = random.Random(int(os.environ.get("DATASETS_PREP_SEED", "1")))
    began = time.monotonic()
    where = ["--source", source, "--data-dir", pod.root / "whole"]
    pod.run("prepare", "openwebtext", *where)
    usual = time.monotonic() - began
    kept: list[int] = []
    for number in range(KILLS):
        workers = (1, 2, 5)[number % 3]
        words = ["--source", source, "--data-dir", pod.data, "--num-proc", workers]
        process = pod.start("prepare", "openwebtext", *words, start_new_session=True)
        time.sleep(chance.uniform(0.4, usual))
        _kill(process, chance)
        process.communicate(timeout=60)
        kept.append(len(list(pod.data.rglob("openwebtext-shards/*/tokens.bin"))))
    pod.prepare("openwebtext", source, "--num-proc", 2)
    _check(pod, expected)
    assert kept == sorted(kept) or (pod.data / "openwebtext").exists()


def _kill(process: subprocess.Popen[str], chance: random.Random) -> None:
    how = chance.choice(["command", "worker", "all"])
    if process.poll() is not None:
        return
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if how == "worker" and children:
        os.kill(int(chance.choice(children)), signal.SIGKILL)
    elif how == "all":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def test_no_process_outlives_the_command(pod: Pod, source: Path, vocabulary: Path) -> None:
    pod.use_vocabulary(vocabulary)
    pod.without("gigatoken")
    words = ["--source", source, "--data-dir", pod.data, "--num-proc", 2]
    process = pod.start("prepare", "openwebtext", *words)
    children: list[str] = []
    while len(children) < 2 and process.poll() is None:
        time.sleep(0.02)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert process.poll() is None
    time.sleep(0.5)
    process.kill()
    process.communicate(timeout=30)
    until = time.monotonic() + 20
    while any(Path(f"/proc/{child}/cmdline").exists() for child in children):
        assert time.monotonic() < until, "a process still works"
        time.sleep(0.05)
