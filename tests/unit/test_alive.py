"""Signs of life: of this process, of dead ones, of others that cannot be seen from here."""

import os
import subprocess
import sys
import time

from tieredstore.mounted import alive


def folder(path):
    return os.open(path, os.O_RDONLY)


def test_own_name_lives_and_that_of_an_ended_process_does_not():
    assert alive.lives(alive.temporary("mark-")) is True
    code = "from tieredstore.mounted import alive; print(alive.temporary('mark-'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert alive.lives(other.stdout.strip()) is False


def test_a_process_that_took_the_number_of_a_dead_one_is_another():
    machine, pid, started, rest = alive.temporary("").split(".")
    assert alive.lives(f"{machine}.{pid}.{int(started) - 1}.{rest}") is False


def test_nothing_is_known_of_other_machines_and_of_other_names():
    _, pid, started, rest = alive.temporary("").split(".")
    assert alive.lives(f"{'a' * 12}.{pid}.{started}.{rest}") is None
    assert alive.lives(f"{'0' * 12}.{pid}.{started}.{rest}") is None
    assert alive.lives("mark-0123456789abcdef") is None


def test_a_dead_process_that_nobody_has_waited_for_is_dead():
    code = "from tieredstore.mounted import alive; print(alive.temporary(''), flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        name = other.stdout.readline().strip()
        until = time.monotonic() + 10
        while alive.lives(name) is not False:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_sign_is_there_while_it_is_held(tmp_path):
    sign = alive.Sign(folder(tmp_path), "20260131t235959-0123456789abcdef")
    (name,) = os.listdir(tmp_path)
    assert alive.key_of(name) == "20260131t235959-0123456789abcdef"
    assert alive.lives(name) is True
    sign.end()
    sign.end()
    assert os.listdir(tmp_path) == []
    sign = alive.Sign(folder(tmp_path), "key")
    del sign
    assert os.listdir(tmp_path) == []


def test_sign_is_refreshed(tmp_path, monkeypatch):
    monkeypatch.setattr(alive, "BEAT", 0.05)
    sign = alive.Sign(folder(tmp_path), "key")
    (path,) = tmp_path.iterdir()
    os.utime(path, (1, 1))
    until = time.monotonic() + 10
    while path.stat().st_mtime < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    path.unlink()  # a collector took it for dead: it is not put back
    time.sleep(0.2)
    assert os.listdir(tmp_path) == []
    sign.end()


def test_a_fork_does_not_end_its_parents_sign(tmp_path):
    sign = alive.Sign(folder(tmp_path), "key")
    pid = os.fork()
    if pid == 0:
        sign.end()
        os._exit(0)
    os.waitpid(pid, 0)
    assert len(os.listdir(tmp_path)) == 1
    sign.end()


def test_ends_with_its_process(tmp_path):
    code = (
        "import os, sys; from tieredstore.mounted import alive; "
        "sign = alive.Sign(os.open(sys.argv[1], os.O_RDONLY), 'key')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert os.listdir(tmp_path) == []
