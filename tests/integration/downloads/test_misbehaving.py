"""Downloads from servers that misbehave, and the command: each ends right or in one clear line."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from tieredstore_tests_giving import FILES, MIB, TAR, found, left, options, refused, tar

from datasets_prep.download import DownloadOptions, download
from datasets_prep.errors import DownloadError

# -- servers that misbehave ---------------------------------------------------------------------


def breaks_off(asked):
    """The long answer ends after a while, and nothing more is given."""
    if not asked.span:
        return
    start, end = asked.span
    if end - start > MIB:
        asked.body = asked.body[: 4 * MIB]
        asked.headers["Content-Length"] = str(end - start)
        asked.handler.close_connection = True
    elif start:
        asked.status = 403


def test_a_page_in_place_of_an_archive(tmp_path, archived):
    (archived.root / "data.tar.gz").write_bytes(b"\n<!DOCTYPE html><html>please log in</html>")
    refused(archived, tmp_path, "a web page, where an archive was expected")


@pytest.mark.parametrize("extracts", [True, False])
def test_a_file_that_changes_half_way(tmp_path, archived, extracts, soon):
    gets = []

    def fault(asked):
        gets.extend([1] if asked.method == "GET" else [])
        if len(gets) > 1:
            asked.headers["ETag"] = '"another"'

    archived.fault = fault
    refused(archived, tmp_path, "changed while it was read", extract=extracts)


def test_a_file_that_changed_between_two_days(tmp_path, archived, soon):
    archived.fault = breaks_off
    refused(archived, tmp_path, "denies access")
    assert left(tmp_path)
    other = {**FILES, "more": b"more"}
    (archived.root / "data.tar.gz").write_bytes(tar(files=other))
    archived.fault = None
    assert found(download(options(archived, tmp_path)).path) == other


@pytest.mark.parametrize("by", [-1000, 1000])
def test_a_server_that_lies_about_the_length(tmp_path, archived, soon, by):
    def fault(asked):
        if asked.method == "HEAD":
            asked.headers["Content-Length"] = str(len(TAR) + by)

    archived.fault = fault
    refused(archived, tmp_path, "changed while it was read|bytes")


def test_a_server_that_stalls(tmp_path, archived, soon):
    ended = threading.Event()

    def fault(asked):
        if not asked.span or asked.span[1] - asked.span[0] <= MIB:
            return asked.span and asked.span[0] and ended.wait(20)
        whole, asked.body = asked.body, asked.body[: 3 * MIB]
        asked.headers["Content-Length"] = str(len(whole))
        asked.answer()
        return ended.wait(20)

    archived.fault = fault
    began = time.monotonic()
    refused(archived, tmp_path, "no answer within")
    assert time.monotonic() - began < 15
    ended.set()


def test_a_server_that_sends_another_range(tmp_path, archived, soon):
    def fault(asked):
        if asked.span and asked.span[1] - asked.span[0] > MIB:
            start, end = asked.span
            asked.headers["Content-Range"] = f"bytes {start - 1}-{end - 2}/{len(TAR)}"

    archived.fault = fault
    refused(archived, tmp_path, "were asked for, the answer says")


def test_what_is_not_there_is_one_line(tmp_path, archived, soon):
    refused(archived, tmp_path, "no such file", url=f"{archived.url}/nothing.tar.gz")
    refused(
        archived,
        tmp_path,
        "HTTP has no listing; ask .*give the address of one file",
        url=f"{archived.url}/folder/",
    )
    with pytest.raises(DownloadError, match="not there"):
        download(DownloadOptions(local_path=str(tmp_path / "nothing"), dest=tmp_path / "out"))


# -- the command --------------------------------------------------------------------------------


def command(*words, cwd, **more):
    environment = {**os.environ, "NO_PROXY": "*"}
    whole = [sys.executable, "-m", "datasets_prep.cli", "download", *words]
    return subprocess.Popen(
        whole,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **more,
    )


def test_ctrl_c_keeps_what_arrived_and_says_so(tmp_path, archived):
    data = random.Random(2).randbytes(40 * MIB)
    (archived.root / "large").write_bytes(data)
    archived.fault = lambda asked: time.sleep(0.3) if asked.span and asked.span[0] else None
    words = ["--url", f"{archived.url}/large", "--dest", "out", "--no-extract"]
    process = command(*words, cwd=tmp_path)
    for _ in range(3000):
        if any(p.stat().st_size for p in tmp_path.glob(".tieredstore/part/*/arrived")):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert "What has arrived is kept: run the same command to go on" in said
    assert "Traceback" not in said
    again = command(*words, cwd=tmp_path)
    assert again.communicate(timeout=60)[0]
    assert again.returncode == 0
    assert (tmp_path / "out/large").read_bytes() == data


def test_a_job_script_runs_the_same_command(tmp_path):
    words = ["--url", "http://127.0.0.1:9/x.tar.gz", "--dest", "d", "--slurm"]
    process = command(*words, "--slurm-key", "partition=cpu", "--no-extract", cwd=tmp_path)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said
    text = (tmp_path / "slurm/download-d.sh").read_text()
    for part in ('--time="4:00:00"', '--partition="cpu"', "/logs/", "--no-extract", "x.tar.gz"):
        assert part in text, text
    assert f"--dest={tmp_path / 'd'}" in text
    process = command("--url", "http://me:s3cr3t@h/x", "--dest", "d", "--slurm", cwd=tmp_path)
    assert "s3cr3t" not in process.communicate(timeout=60)[0]
    assert process.returncode == 2


def test_ctrl_c_while_an_archive_is_extracted(tmp_path, archived):
    files = {f"images/{n}.png": random.Random(n).randbytes(9000) for n in range(4000)}
    (archived.root / "data.tar").write_bytes(tar("w", files))
    words = ["--url", f"{archived.url}/data.tar", "--dest", "out"]
    process = command(*words, cwd=tmp_path)
    for _ in range(6000):
        if any(tmp_path.glob(".tieredstore/stage/*/files/images/*")):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    archived.asked.clear()
    assert (
        found(download(options(archived, tmp_path, url=f"{archived.url}/data.tar")).path) == files
    )
