"""File system calls below a held folder: links and special files at every position are refused."""

from __future__ import annotations

import os
import stat

import pytest

from tieredstore.errors import UnsafePath
from tieredstore.mounted import beneath


@pytest.fixture
def outside(tmp_path):
    """A folder that nothing may touch."""
    folder = tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    (folder / "secret").write_bytes(b"secret")
    (folder / "sub" / "secret").write_bytes(b"secret")
    yield folder
    assert sorted(p.name for p in folder.iterdir()) == ["secret", "sub"]
    assert (folder / "secret").read_bytes() == b"secret"
    assert (folder / "sub" / "secret").read_bytes() == b"secret"


@pytest.fixture
def root(tmp_path):
    """A root that holds ``a/b/file``."""
    folder = tmp_path / "root"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").write_bytes(b"inside")
    return folder


@pytest.fixture
def fd(root):
    with beneath.opened(beneath.open_root(str(root))) as found:
        yield found


def linked(root, outside, position, kind):
    """Put a link in the place of one part of ``a/b/file``."""
    place = root.joinpath(*["a", "b", "file"][: position + 1])
    place.rename(root / "was")
    if kind == "dangling":
        place.symlink_to(outside / "absent")
    elif kind == "inside":
        place.symlink_to(root / "was")
    elif position < 2:
        place.symlink_to(outside, target_is_directory=True)
        (root / "was").rename(root / "kept")
    else:
        place.symlink_to(outside / "secret")


CALLS = {
    "open": lambda fd: os.close(beneath.open_file(fd, "a/b/file")),
    "write": lambda fd: os.close(beneath.open_file(fd, "a/b/file", os.O_WRONLY | os.O_CREAT)),
    "stat": lambda fd: beneath.stat_file(fd, "a/b/file"),
    "read": lambda fd: beneath.read_small(fd, "a/b/file", 100),
}


@pytest.mark.parametrize("kind", ["outside", "dangling", "inside"])
@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("call", CALLS)
def test_links_are_refused_at_every_position(root, outside, fd, position, kind, call):
    linked(root, outside, position, kind)
    with pytest.raises(UnsafePath) as caught:
        CALLS[call](fd)
    assert isinstance(caught.value, PermissionError)
    assert "a" in str(caught.value)


@pytest.mark.parametrize("kind", ["outside", "dangling", "inside"])
@pytest.mark.parametrize("position", [0, 1])
def test_folders_are_neither_opened_nor_made_through_links(root, outside, fd, position, kind):
    linked(root, outside, position, kind)
    for call in (beneath.open_folder, beneath.make_folder):
        with pytest.raises(UnsafePath):
            call(fd, "a/b/new")
    folders = beneath.Folders(os.dup(fd))
    for held in (folders.at, folders.make):
        with pytest.raises(UnsafePath):
            held("a/b")
    folders.close()


@pytest.mark.parametrize("position", [0, 1])
def test_nothing_is_renamed_through_links(root, outside, fd, position):
    linked(root, outside, position, "outside")
    (root / "mine").write_bytes(b"mine")
    with pytest.raises(UnsafePath):
        beneath.rename(fd, "mine", fd, "a/b/taken")
    with pytest.raises(UnsafePath):
        beneath.rename(fd, "a/b/secret", fd, "taken")
    with pytest.raises(UnsafePath):
        beneath.exchange(fd, "mine", "a/b/secret")
    assert (root / "mine").read_bytes() == b"mine"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.timeout(10)
def test_a_fifo_is_refused_and_never_waited_for(root, fd, call):
    (root / "a" / "b" / "file").unlink()
    os.mkfifo(root / "a" / "b" / "file")
    with pytest.raises(UnsafePath):
        CALLS[call](fd)


@pytest.mark.parametrize("call", ["open", "write", "stat", "read"])
def test_a_folder_is_no_file(root, fd, call):
    (root / "a" / "b" / "file").unlink()
    (root / "a" / "b" / "file").mkdir()
    with pytest.raises(UnsafePath):
        CALLS[call](fd)


def test_what_is_missing_is_not_found_by_its_path(fd):
    for call in (beneath.open_file, beneath.stat_file):
        for path in ("a/b/none", "a/none/file", "none", "a/b/file/deeper"):
            with pytest.raises(FileNotFoundError) as caught:
                call(fd, path)
            assert caught.value.filename is not None


def test_delete_tree_unlinks_links_and_follows_none(root, outside, fd):
    tree = root / "tree" / "deep" / "er"
    tree.mkdir(parents=True)
    (tree / "file").write_bytes(b"x")
    (tree / "to-folder").symlink_to(outside, target_is_directory=True)
    (tree / "to-file").symlink_to(outside / "secret")
    (tree / "dangling").symlink_to(outside / "absent")
    (root / "tree" / "up").symlink_to("..", target_is_directory=True)
    os.mkfifo(tree / "fifo")
    beneath.delete_tree(fd, "tree")
    assert sorted(p.name for p in root.iterdir()) == ["a"]
    beneath.delete_tree(fd, "tree")
    beneath.delete_tree(fd, "not/there")


def test_delete_tree_does_not_delete_what_a_link_names(root, outside, fd):
    (root / "link").symlink_to(outside, target_is_directory=True)
    with pytest.raises(OSError):
        beneath.delete_tree(fd, "link")
    with pytest.raises(UnsafePath):
        beneath.delete_tree(fd, "link/sub")


def test_walk_gives_links_as_what_they_are(root, outside, fd):
    (root / "a" / "link").symlink_to(outside, target_is_directory=True)
    found = {path: entry.is_symlink() for path, entry in beneath.walk(fd)}
    assert found == {"a/b/file": False, "a/link": True}


def test_a_folder_that_vanishes_while_it_is_walked_is_passed_over(root, fd):
    for n in range(5):
        (root / f"d{n}").mkdir()
        (root / f"d{n}" / "file").write_bytes(b"x")
    walk = beneath.walk(fd)
    first, _ = next(walk)
    for n in range(5):
        if not first.startswith(f"d{n}/"):
            (root / f"d{n}" / "file").unlink()
            (root / f"d{n}").rmdir()
    assert {path for path, _ in walk} <= {"a/b/file"}


def test_exchange_swaps_two_folders_in_one_step(root, fd):
    (root / "c").mkdir()
    (root / "c" / "other").write_bytes(b"x")
    assert beneath.exchange(fd, "a", "c")
    assert (root / "a" / "other").exists()
    assert (root / "c" / "b" / "file").exists()
    with pytest.raises(FileNotFoundError):
        beneath.exchange(fd, "a", "none")


def test_small_files(fd, root):
    beneath.write_small(fd, "small", b"12345")
    beneath.write_small(fd, "small", b"123")
    assert (root / "small").read_bytes() == b"123"
    assert beneath.read_small(fd, "small", 3) == b"123"
    assert beneath.read_small(fd, "small", 2) == b"123"  # one more than asked for tells
    assert beneath.read_small(fd, "small", 1) == b"12"


def test_many_folders_are_kept_open_without_running_out(root, fd):
    before = len(os.listdir("/proc/self/fd"))
    folders = beneath.Folders(os.dup(fd))
    for n in range(300):
        folders.make(f"many/{n:03d}")
        os.close(folders.open_file(f"many/{n:03d}/file", os.O_WRONLY | os.O_CREAT))
    assert len(os.listdir("/proc/self/fd")) < before + 100
    folders.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(list((root / "many").iterdir())) == 300


def test_made_files_have_ordinary_modes(root, fd):
    os.close(beneath.open_file(fd, "new", os.O_WRONLY | os.O_CREAT))
    assert stat.S_IMODE((root / "new").stat().st_mode) & 0o7111 == 0
