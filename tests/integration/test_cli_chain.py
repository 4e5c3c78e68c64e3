"""The command on chains: several targets, tiers filled on the way, a mount that hangs."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

MNT_DETACH = 2
CONFIG = """
[[tier]]
name = "local"
backend = "local"
path = "{local}"
[[tier]]
name = "scratch"
backend = "local"
path = "scratch"
populate = true
{more}
[[tier]]
name = "far"
backend = "local"
path = "far"
durable = true
[[tier]]
name = "farther"
backend = "local"
path = "farther"
"""


@pytest.fixture
def run(tmp_path):
    """Runs the command in a folder with that configuration and one artifact, ``words``."""
    (tmp_path / "words").write_text("some words")

    def run(*arguments, local="data", more="", **environment):
        (tmp_path / "tieredstore.toml").write_text(CONFIG.format(local=local, more=more))
        return subprocess.run(
            [sys.executable, "-m", "tieredstore.cli", *arguments],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert run("put", "words", "words").returncode == 0
    return run


def test_promote_to_several_tiers_by_name(run):
    done = run("promote", "words", "--to", "farther", "--to", "far", "--to", "farther")
    assert done.stdout.splitlines() == [
        "words: copied in farther, 10 B moved",
        "words: copied in far, 10 B moved",
    ]
    again = json.loads(run("promote", "words", "--to", "far", "--json").stdout)
    assert [tier["action"] for tier in again["tiers"]] == ["present"]


def test_one_target_that_cannot_keeps_no_other_from_it(run, tmp_path):
    (tmp_path / "farther").write_text("no folder")
    failed = run("promote", "words", "--to", "farther", "--to", "far", "--json")
    assert failed.returncode == 1
    tiers = json.loads(failed.stdout)["error"]["tiers"]
    assert [(t["tier"], t["action"]) for t in tiers] == [("farther", "failed"), ("far", "copied")]
    assert failed.stderr.count("error: ") == 1


def test_a_restore_fills_and_says_what_it_could_not_fill(run, tmp_path):
    assert run("promote", "words").returncode == 0
    first = run("restore", "words", local="one")
    assert first.stdout.startswith("words: restored from far to ")
    assert run("restore", "words", local="two").stdout.startswith("words: restored from scratch")
    shutil.rmtree(tmp_path / "scratch")
    (tmp_path / "scratch").write_text("no folder")
    found = run("restore", "words", "--json", local="three")
    assert found.returncode == 0
    document = json.loads(found.stdout)
    assert (document["source"], list(document["skipped"])) == ("far", ["scratch"])


@pytest.fixture
def stopped(tmp_path):
    """A mounted file system that nobody serves: whoever asks it waits."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("mounting with FUSE needs root and /dev/fuse")
    mount = tmp_path / "mount"
    mount.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    served = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={served},rootmode=40000,user_id=0,group_id=0".encode()
    failed = libc.mount(b"nobody", os.fsencode(mount), b"fuse", 0, options)
    if failed:
        os.close(served)
        pytest.skip(f"cannot mount with FUSE here: {os.strerror(ctypes.get_errno())}")
    yield mount
    libc.umount2(os.fsencode(mount), MNT_DETACH)
    os.close(served)


def test_a_mount_that_hangs_is_skipped_and_the_process_ends(run, stopped):
    assert run("promote", "words").returncode == 0
    row = f'[[tier]]\nname = "hung"\nbackend = "runpod"\npath = "{stopped}"\ndeadline = 0.5'
    begun = time.monotonic()
    found = run("restore", "words", "--json", local="one", more=f"{row}\npopulate = true")
    assert found.returncode == 0
    document = json.loads(found.stdout)
    assert document["source"] == "far"
    assert document["skipped"] == {"hung": "tier 'hung': no answer within 0.5 s"}
    failed = run("promote", "words", "--to", "hung", "--to", "farther", local="one", more=row)
    assert failed.returncode == 1
    assert "hung: " in failed.stderr
    assert run("status", local="one", more=row).stdout.count("unreachable") == 1
    assert run("restore", "words", local="one", more=row).stderr == ""
    assert time.monotonic() - begun < 20


def test_a_volume_that_hangs_does_not_keep_a_hit(stopped, tmp_path):
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "words").write_text("some words")

    def plain(*arguments, volume):
        return subprocess.run(
            [sys.executable, "-m", "tieredstore.cli", *arguments],
            cwd=folder,
            env={**os.environ, "TIEREDSTORE_RUNPOD_VOLUME": str(volume)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert plain("put", "words", "words", volume="").returncode == 0
    begun = time.monotonic()
    assert plain("restore", "words", volume=stopped).stdout.startswith("words: already in ")
    assert time.monotonic() - begun < 15
