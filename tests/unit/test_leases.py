"""Locks and leases as files: names, waiting, being told, and who takes over."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from tieredstore import leases
from tieredstore.errors import LeaseTimeout


@pytest.fixture(params=[leases.file_lock, leases.soft_lease])
def lease(request, tmp_path):
    def taken(key, timeout=5.0, on_wait=lambda who: None):
        return request.param(str(tmp_path), key, timeout, on_wait)

    return taken


def test_lock_names_are_readable_distinct_and_short():
    keys = ["a/b", "a_b", "a b", "a", "ä", "x" * 500, "x" * 501, "../up"]
    names = [leases.lock_name(k) for k in keys]
    assert len(set(names)) == len(keys)
    for name in names:
        assert "/" not in name
        assert len(name.encode()) < 256
        assert not name.startswith(".")
    assert leases.lock_name("a/b").startswith("a_b-")


def test_a_second_holder_is_refused_in_time_and_told_who_holds_it(lease):
    with lease("key"):
        since = time.monotonic()
        with pytest.raises(LeaseTimeout, match="still held"):
            with lease("key", timeout=0.2):
                pass
        assert time.monotonic() - since < 3
        with pytest.raises(LeaseTimeout):
            with lease("key", timeout=0):
                pass
    with lease("key", timeout=0):
        pass


def test_who_waits_is_told_now_and_then(lease, monkeypatch):
    monkeypatch.setattr(leases, "_TELL_EVERY", 0.2)
    told = []
    held, waiting = threading.Event(), threading.Event()

    def first():
        with lease("key"):
            held.set()
            waiting.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    held.wait(10)

    def hear(who):
        told.append(who)
        if len(told) == 2:
            waiting.set()

    with lease("key", None, hear):
        pass
    thread.join(10)
    assert len(told) >= 2
    host = socket.gethostname()
    assert set(told) <= {"another process", f"process {os.getpid()} on {host}"}


def test_eight_threads_take_turns(lease):
    inside, most = [0], [0]

    def work():
        with lease("key", 60):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (inside, most) == ([0], [1])


HOLD = """
import sys, time
from tieredstore import leases
with getattr(leases, sys.argv[1])(sys.argv[2], "key", 5, print):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(("kind", "longest"), [("file_lock", 2.0), ("soft_lease", 20.0)])
def test_the_lease_of_a_killed_process_is_taken_over(tmp_path, kind, longest):
    (tmp_path / "length.json").write_text('{"seconds": 2.0}')
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, kind, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(LeaseTimeout):
        with getattr(leases, kind)(str(tmp_path), "key", 0.2, lambda who: None):
            pass
    holder.kill()
    holder.wait(10)
    holder.stdout.close()
    since = time.monotonic()
    with getattr(leases, kind)(str(tmp_path), "key", 30, lambda who: None):
        assert time.monotonic() - since < longest


def test_a_soft_lease_outlives_its_length_while_it_is_held(tmp_path):
    (tmp_path / "length.json").write_text('{"seconds": 1.0}')
    with leases.soft_lease(str(tmp_path), "key", 5, lambda who: None):
        with pytest.raises(LeaseTimeout):
            with leases.soft_lease(str(tmp_path), "key", 3, lambda who: None):
                pass


def test_the_length_is_recorded_once_for_all(tmp_path):
    with leases.soft_lease(str(tmp_path), "key", 5, lambda who: None):
        recorded = json.loads((tmp_path / "length.json").read_text())
    assert recorded == {"seconds": leases.LEASE_LENGTH}
    (tmp_path / "length.json").write_text('{"seconds": 7}')
    assert leases._recorded_length(str(tmp_path)) == 7.0
    for bad in ("", "[]", '{"seconds": 0}', '{"seconds": 1e9}', '{"seconds": "x"}', "{}"):
        (tmp_path / "length.json").write_text(bad)
        assert leases._recorded_length(str(tmp_path)) == leases.LEASE_LENGTH
    assert [n for n in os.listdir(tmp_path) if "length.json." in n] == []


@pytest.mark.parametrize("kind", [leases.file_lock, leases.soft_lease])
def test_who_waits_where_a_volume_goes_away_makes_no_folder_in_its_place(tmp_path, kind):
    volume = tmp_path / "volume"
    volume.mkdir()
    gone = tmp_path / "gone"

    def go_away(_):
        volume.rename(gone)

    with kind(str(volume), "key", None, lambda _: None):
        with pytest.raises(OSError, match="No such file"):
            with kind(str(volume), "key", 10.0, go_away):
                pass
        assert not volume.exists()


def test_a_marker_that_names_nobody_is_taken_over_soon(tmp_path):
    """Its maker was killed before it wrote its name, or it was an flock of the same name."""
    with leases.file_lock(str(tmp_path), "key", 1, print):
        pass
    path = tmp_path / leases.lock_name("key")
    path.touch()
    assert path.stat().st_size == 0
    with leases.soft_lease(str(tmp_path), "key", 15, lambda _: None):
        assert path.stat().st_size > 0


class Stop(BaseException):
    """What a thread that works is interrupted with."""


def interrupted_at(point, work):
    """Do ``work``; raise at its ``point``-th call of a function or return from one in C."""
    seen = 0

    def look(frame, event, arg):
        nonlocal seen
        inside = frame.f_code.co_filename
        if event in {"call", "c_return"} and ("filelock" in inside or inside == leases.__file__):
            seen += 1
            if seen == point:
                sys.setprofile(None)
                raise Stop

    sys.setprofile(look)
    try:
        work()
    except Stop:
        return True
    finally:
        sys.setprofile(None)
    return False


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of what it cuts
def test_wherever_its_holder_is_interrupted_no_marker_stays(tmp_path):
    """An interruption comes where a call returns: also where the file is made, and nobody knows."""
    path = tmp_path / leases.lock_name("key")

    def work():
        with leases.soft_lease(str(tmp_path), "key", 5, lambda _: None):
            pass

    work()
    point, stayed = 1, []
    while interrupted_at(point, work):
        if path.exists():
            gc.collect()  # a block that was never entered is left when nobody holds it any more
        if path.exists():
            stayed.append(point)
            path.unlink()
        point += 1
    assert point > 100
    assert stayed == []
