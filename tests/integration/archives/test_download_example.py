"""The training repo's download script and SLURM file, as they are written."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path

import pytest

sys.path.insert(0, os.path.dirname(__file__))
import hostile

ROOT = Path(__file__).parents[3]
COUNT = 300
USUAL = "/hai/scratch/websight-v2/data"


def websight(folder="websight-v2/", count=COUNT):
    """A small archive like WebSight-v2."""
    files = {f"{folder}images/{n:05d}.png": hostile.noise(500 + n) for n in range(count)}
    lines = [json.dumps({"image": f"images/{n:05d}.png", "prompt": "p"}) for n in range(count)]
    files[f"{folder}prompts.jsonl"] = "\n".join(lines).encode() + b"\n"
    return gzip.compress(hostile.by_tarfile(files), 1)


@pytest.fixture
def repo(tmp_path):
    """The training repo; its config names a folder of this test, and a small WebSight."""
    found = tmp_path / "training repo"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "examples/training_repo", found, ignore=ignored)
    config = found / "config" / "websight.toml"
    text = config.read_text()
    assert USUAL in text
    spec = (resources.files("datasets_prep.download.specs") / "websight.toml").read_text()
    (found / "small.toml").write_text(spec.replace("79413", str(COUNT)))
    text = text.replace(USUAL, str(tmp_path / "scratch/websight-v2/data"))
    config.write_text(text.replace('"websight"', f'"{found / "small.toml"}"'))
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "websight-v2.tar.gz").write_bytes(websight())
    return found


@pytest.fixture
def url(tmp_path):
    """A web server that has the archive, and serves no ranges."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "web"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/websight-v2.tar.gz"
    server.shutdown()
    server.server_close()


def environment():
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TIEREDSTORE_", "SLURM_"))}
    kept["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{kept['PATH']}"
    return {**kept, "PYTHONIOENCODING": "utf-8"}


def call(repo, *words, code=0):
    done = subprocess.run(
        [*words],
        cwd=repo,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def script(repo, *options, code=0):
    return call(repo, sys.executable, "scripts/download_dataset.py", *options, code=code)


def there(tmp_path):
    folder = tmp_path / "scratch/websight-v2/data"
    return len(list((folder / "images").glob("*.png"))) if folder.exists() else None


def test_from_a_url_then_found_then_replaced(repo, url, tmp_path):
    said = script(repo, "--url", url)
    assert f"✓ Found {COUNT} records in prompts.jsonl" in said
    assert f"✓ Found {COUNT} images" in said
    assert "✓ Dataset verification passed!" in said
    assert f"Extracted: {COUNT + 1}/{COUNT + 1} files" in said
    assert there(tmp_path) == COUNT
    assert "Already there" in script(repo, "--url", url)
    (tmp_path / "web" / "websight-v2.tar.gz").write_bytes(websight(count=COUNT - 1))
    said = script(repo, "--url", url, "--force", code=1)
    assert f"✗ prompts.jsonl: {COUNT - 1} records, expected {COUNT}" in said
    assert there(tmp_path) == COUNT
    script(repo, "--url", url, "--force", "--skip-verify")
    assert there(tmp_path) == COUNT - 1


def test_exactly_one_source(repo):
    assert "exactly one of --url, --hf-repo and --local-path" in script(repo, code=2)


def test_a_copied_folder_keeps_modes_and_times(repo, tmp_path):
    source = tmp_path / "made"
    (source / "images").mkdir(parents=True)
    lines = []
    for n in range(COUNT):
        (source / "images" / f"{n}.png").write_bytes(b"x")
        os.utime(source / "images" / f"{n}.png", ns=(1, 1_600_000_000_123_456_789 + n))
        lines.append(json.dumps({"image": f"{n}.png", "text": "t"}))
    (source / "images" / "7.png").chmod(0o640)
    (source / "prompts.jsonl").write_text("\n".join(lines))
    (source / "fetch.sh").write_text("#!/bin/sh\n")
    (source / "fetch.sh").chmod(0o755)
    script(repo, "--local-path", str(source))
    folder = tmp_path / "scratch/websight-v2/data"
    for n in range(COUNT):
        assert (folder / "images" / f"{n}.png").stat().st_mtime_ns == 1_600_000_000_123_456_789 + n
    assert (folder / "images" / "7.png").stat().st_mode & 0o777 == 0o640
    assert (folder / "fetch.sh").stat().st_mode & 0o777 == 0o755


def test_links_become_copies_when_asked_for(repo, tmp_path):
    archive = tmp_path / "linked.tar"
    link = hostile.member(b"d/link", b"", b"2", target=b"../good.txt")
    archive.write_bytes(hostile.tar(hostile.GOOD, link))
    options = ["--local-path", str(archive), "--dest", str(tmp_path / "linked"), "--skip-verify"]
    assert "'d/link': a symbolic link to 'good.txt'" in script(repo, *options, code=1)
    assert not (tmp_path / "linked").exists()
    script(repo, *options, "--links", "copy")
    assert (tmp_path / "linked" / "d" / "link").read_text() == "good"


def slurm_file(repo, *changes):
    """The SLURM file with some of its lines set."""
    path = repo / "slurm" / "download_dataset.slurm"
    text = path.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    (repo / "logs").mkdir(exist_ok=True)
    return str(path)


def test_the_slurm_file_has_a_limit_and_a_log(repo):
    text = (repo / "slurm" / "download_dataset.slurm").read_text()
    for line in ("--time=04:00:00", "--output=logs/download_dataset_%j.out"):
        assert f"#SBATCH {line}\n" in text


def test_the_slurm_file_by_hand(repo, url, tmp_path):
    assert "exactly one of" in call(repo, "bash", slurm_file(repo), code=2)
    file = slurm_file(repo, ('DOWNLOAD_URL=""', f'DOWNLOAD_URL="{url}"'))
    said = call(repo, "bash", file)
    assert "✓ Dataset verification passed!" in said
    assert "ended with status 0" in said
    assert there(tmp_path) == COUNT
    archive = tmp_path / "web" / "websight-v2.tar.gz"
    file = slurm_file(
        repo,
        (f'DOWNLOAD_URL="{url}"', 'DOWNLOAD_URL=""'),
        ('LOCAL_PATH=""', f'LOCAL_PATH="{archive}"'),
        ("OPTIONS=()", "OPTIONS=(--force)"),
    )
    assert "✓ Dataset verification passed!" in call(repo, "bash", file)


class Stalling(SimpleHTTPRequestHandler):
    """Gives half of the archive, and then nothing."""

    asked = threading.Event()
    go = threading.Event()

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(websight())))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        data = websight()
        self.wfile.write(data[: len(data) // 2])
        self.asked.set()
        self.go.wait(30)

    def log_message(self, *_args):
        pass


def test_a_job_that_is_told_to_end_ends(repo, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stalling)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/a.tar.gz"
        file = slurm_file(repo, ('DOWNLOAD_URL=""', f'DOWNLOAD_URL="{address}"'))
        job = subprocess.Popen(
            ["bash", file], cwd=repo, env=environment(), text=True, stdout=-1, stderr=-2
        )
        assert Stalling.asked.wait(40)
        job.send_signal(signal.SIGTERM)
        said, _ = job.communicate(timeout=40)
        assert job.returncode == 143, said
        assert "ended with status 143" in said
        assert there(tmp_path) is None
    finally:
        Stalling.go.set()
        server.shutdown()
        server.server_close()


def test_the_slurm_file_on_a_cluster(repo, tmp_path, slurm):
    archive = tmp_path / "web" / "websight-v2.tar.gz"
    file = slurm_file(repo, ('LOCAL_PATH=""', f'LOCAL_PATH="{archive}"'))
    kept = {k: v for k, v in slurm.env.items() if not k.startswith("TIEREDSTORE_")}
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{kept['PATH']}"
    done = subprocess.run(
        ["sbatch", "--parsable", file],
        cwd=repo,
        env={**kept, "PATH": path, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    number = done.stdout.strip()
    slurm.wait(number)
    log = (repo / "logs" / f"download_dataset_{number}.out").read_text()
    assert "✓ Dataset verification passed!" in log, log
    assert there(tmp_path) == COUNT
