"""Whom the plugin talks to, and what it says when it cannot: host keys, secrets, time-outs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

import tieredstore
from tieredstore.errors import ConfigError, TierUnavailable
from tieredstore.manifest.records import FileRecord
from tieredstore.testing.samples import Sample, publish, read_artifact
from tieredstore_sftp import SftpBackend

SECRET = "not to be shown"


def fails(backend):
    """What a backend says that cannot be talked to; one line without a secret."""
    with pytest.raises(TierUnavailable) as caught:
        backend.stat("file")
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(backend.place)
    assert SECRET not in text
    return text


# -- host keys ----------------------------------------------------------------------------------


def test_a_server_that_is_not_known_is_refused(connect, tmp_path):
    nowhere = tmp_path / "known" / "hosts"
    assert f"is not in {nowhere}" in fails(connect(tmp_path, known_hosts=str(nowhere)))
    assert not nowhere.exists()


def test_a_server_that_is_not_known_is_written_down_where_told_to(connect, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    nowhere = tmp_path / "known" / "hosts"
    assert connect(tmp_path, known_hosts=str(nowhere), accept_new=True).stat("file").size == 1
    assert connect(tmp_path, known_hosts=str(nowhere)).stat("file").size == 1


@pytest.mark.parametrize("accept_new", [False, True])
def test_another_host_key_than_the_known_one_is_refused(connect, sshd, tmp_path, accept_new):
    wrong = tmp_path / "known_hosts"
    kind, key, *_ = (sshd.folder / "user_key.pub").read_text().split()
    wrong.write_text(f"[127.0.0.1]:{sshd.port} {kind} {key}\n")
    backend = connect(tmp_path, known_hosts=str(wrong), accept_new=accept_new)
    assert f"is not the one in {wrong}" in fails(backend)
    assert len(wrong.read_text().splitlines()) == 1


# -- keys and secrets ---------------------------------------------------------------------------


def test_a_key_with_a_passphrase_opens_with_it_only(connect, sshd, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    key = tmp_path / "key"
    key.write_bytes((sshd.folder / "user_key").read_bytes())
    key.chmod(0o600)
    command = ["ssh-keygen", "-q", "-p", "-P", "", "-N", SECRET, "-f", str(key)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert connect(tmp_path, key=str(key), password=SECRET).stat("file").size == 1
    fails(connect(tmp_path, key=str(key), password=f"{SECRET}, and wrong"))
    fails(connect(tmp_path, key=str(key)))


def test_a_key_that_the_server_does_not_know_is_named(connect, tmp_path):
    key = tmp_path / "other"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(command, check=True)
    assert "does not let" in fails(connect(tmp_path, key=str(key)))
    fails(connect(tmp_path, key=str(tmp_path / "missing")))


def test_a_password_that_is_refused_is_not_shown(connect, tmp_path):
    backend = connect(tmp_path, key=None, password=SECRET)
    fails(backend)
    assert SECRET not in repr(vars(backend._connections))


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"url": f"sftp://me:{SECRET}@host/folder"}, "url holds a password"),
        ({"url": f"https://me:{SECRET}@host/folder"}, "expected sftp://"),
        ({"url": "sftp://host:many/folder"}, "expected sftp://"),
        ({"password": 20261121}, "password: expected text"),
        ({"key": "id_ed25519"}, "expected an absolute path"),
        ({"timeout": 0}, "expected a positive number"),
    ],
)
def test_what_cannot_be_used_is_said_without_secrets(tmp_path, wrong, expected):
    first = {"name": "local", "backend": "local", "path": str(tmp_path)}
    far = {"name": "far", "backend": "sftp", "url": "sftp://host/folder", **wrong}
    with pytest.raises(ConfigError, match=expected) as caught:
        tieredstore.open_store({"tier": [first, far]})
    assert SECRET not in str(caught.value)
    assert "20261121" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "place", "full"),
    [
        ("sftp://me@host/srv/data/", "sftp://host/srv/data", "/srv/data/a"),
        ("sftp://host:2222/~/data", "sftp://host:2222/~/data", "./data/a"),
        ("sftp://host/~", "sftp://host/~", "./a"),
        ("sftp://host", "sftp://host/", "/a"),
        ("sftp://me@[::1]:22/odd #1", "sftp://[::1]/odd #1", "/odd #1/a"),
    ],
)
def test_urls(url, place, full):
    backend = SftpBackend(url)
    assert (backend.place, backend._full("a")) == (place, full)


# -- servers that do not answer, and connections that break ---------------------------------------


def test_a_server_that_says_nothing_is_given_up_in_time(sshd, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"sftp://127.0.0.1:{silent.getsockname()[1]}{tmp_path}"
        since = time.monotonic()
        assert "no connection" in fails(SftpBackend(url, **sshd.options, timeout=0.5))
        assert time.monotonic() - since < 5


def test_nothing_is_printed_when_a_server_is_none(tmp_path):
    program = (
        "import sys, tieredstore_sftp\n"
        "assert 'paramiko' not in sys.modules\n"
        "backend = tieredstore_sftp.SftpBackend(sys.argv[1], password='x', timeout=2)\n"
        "try: backend.stat('file')\n"
        "except OSError as error: print(error)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as wrong:

        def answer():
            with wrong.accept()[0] as one:
                one.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"sftp://127.0.0.1:{wrong.getsockname()[1]}{tmp_path}"
        done = subprocess.run(
            [sys.executable, "-c", program, url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        thread.join(10)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_a_connection_that_broke_is_made_anew(connect, sshd, tmp_path):
    backend = connect(tmp_path / "served")
    sample = publish(backend, "name", Sample.of({"a": b"1", "b/c": b"22"}))
    sshd.kill()
    sshd.start()
    assert read_artifact(backend, "name") == sample.files


def test_a_file_whose_server_was_exchanged_between_two_writes_is_whole(connect, sshd, tmp_path):
    backend = connect(tmp_path / "served")
    data = os.urandom(200_000)
    writer = backend.writer("folder/file", len(data))
    writer.write(0, memoryview(data)[:100_000])
    sshd.kill()
    sshd.start()
    writer.write(100_000, memoryview(data)[100_000:])
    assert list(backend.list("")) == []
    writer.close()
    assert (tmp_path / "served" / "folder" / "file").read_bytes() == data


def test_a_file_that_is_not_whole_is_not_shown(connect, tmp_path):
    backend = connect(tmp_path / "served")
    writer = backend.writer("file", 10)
    writer.write(0, memoryview(b"12345"))
    with pytest.raises(OSError, match="5 bytes written of 10"):
        writer.close()
    writer.abort()
    assert [p for p in (tmp_path / "served").rglob("*") if p.is_file()] == []


def test_a_head_is_never_seen_torn(connect, tmp_path):
    backend = connect(tmp_path / "served")
    samples = [Sample.of({f"f{n}-{i}": b"x" for i in range(9**n)}) for n in range(3)]
    known = {publish(backend, "name", sample).generation for sample in samples}
    over = threading.Event()

    def replace():
        for _ in range(10):
            for sample in samples:
                staging = backend.begin("name", sample.head())
                staging.publish(sample.head(), sample.records, backend.read_head("name").tag)
        over.set()

    thread = threading.Thread(target=replace)
    thread.start()
    reader, seen = connect(tmp_path / "served"), set()
    while not over.is_set():
        head = super(type(backend), reader).read_head("name")
        seen.add(head.head.generation)
    thread.join(30)
    assert seen <= known
    assert len(seen) > 1


def test_a_full_or_forbidden_server_is_one_line(connect, tmp_path):
    (tmp_path / "served").write_bytes(b"a file where the folder should be")
    backend = connect(tmp_path / "served")
    with pytest.raises(TierUnavailable) as caught:
        backend.writer("file", 1).write(0, memoryview(b"x"))
    assert str(caught.value).startswith(f"{backend.place}: ")
    assert "\n" not in str(caught.value)
    assert backend.begin("name", Sample.of({}).head()).holds(FileRecord("a", 1)) is False
