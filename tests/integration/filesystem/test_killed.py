"""Killed at every step that changes something, while files of an artifact are changed one by one.

Whatever the step: what was closed is there, what was not is there as it was or as it was to be,
the store has it whole and verified, and the next writer goes on.
"""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from tieredstore.filesystem import TieredFileSystem
from tieredstore.mounted import beneath

STEPS = ("rename", "write", "pwrite", "unlink", "mkdir", "rmdir", "fsync", "utime")
OLD = {"set/a": b"old" * 100, "set/b": b"to be removed", "set/sub/e": b"stays"}
EACH = int(os.environ.get("TIEREDSTORE_TEST_FS_EACH", "6"))  # every so many steps


def put(fs):
    fs.pipe_file("set/a", b"new" * 100)


def put_more(fs):
    fs.pipe_file("set/c/d", b"c/d")


def take_out(fs):
    fs.rm("set/b")


def sum_up(fs):
    fs.store.restore("set").close()


def empty(fs):
    fs.rm("set", recursive=True)


def killed_at(step, config, changes):
    """Do the changes in a process that is killed before so many steps; which were done, and how."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        _count(step)
        fs = TieredFileSystem(config, skip_instance_cache=True)
        for change in changes:
            change(fs)
            os.writev(write, [b"."])
        os._exit(0)
    os.close(write)
    with open(read, "rb") as said:
        done = len(said.read())
    return done, os.waitpid(child, 0)[1]


def _count(step):
    left = [step]

    def counted(real):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    beneath.syncfs = counted(beneath.syncfs)


def check(fs, done):
    here = set(fs.find("set"))
    assert fs.cat_file("set/a") in ({b"new" * 100} if done > 0 else {OLD["set/a"], b"new" * 100})
    assert ("set/c/d" in here) or done < 2
    assert ("set/b" not in here) or done < 3
    assert here - {"set/b", "set/c/d"} == {"set/a", "set/sub/e"}
    assert {p: fs.cat_file(p) for p in here & {"set/b", "set/c/d", "set/sub/e"}}.items() <= {
        **OLD,
        "set/c/d": b"c/d",
    }.items()
    assert all(v.ok and v.state == "whole" for v in fs.store.verify("set"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seen", ["as files", "by the store"])
def test_killed_while_files_are_changed(config, quick_path, seen):
    changes = [put, put_more, take_out, sum_up]
    step, status = 1, 1
    while status:
        shutil.rmtree(quick_path / "near", ignore_errors=True)
        fs = TieredFileSystem(config, skip_instance_cache=True)
        with fs.transaction:
            for path, data in OLD.items():
                fs.pipe_file(path, data)
        done, status = killed_at(step, config, changes)
        if seen == "as files":
            assert fs.cat_file("set/sub/e") == OLD["set/sub/e"]
            fs.pipe_file("set/sub/e", OLD["set/sub/e"])
        check(fs, done)
        fs.pipe_file("set/z", b"z")
        assert fs.cat_file("set/z") == b"z"
        fs.store.collect(grace=0.0)
        assert [e.path for tier in fs.store.litter(grace=0.0) for e in tier.litter] == []
        step += EACH
    assert step > 50, "few steps were seen"


@pytest.mark.timeout(600)
def test_killed_while_all_is_removed(config, quick_path):
    step, status = 1, 1
    while status:
        shutil.rmtree(quick_path / "near", ignore_errors=True)
        fs = TieredFileSystem(config, skip_instance_cache=True)
        with fs.transaction:
            for path, data in OLD.items():
                fs.pipe_file(path, data)
        _, status = killed_at(step, config, [empty])
        left = fs.find("set")
        assert left in ([], sorted(OLD))
        if left:
            assert all(v.ok for v in fs.store.verify("set"))
        fs.pipe_file("set/a", b"again")
        assert fs.cat_file("set/a") == b"again"
        step += EACH
