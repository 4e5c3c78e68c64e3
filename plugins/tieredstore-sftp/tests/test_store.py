"""A store with an SFTP tier, from a TOML; its server is killed in the middle and started again."""

from __future__ import annotations

import os

import pytest

import tieredstore
import tieredstore_sftp.steps
from tieredstore.errors import PromoteFailed, TieredStoreError
from tieredstore.reporter import Reporter

SIZE = 9 << 20  # more than one request of the backend, so that a file can break half-way
FILES = {f"part-{n}.bin": bytes([n]) * n + os.urandom(SIZE) for n in range(6)}
TOTAL = sum(map(len, FILES.values()))


class Breaking(Reporter):
    """Breaks the server when this many bytes are done, and counts all that are copied."""

    def __init__(self, after, then):
        self.after, self.then = after, then
        self.done = 0
        self.files = []

    def advanced(self, size):
        self.done += size
        if self.then is not None and self.done >= self.after:
            then, self.then = self.then, None
            then()

    def copied(self, file, source, target):
        self.files.append(file)


@pytest.fixture
def opened(sshd, tmp_path):
    """Opens a store of another machine (a first tier of its own) over the same SFTP tier."""
    made = []

    def open_store(machine, reporter=None):
        file = tmp_path / f"{machine}.toml"
        options = "".join(f"{key} = {value!r}\n" for key, value in sshd.options.items())
        file.write_text(
            f'[[tier]]\nname = "local"\nbackend = "local"\npath = "{machine}"\n'
            f'[[tier]]\nname = "far"\nbackend = "sftp"\ndurable = true\n'
            f'url = "{sshd.url(tmp_path / "served")}"\n{options}'
        )
        store = tieredstore.open_store(file, reporter=reporter)
        made.append(store.tier("far").backend)
        return store

    yield open_store
    for backend in made:
        backend.close()


@pytest.fixture
def kept(opened):
    """A store whose first tier holds the artifact."""
    store = opened("one")
    with store.create("name", recipe={"preparer": "none", "version": "1"}) as stage:
        for file, data in FILES.items():
            (stage.path / file).write_bytes(data)
    return store


@pytest.fixture
def fetched(monkeypatch):
    """How many bytes each range held that was read from the server."""
    sizes = []
    real = tieredstore_sftp.steps.read_range

    def counted(*args):
        got = real(*args)
        sizes.append(got)
        return got

    monkeypatch.setattr(tieredstore_sftp.steps, "read_range", counted)
    return sizes


def held(got):
    return {path.name: path.read_bytes() for path in got.path.iterdir() if path.suffix == ".bin"}


def parts(tmp_path):
    """Files below a temporary name, and published ones."""
    served = tmp_path / "served"
    files = [p for p in served.rglob("*") if p.is_file()]
    part = [p for p in files if ".tieredstore" in p.relative_to(served).parts]
    return part, [p for p in files if p not in part]


def test_promoted_here_and_restored_there(kept, opened):
    assert [o.action for o in kept.promote("name")] == ["copied"]
    other = opened("two")
    with other.restore("name") as got:
        assert (got.source, held(got)) == ("far", FILES)
    assert [(v.ok, v.size) for v in other.verify("name", ["far"])] == [(True, TOTAL)]


def test_restore_goes_on_when_the_server_comes_back_at_once(kept, opened, sshd):
    kept.promote("name")

    def again():
        sshd.kill()
        sshd.start()

    reporter = Breaking(TOTAL // 3, again)
    with opened("two", reporter).restore("name") as got:
        assert held(got) == FILES
        assert got.skipped == {}
    assert reporter.then is None


def test_restore_that_was_broken_fails_with_a_line_and_is_gone_on_with(
    kept, opened, sshd, tmp_path, fetched
):
    kept.promote("name")
    with pytest.raises((OSError, TieredStoreError)) as caught:
        opened("two", Breaking(TOTAL // 2, sshd.kill)).restore("name")
    assert "\n" not in str(caught.value)
    assert f"127.0.0.1:{sshd.port}" in str(caught.value)
    assert not (tmp_path / "two" / "name").exists()
    sshd.start()
    fetched.clear()
    with opened("two").restore("name") as got:
        assert held(got) == FILES
    assert 0 < sum(n for n in fetched if n >= 4096) <= TOTAL - TOTAL // 2


def test_promote_goes_on_when_the_server_comes_back_at_once(kept, opened, sshd, tmp_path):
    def again():
        sshd.kill()
        sshd.start()

    reporter = Breaking(TOTAL // 3, again)
    assert [o.action for o in opened("one", reporter).promote("name")] == ["copied"]
    assert reporter.then is None
    assert parts(tmp_path)[0] == []
    with opened("two").restore("name") as got:
        assert held(got) == FILES


def test_promote_that_was_broken_shows_nothing_and_moves_the_rest(kept, opened, sshd, tmp_path):
    broken = Breaking(TOTAL // 2, sshd.kill)
    with pytest.raises(PromoteFailed) as caught:
        opened("one", broken).promote("name")
    assert "\n" not in str(caught.value)
    assert f"127.0.0.1:{sshd.port}" in str(caught.value)
    whole = parts(tmp_path)[1]
    assert {p.name: p.read_bytes() for p in whole}.items() <= FILES.items()
    inodes = {p: p.stat().st_ino for p in whole}
    sshd.start()
    assert {there.state for there in opened("two").locate("name")} == {"absent"}
    (outcome,) = opened("one").promote("name")
    assert (outcome.action, outcome.size) == (
        "copied",
        TOTAL - sum(p.stat().st_size for p in whole),
    )
    assert {p: p.stat().st_ino for p in whole} == inodes
    with opened("two").restore("name") as got:
        assert held(got) == FILES
