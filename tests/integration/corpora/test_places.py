"""Corpora from the Hub and a web server, by the scripts of a training repo, on a SLURM cluster."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from datasets_prep.slurm import Queue
from tieredstore import TieredStore, local_tier

from .conftest import Pod, write_files, write_jsonl
from .test_making import joined, split

ROOT = Path(__file__).parents[3]
BYTES = ("--tokenizer", "byte")


def test_from_the_hub_and_found_again_without_it(
    pod: Pod, texts: list[str], load_server: Any
) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the extra 'hf'")
    source = write_files(pod.root / "in", texts[:300], "parquet", count=2)
    hub = load_server("hub").Hub()
    hub.start()
    try:
        for path in source.iterdir():
            hub.put("Skylion007/openwebtext", f"plain_text/{path.name}", path.read_bytes())
        hub.put("Skylion007/openwebtext", "README.md", b"about")
        pod.env |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HUB_DISABLE_XET": "1"}
        words = ["prepare", "openwebtext", *BYTES, "--data-dir", pod.data]
        pod.run(*words)
        assert pod.files("openwebtext")["train.bin"] == joined(split(texts[:300])[0])
        head = json.loads((pod.data / "openwebtext/.tieredstore.json").read_bytes())
        assert len(head["recipe"]["facts"]["revision"]) == 40
    finally:
        hub.stop()
    assert "Using existing files" in pod.run(*words).stdout


def test_a_file_of_a_web_server(pod: Pod, texts: list[str]) -> None:
    write_jsonl(pod.root / "web/notes.jsonl", texts[:50])
    handler = partial(SimpleHTTPRequestHandler, directory=str(pod.root / "web"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        pod.prepare("openwebtext", f"http://127.0.0.1:{server.server_port}/notes.jsonl", *BYTES)
    finally:
        server.shutdown()
        server.server_close()
    assert pod.files("openwebtext")["train.bin"] == joined(split(texts[:50])[0])


def test_the_scripts_of_a_training_repo(pod: Pod, texts: list[str]) -> None:
    for name in ("openwebtext", "proofpile"):
        shutil.copytree(ROOT / f"examples/training_repo/data/{name}", pod.root / f"data/{name}")
    write_files(pod.root / "web", texts, "parquet")
    write_jsonl(pod.root / "proofs/train/a.jsonl.gz", texts[:100])
    write_jsonl(pod.root / "proofs/dev/b.jsonl.gz", texts[100:120])
    web = ["--num-proc", "4", "--subset", "0.001", "--source", "web"]
    proofs = ["--subset", "0.0001", "--force", "--source", "proofs"]
    for name, words in (("openwebtext", web), ("proofpile", proofs)):
        pod.script(f"data/{name}/prepare.py", *words, *BYTES)
    found = {
        name: (pod.root / f"data/{name}/{name}/train.bin").read_bytes()
        for name in ("openwebtext", "proofpile")
    }
    train = split(texts)[0]
    assert found["openwebtext"] == joined(train[: max(1, int(len(train) * 0.001))])
    assert found["proofpile"] == joined(texts[:1])
    listed = {line.split("\t")[0]: line.split("\t") for line in pod.run("list").stdout.splitlines()}
    assert listed["proofpile"][-1].startswith("local (")
    assert listed["openwebtext"][3] == "24 GB to read, 18 GB prepared"
    assert listed["shakespeare"][-1] == "not prepared"


def test_progress_is_told_line_by_line_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from datasets_prep import console
    from datasets_prep.corpora.telling import Meter

    times = iter([0.0, 0.0, 4.0, 4.0, 11.0, 11.0, 12.0, 12.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    meter = Meter("it: tokenize", 4_000_000, console.Console())
    for _ in range(3):
        meter(100, 1_000_000, 5000)
    assert capsys.readouterr().err == (
        "it: tokenize: 50%, 200 documents, 2 of 4 MB, 909 tokens/s, 0:11 left\n"
    )


def test_tasks_of_a_cluster_share_the_shards(
    pod: Pod, texts: list[str], slurm: SimpleNamespace
) -> None:
    source = write_files(pod.root / "in", texts, "jsonl", count=4)
    (pod.root / "tieredstore.toml").write_text(
        '[[tier]]\nname = "node"\nbackend = "local"\npath = "node-${SLURM_JOB_ID}"\n'
        '[[tier]]\nname = "far"\nbackend = "local"\npath = "far"\ndurable = true\n'
    )
    found = f"{os.path.dirname(sys.executable)}{os.pathsep}{slurm.env['PATH']}"
    pod.env |= {**slurm.env, "PATH": found, "HOME": str(pod.root)}
    keys = [word for key in ("time=5", "memory=300", "cpus=1") for word in ("--slurm", key)]
    words = ["prepare", "openwebtext", *BYTES, "--source", source, "--engine", "slurm"]
    said = pod.run(*words, "--tasks", 3, *keys).stdout
    ids = [line.split()[-1] for line in said.splitlines() if "submitted as" in line]
    queue = Queue(env=slurm.env)
    until = time.monotonic() + 90
    while not all(task.ended for task in queue.tasks(ids)):
        assert time.monotonic() < until, queue.tasks(ids)
        time.sleep(0.3)
    logs = [path.read_text() for path in (pod.root / "logs").iterdir()]
    assert {task.state for task in queue.tasks(ids)} == {"COMPLETED"}, logs
    assert "".join(logs).count("shards are there") == 3
    far = TieredStore([local_tier(pod.root / "far")])
    assert far.names() == ["openwebtext"]
    with far.restore("openwebtext") as got:
        assert (got.path / "train.bin").read_bytes() == joined(split(texts)[0])
