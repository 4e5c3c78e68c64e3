"""`datasets_prep.download`: archives and files, from servers that behave and such that do not."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

import datasets_prep
from datasets_prep.download import DownloadOptions, download
from datasets_prep.download.options import plain_url
from datasets_prep.errors import (
    ArchiveError,
    DownloadError,
    OptionError,
    PrepError,
    VerificationFailed,
)
from tieredstore import TieredStoreError
from tieredstore.backends.http import backend as http_backend

MIB = 1 << 20
SPEC = Path(datasets_prep.__file__).parent / "download/specs/websight.toml"
FILES = {
    "prompts.jsonl": b'{"id": 1}\n' * 1000,
    **{f"images/{n}.png": random.Random(n).randbytes(30_000) for n in range(200)},
    "large.bin": random.Random(1).randbytes(9 * MIB),
}


def tar(mode="w:gz", files=FILES):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def zipped(files=FILES):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return data.getvalue()


TAR = tar()


@pytest.fixture
def web(tmp_path, load_server, monkeypatch):
    (tmp_path / "served").mkdir()
    (tmp_path / "served/data.tar.gz").write_bytes(TAR)
    monkeypatch.setenv("NO_PROXY", "*")
    server = load_server("web").Web(tmp_path / "served")
    yield server
    server.stop()


@pytest.fixture
def soon(monkeypatch):
    """What fails for the moment is given up on soon."""
    usual = http_backend.HttpBackend.__init__

    def init(self, url, headers=None, timeout=0.7, retry_for=1.5):
        usual(self, url, headers, timeout, retry_for)

    monkeypatch.setattr(http_backend.HttpBackend, "__init__", init)


def options(web, tmp_path, **more):
    given = {"url": f"{web.url}/data.tar.gz", "dest": tmp_path / "out", **more}
    return DownloadOptions(**given)


def found(folder):
    paths = [p for p in Path(folder).rglob("*") if p.is_file() and p.name[0] != "."]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def left(tmp_path):
    """What is staged in the destination's store."""
    return [p for area in ("part", "stage") for p in (tmp_path / ".tieredstore" / area).glob("*")]


# -- archives -----------------------------------------------------------------------------------


def test_an_archive_is_fetched_and_extracted(tmp_path, web, capsys):
    done = download(options(web, tmp_path))
    assert found(done.path) == FILES
    assert (done.files, done.hit) == (len(FILES), False)
    assert not (tmp_path / "out.archive").exists()
    assert not left(tmp_path)
    said = capsys.readouterr().out
    assert f"Extracted: {len(FILES)}/{len(FILES)} files" in said
    assert "for the archive" in said
    web.asked.clear()
    assert download(options(web, tmp_path)).hit
    assert not web.asked


def test_the_archive_may_stay(tmp_path, web):
    download(options(web, tmp_path, keep_archive=True, temp_dir=tmp_path / "temp"))
    assert (tmp_path / "temp/out.archive/data.tar.gz").read_bytes() == TAR


@pytest.mark.parametrize("ranges", [True, False])
def test_a_zip_archive_is_read_by_its_list(tmp_path, web, ranges):
    (web.root / "data.zip").write_bytes(zipped())
    if not ranges:
        web.fault = lambda asked: asked.whole() if asked.data is not None else None
    done = download(options(web, tmp_path, url=f"{web.url}/data.zip"))
    assert found(done.path) == FILES


def test_a_server_without_ranges_keeps_no_archive(tmp_path, web, capsys):
    web.fault = lambda asked: asked.whole()
    done = download(options(web, tmp_path, sha256=hashlib.sha256(TAR).hexdigest()))
    assert found(done.path) == FILES
    assert "begins anew" in capsys.readouterr().out
    assert not left(tmp_path)
    with pytest.raises(DownloadError, match=f"expected {'0' * 64}"):
        download(options(web, tmp_path, dest=tmp_path / "other", sha256="0" * 64))
    assert not (tmp_path / "other").exists()


def test_from_a_folder_and_from_a_file(tmp_path, web):
    (tmp_path / "from/images").mkdir(parents=True)
    for path, data in FILES.items():
        (tmp_path / "from" / path).write_bytes(data)
    os.chmod(tmp_path / "from/large.bin", 0o600)
    os.utime(tmp_path / "from/large.bin", (10**9, 10**9))
    done = download(DownloadOptions(local_path=str(tmp_path / "from"), dest=tmp_path / "copy"))
    assert found(done.path) == FILES
    stat = (done.path / "large.bin").stat()
    assert (stat.st_mode & 0o777, stat.st_mtime) == (0o600, 10**9)
    archive = str(web.root / "data.tar.gz")
    right = hashlib.sha256(TAR).hexdigest()
    done = download(DownloadOptions(local_path=archive, dest=tmp_path / "file", sha256=right))
    assert found(done.path) == FILES


def test_a_repository_of_the_hub(tmp_path, load_server, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra 'hf'")
    hub = load_server("hub").Hub()
    hub.start()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    try:
        for path in ("prompts.jsonl", "large.bin"):
            hub.put("me/it", path, FILES[path])
        hub.put("me/it", "data.tar.gz", TAR)
        whole = download(DownloadOptions(hf_repo="me/it", dest=tmp_path / "whole"))
        assert found(whole.path).keys() == {"prompts.jsonl", "large.bin", "data.tar.gz"}
        one = DownloadOptions(hf_repo="me/it", hf_file="data.tar.gz", dest=tmp_path / "one")
        assert found(download(one).path) == FILES
    finally:
        hub.stop()


def test_into_the_tiers_of_a_store(tmp_path, web):
    config = tmp_path / "store.toml"
    config.write_text(
        '[[tier]]\nname = "near"\nbackend = "local"\npath = "near"\n'
        '[[tier]]\nname = "far"\nbackend = "local"\npath = "far"\ndurable = true\n'
    )
    done = download(options(web, tmp_path, dest=None, name="websight", config=config))
    assert found(done.path) == FILES
    assert found(tmp_path / "far/websight") == FILES


# -- what is there already ----------------------------------------------------------------------


def test_another_dataset_is_replaced_only_when_told_to(tmp_path, web):
    download(options(web, tmp_path))
    other = {"other": b"x"}
    (web.root / "other.tar").write_bytes(tar("w", other))
    url = f"{web.url}/other.tar"
    with pytest.raises(DownloadError, match=r"holds a dataset from .*data.tar.gz; use --force"):
        download(options(web, tmp_path, url=url))
    (web.root / "broken.tar.gz").write_bytes(TAR[: len(TAR) // 2])
    with pytest.raises(ArchiveError):
        download(options(web, tmp_path, url=f"{web.url}/broken.tar.gz", force=True))
    assert found(tmp_path / "out") == FILES
    assert found(download(options(web, tmp_path, url=url, force=True)).path) == other


def test_files_of_others_are_left_alone(tmp_path, web):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    with pytest.raises(DownloadError, match="no download has put there"):
        download(options(web, tmp_path))
    assert not web.asked


def test_a_place_that_cannot_be_written_is_said_before_anything_moves(tmp_path, web):
    (tmp_path / "file").write_text("")
    with pytest.raises((DownloadError, TieredStoreError, OSError)):
        download(options(web, tmp_path, dest=tmp_path / "file/out"))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"url": "http://h/x", "local_path": "x"},
        {"url": "nothing"},
        {"local_path": "x", "hf_file": "f"},
        {"hf_repo": "nobody"},
        {"url": "http://h/x", "sha256": "abc"},
        {"url": "http://h/x", "connections": 0},
    ],
)
def test_options_that_cannot_be_used(given, tmp_path):
    with pytest.raises(OptionError):
        DownloadOptions(dest=tmp_path, **given)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (
            "https://me:word@h/f?X-Amz-Signature=1&X-Amz-Date=2",
            "https://h/f?X-Amz-Signature=3",
            True,
        ),
        ("https://h/f?id=1&token=abc", "https://h/f?id=1&token=def", True),
        ("https://h/f?id=1", "https://h/f?id=2", False),
        ("https://h/f", "https://h/g", False),
    ],
)
def test_what_tells_one_url_from_another_is_no_secret(one, other, same):
    assert (plain_url(one) == plain_url(other)) is same
    assert not any(secret in plain_url(one) for secret in ("word", "abc", "id=1"))


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


def refused(web, tmp_path, match, **more):
    with pytest.raises((PrepError, TieredStoreError), match=match) as caught:
        download(options(web, tmp_path, **more))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_page_in_place_of_an_archive(tmp_path, web):
    (web.root / "data.tar.gz").write_bytes(b"\n<!DOCTYPE html><html>please log in</html>")
    refused(web, tmp_path, "a web page, where an archive was expected")


@pytest.mark.parametrize("extracts", [True, False])
def test_a_file_that_changes_half_way(tmp_path, web, extracts, soon):
    gets = []

    def fault(asked):
        gets.extend([1] if asked.method == "GET" else [])
        if len(gets) > 1:
            asked.headers["ETag"] = '"another"'

    web.fault = fault
    refused(web, tmp_path, "changed while it was read", extract=extracts)


def test_a_file_that_changed_between_two_days(tmp_path, web, soon):
    web.fault = breaks_off
    refused(web, tmp_path, "denies access")
    assert left(tmp_path)
    other = {**FILES, "more": b"more"}
    (web.root / "data.tar.gz").write_bytes(tar(files=other))
    web.fault = None
    assert found(download(options(web, tmp_path)).path) == other


@pytest.mark.parametrize("by", [-1000, 1000])
def test_a_server_that_lies_about_the_length(tmp_path, web, soon, by):
    def fault(asked):
        if asked.method == "HEAD":
            asked.headers["Content-Length"] = str(len(TAR) + by)

    web.fault = fault
    refused(web, tmp_path, "changed while it was read|bytes")


def test_a_server_that_stalls(tmp_path, web, soon):
    ended = threading.Event()

    def fault(asked):
        if not asked.span or asked.span[1] - asked.span[0] <= MIB:
            return asked.span and asked.span[0] and ended.wait(20)
        whole, asked.body = asked.body, asked.body[: 3 * MIB]
        asked.headers["Content-Length"] = str(len(whole))
        asked.answer()
        return ended.wait(20)

    web.fault = fault
    began = time.monotonic()
    refused(web, tmp_path, "no answer within")
    assert time.monotonic() - began < 15
    ended.set()


def test_a_server_that_sends_another_range(tmp_path, web, soon):
    def fault(asked):
        if asked.span and asked.span[1] - asked.span[0] > MIB:
            start, end = asked.span
            asked.headers["Content-Range"] = f"bytes {start - 1}-{end - 2}/{len(TAR)}"

    web.fault = fault
    refused(web, tmp_path, "were asked for, the answer says")


def test_what_is_not_there_is_one_line(tmp_path, web, soon):
    refused(web, tmp_path, "no such file", url=f"{web.url}/nothing.tar.gz")
    refused(
        web,
        tmp_path,
        "HTTP has no listing; ask .*give the address of one file",
        url=f"{web.url}/folder/",
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


def test_ctrl_c_keeps_what_arrived_and_says_so(tmp_path, web):
    data = random.Random(2).randbytes(64 * MIB)
    (web.root / "large").write_bytes(data)
    web.fault = lambda asked: time.sleep(0.3) if asked.span and asked.span[0] else None
    words = ["--url", f"{web.url}/large", "--dest", "out", "--no-extract"]
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


# -- specifications -----------------------------------------------------------------------------


def dataset(tmp_path, count, images):
    """A small dataset like WebSight, and its specification."""
    records = [{"id": n, "image": f"{n}.png", "prompt": "p"} for n in range(count)]
    files = {"prompts.jsonl": "".join(json.dumps(r) + "\n" for r in records).encode()}
    files |= {f"images/{n}.png": b"\x89PNG\r\n\x1a\n" + bytes(100) for n in range(images)}
    spec = tmp_path / "spec.toml"
    spec.write_text(
        SPEC.read_text().replace("79413", str(count)).replace("= true", "= false"),
    )
    return {f"websight-v2/{path}": data for path, data in files.items()}, str(spec)


def test_what_fails_a_specification_is_not_published_and_not_fetched_again(tmp_path, web, capsys):
    files, spec = dataset(tmp_path, 20, 19)
    (web.root / "data.tar.gz").write_bytes(tar(files=files))
    refused(web, tmp_path, "not what the specification says", spec=spec)
    assert "19" in capsys.readouterr().out
    web.asked.clear()
    done = download(options(web, tmp_path))  # without a specification it is taken as it is
    assert len(found(done.path)) == 20
    assert not [a for a in web.asked if a.span and a.span[0] > 0]


def test_what_is_there_is_compared_with_the_specification(tmp_path, web):
    files, spec = dataset(tmp_path, 20, 20)
    (web.root / "data.tar.gz").write_bytes(tar(files=files))
    done = download(options(web, tmp_path, spec=spec))
    assert (done.path / "prompts.jsonl").is_file()  # the folder around it is left away
    assert download(options(web, tmp_path, spec=spec)).hit
    (done.path / "images/3.png").unlink()
    with pytest.raises(VerificationFailed, match=r"is there already.*use --force"):
        download(options(web, tmp_path, spec=spec))
    again = download(options(web, tmp_path, spec=spec, force=True))
    assert len(found(again.path)) == 21
    assert not again.hit


def test_a_dataset_that_somebody_has_put_there_is_a_hit_when_it_is_right(tmp_path, web):
    files, spec = dataset(tmp_path, 20, 20)
    for path, data in files.items():
        target = tmp_path / "out" / path.removeprefix("websight-v2/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    assert download(options(web, tmp_path, spec=spec)).hit
    assert not web.asked
