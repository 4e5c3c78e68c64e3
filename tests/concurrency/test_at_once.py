"""Several processes on one artifact at once: with locks that work, and with locks that lie."""

from __future__ import annotations

import time

import pytest

LOCKS = pytest.mark.parametrize("no_flock", [False, True], ids=["flock", "no-flock"])
EIGHT = 8


def notes(root, what):
    folder = root / "notes"
    return len(list(folder.glob(f"{what}-*"))) if folder.exists() else 0


@pytest.mark.parametrize("below", ["local", "runpod"])
def test_eight_that_ensure_build_once(crew, root, below):
    orders = [("ensure", {"takes": 0.3, "below": below})] * EIGHT
    started = [crew.start(function, **options) for function, options in orders]
    (root / "go").touch()
    numbers = {crew.answer(process) for process in started}
    assert notes(root, "build") == 1
    assert len(numbers) == 1
    assert crew.all(("verify", {}))[0] == {"local": True, "vol": True}


@pytest.mark.parametrize("below", ["local", "runpod"])
def test_eight_that_ensure_without_locks_all_get_whole_results(crew, root, below):
    started = [crew.start("ensure", takes=0.1, no_flock=True, below=below) for _ in range(EIGHT)]
    (root / "go").touch()
    for process in started:
        assert crew.answer(process) > 0
    assert 1 <= notes(root, "build") <= EIGHT
    assert crew.all(("verify", {}))[0] == {"local": True, "vol": True}


def test_without_locks_soft_leases_of_the_volume_still_let_one_build(crew, root):
    """Each on a node of its own: only the volume is shared, and its leases need no flock."""
    started = [
        crew.start("ensure", takes=0.3, no_flock=True, below="runpod", local=f"node{i}")
        for i in range(4)
    ]
    (root / "go").touch()
    numbers = {crew.answer(process) for process in started}
    assert notes(root, "build") == 1
    assert len(numbers) == 1


def test_when_the_builder_is_killed_exactly_one_other_builds(crew, root):
    (root / "go").touch()
    first = crew.start("ensure", takes=1.0, dies=True)
    while not notes(root, "build"):
        time.sleep(0.005)
    others = [crew.start("ensure", takes=0.1) for _ in range(4)]
    assert first.wait(30) == -9
    numbers = {crew.answer(process) for process in others}
    assert len(numbers) == 1
    assert notes(root, "build") == 2


@LOCKS
@pytest.mark.parametrize("how", ["exchange", "move-aside", "in-place"])
def test_readers_see_old_or_new_during_replacements(crew, root, how, no_flock):
    options = {"no_flock": no_flock, "no_exchange": how == "move-aside"}
    crew.all(("make", {"foreign": how == "in-place"}))
    readers = [crew.start("read", **options) for _ in range(2)]
    keeper = None
    if how != "in-place":
        keeper = crew.start("keep_reading", **options)
        while not (root / "held").exists():
            time.sleep(0.005)
    times = 80 if how != "in-place" else 30
    crew.answer(crew.start("replace", times=times, **options))
    for reader in readers:
        seen = crew.answer(reader)
        assert seen["seen"] >= 3, seen
        assert seen["reads"] >= 10, seen
    if keeper is not None:
        assert crew.answer(keeper) >= 0
    if how == "in-place":
        assert (root / "local" / "set" / "prepare.py").read_text() == "mine"


@LOCKS
def test_different_files_of_one_generation_are_restored_at_once(crew, root, no_flock):
    crew.all(("put_below", {"number": 7}))
    for attempt in range(2):
        subsets = (["a"], ["d"], ["b/c"], ["a", "d"], None)
        started = [crew.start("restore", files=files, no_flock=no_flock) for files in subsets]
        time.sleep(0.25)
        (root / "go").touch()
        assert [crew.answer(process) for process in started] == [7] * len(subsets), attempt
        assert crew.all(("verify", {}))[0]["local"]
        (root / "go").unlink()
        crew.all(("evict_local", {}))


@LOCKS
@pytest.mark.parametrize("below", ["local", "runpod"])
def test_two_promotes_at_once(crew, root, no_flock, below):
    crew.all(("make", {"number": 3}))
    options = {"no_flock": no_flock, "below": below}
    started = [crew.start("promote", **options) for _ in range(3)]
    time.sleep(0.25)
    (root / "go").touch()
    for process in started:
        assert crew.answer(process)[0] in {"copied", "present"}
    assert crew.all(("verify", {}))[0] == {"local": True, "vol": True}


@LOCKS
def test_restores_while_the_lower_tier_is_replaced(crew, root, no_flock):
    crew.all(("put_below", {"local": "other", "number": 0}))
    readers = [
        crew.start("restore_again_and_again", local=f"node{i}", no_flock=no_flock) for i in range(2)
    ]
    crew.answer(crew.start("replace_below", local="other", times=40, no_flock=no_flock))
    for reader in readers:
        assert crew.answer(reader) >= 3
