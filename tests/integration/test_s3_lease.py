"""Leases in a bucket: processes that take turns, are killed, stand still, or have a wrong clock."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from tieredstore.backends.s3 import S3Backend
from tieredstore.backends.s3 import lease as s3_lease
from tieredstore.backends.s3.lease import LeaseObject
from tieredstore.errors import LeaseTimeout

LENGTH = 2.0  # seconds; what processes of these tests write into their leases
_numbers = itertools.count()


@pytest.fixture
def server(moto, monkeypatch):
    for key, value in moto.environment.items():
        monkeypatch.setenv(key, value)
    return moto


class Short(S3Backend):
    lease_length = LENGTH


@pytest.fixture
def made(server):
    """Make a backend on one fresh bucket, the same one each time."""
    url = server.make_bucket(f"leases-{next(_numbers)}")
    return lambda: Short(url, server.url)


def there(backend, key="key"):
    return LeaseObject(backend.objects, backend.heads, key).look()


def ignore(who):
    """Nobody is told."""


HOLD = """
import sys
from tieredstore.backends.s3 import S3Backend
S3Backend.lease_length = float(sys.argv[3])
with S3Backend(sys.argv[1], sys.argv[2]).lease("key", 30, print):
    print("held", flush=True)
    sys.stdin.readline()
print("let go", flush=True)
"""


@pytest.fixture
def hold(made, server):
    """Start a process that holds the lease until it gets a line, or is ended."""
    started = []

    def start(*before, length=LENGTH, **environment):
        command = [*before, sys.executable, "-c", HOLD, made().place, server.url, str(length)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        started.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


WORK = """
import os, sys, time
from tieredstore.backends.s3 import S3Backend
url, endpoint, mark = sys.argv[1:]
for _ in range(3):
    with S3Backend(url, endpoint).lease("key", 60, lambda who: None):
        os.mkdir(mark)  # fails where another is inside
        time.sleep(0.02)
        os.rmdir(mark)
"""


def test_of_many_processes_one_is_inside(made, server, tmp_path):
    command = [sys.executable, "-c", WORK, made().place, server.url, str(tmp_path / "inside")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    ended = [process.communicate(timeout=90) for process in processes]
    assert [(p.returncode, said[1]) for p, said in zip(processes, ended, strict=True)] == [
        (0, b"")
    ] * 4
    assert there(made()) is None


def test_a_killed_holder_is_taken_over_in_about_the_length(made, hold):
    holder = hold()
    holder.kill()
    holder.wait(10)
    with pytest.raises(LeaseTimeout, match=f"by process {holder.pid} on "):
        with made().lease("key", LENGTH / 2, ignore):
            pass
    since = time.monotonic()
    with made().lease("key", 30, ignore):
        assert LENGTH <= time.monotonic() - since < LENGTH + 4
    assert there(made()) is None


def test_a_holder_that_stood_still_leaves_anothers_lease_alone(made, hold):
    holder = hold()
    os.kill(holder.pid, signal.SIGSTOP)
    with made().lease("key", 30, ignore):
        os.kill(holder.pid, signal.SIGCONT)
        time.sleep(LENGTH)  # it would have refreshed it meanwhile, more than once
        assert there(made()).note.pid == os.getpid()
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"let go\n"
        assert there(made()).note.pid == os.getpid()
    assert there(made()) is None


def test_a_lease_outlives_its_length_while_it_is_held(made, hold):
    hold()
    with pytest.raises(LeaseTimeout):
        with made().lease("key", 1.5 * LENGTH, ignore):
            pass


def test_the_length_that_counts_is_the_one_in_the_lease(made, hold):
    holder = hold(length=4.0)
    holder.kill()
    with pytest.raises(LeaseTimeout):
        with made().lease("key", LENGTH + 0.5, ignore):
            pass


def test_a_wrong_clock_does_not_matter(made, hold):
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed (apt-get install faketime)")
    kept = {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}  # no machine sets that one wrong
    holder = hold("faketime", "-f", "-9d", **kept)
    with pytest.raises(LeaseTimeout):
        with made().lease("key", 1.5 * LENGTH, ignore):
            pass
    os.kill(there(made()).note.pid, signal.SIGKILL)  # faketime may be a process of its own
    holder.wait(10)
    since = time.monotonic()
    with made().lease("key", 30, ignore):
        assert LENGTH <= time.monotonic() - since < LENGTH + 4


def test_who_waits_is_told_who_holds_it(made, monkeypatch):
    monkeypatch.setattr(s3_lease, "_TELL_EVERY", 0.3)
    told, held = [], threading.Event()

    def first():
        with made().lease("key", 5, ignore):
            held.set()
            while len(told) < 2:
                time.sleep(0.05)

    thread = threading.Thread(target=first)
    thread.start()
    assert held.wait(30)
    with made().lease("key", 30, told.append):
        pass
    thread.join(10)
    assert all(who.startswith(f"process {os.getpid()} on ") for who in told)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"length": "x"}', b'{"length": 1e999}'])
def test_what_is_no_lease_is_taken_over_like_one(made, monkeypatch, data):
    monkeypatch.setattr(s3_lease, "LEASE_LENGTH", 0.5)
    backend = made()
    backend.objects.put(LeaseObject(backend.objects, backend.heads, "key").path, data)
    with backend.lease("key", 10, ignore):
        assert there(made()).note.pid == os.getpid()


def test_a_dead_server_is_an_error_and_keeps_nobody_who_lets_go(made, moto, make_proxy):
    proxy = make_proxy(int(moto.url.rpartition(":")[2]))
    backend = Short(made().place, proxy.url)
    with backend.lease("key", 5, ignore):
        proxy.stop()
        since = time.monotonic()
    assert time.monotonic() - since < 15
    with made().lease("key", 30, ignore):
        pass


@pytest.mark.parametrize("late", [0.0, 0.15])
def test_interrupted_while_it_is_being_written_it_is_given_back(made, monkeypatch, late):
    """The request arrives all the same, perhaps after the process that sent it was told to end."""
    write, writers = LeaseObject.write, []

    def interrupted(self, note, over):
        writers.append(threading.Timer(late, write, (self, note, over)))
        writers[-1].start()
        if not late:
            writers[-1].join()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LeaseObject, "write", interrupted)
        with pytest.raises(KeyboardInterrupt), made().lease("key", 5, ignore):
            pass
    writers[-1].join(10)
    assert there(made()) is None
