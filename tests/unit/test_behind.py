"""Blocks that are put on the disk while the reader goes on."""

from __future__ import annotations

import errno
import os
import threading
import time

import pytest

from tieredstore.filesystem.behind import Behind
from tieredstore.filesystem.blocks import BlockFile
from tieredstore.manifest.records import Block, FileRecord, block_digest, pack_block

SIZE = 1000
COUNT = 6
DATA = os.urandom(SIZE * COUNT)
PARTS = [DATA[at : at + SIZE] for at in range(0, len(DATA), SIZE)]
BLOCKS = [Block(n * SIZE, SIZE, block_digest(part)) for n, part in enumerate(PARTS)]
RECORD = FileRecord(
    "f", len(DATA), table=b"".join(pack_block(SIZE, block_digest(part)) for part in PARTS)
)


class Disk:
    """A shelf in a file, which may be slow or full."""

    def __init__(self, path, fails_at=-1):
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(self.fd, len(DATA))
        self.kept, self.may, self.fails_at = [], threading.Event(), fails_at
        self.may.set()
        self.closed = False

    def known(self, number):
        return number in self.kept

    def has(self, number, block):
        return number in self.kept

    def readinto(self, offset, view):
        return os.preadv(self.fd, [view], offset)

    def keep(self, number, block, data):
        assert self.may.wait(30)
        if len(self.kept) == self.fails_at:
            raise OSError(errno.ENOSPC, "full")
        os.pwrite(self.fd, data, block.offset)
        self.kept.append(number)

    @property
    def whole(self):
        return sorted(self.kept) == list(range(COUNT))

    def close(self):
        os.close(self.fd)
        self.closed = True


class Far:
    """Where blocks come from, a few at a time."""

    request = 3 * SIZE

    def __init__(self):
        self.asked = []

    def __call__(self, blocks):
        self.asked += [block.offset // SIZE for block in blocks]
        return memoryview(b"".join(PARTS[block.offset // SIZE] for block in blocks))

    def close(self):
        pass


def read(shelf, offset, size):
    view = memoryview(bytearray(size))
    return bytes(view[: shelf.readinto(offset, view)])


def test_what_waits_is_read_from_memory_and_never_from_a_hole(tmp_path):
    disk = Disk(tmp_path / "data")
    disk.keep(0, BLOCKS[0], PARTS[0])
    disk.may.clear()
    shelf = Behind(disk)
    shelf.keep(1, BLOCKS[1], memoryview(PARTS[1]))
    shelf.keep(3, BLOCKS[3], memoryview(PARTS[3]))
    assert [shelf.known(n) for n in range(5)] == [True, True, False, True, False]
    assert shelf.has(3, BLOCKS[3])
    assert read(shelf, SIZE + 10, 50) == DATA[SIZE + 10 : SIZE + 60]
    assert read(shelf, SIZE - 10, 50) == DATA[SIZE - 10 : SIZE]  # as far as it is written
    assert read(shelf, SIZE, 2 * SIZE) == PARTS[1]
    disk.may.set()
    assert not shelf.whole
    assert sorted(disk.kept) == [0, 1, 3]
    assert read(shelf, SIZE - 10, 50) == DATA[SIZE - 10 : SIZE + 40]
    shelf.close()
    assert disk.closed


def test_closing_waits_until_all_is_written(tmp_path):
    disk = Disk(tmp_path / "data")
    disk.may.clear()
    shelf = Behind(disk)
    for number in range(COUNT):
        shelf.keep(number, BLOCKS[number], memoryview(PARTS[number]))
    threading.Timer(0.2, disk.may.set).start()
    shelf.close()
    assert disk.whole
    assert (tmp_path / "data").read_bytes() == DATA


@pytest.mark.parametrize("fails_at", range(COUNT))
@pytest.mark.parametrize("behind", [False, True])
def test_a_disk_that_becomes_full_ends_no_read(tmp_path, behind, fails_at):
    """Also in the midst of blocks that were fetched together."""
    disk, far = Disk(tmp_path / "data", fails_at), Far()
    with BlockFile(RECORD, Behind(disk) if behind else disk, far) as file:
        found = bytearray()
        while piece := file.read(700):
            found += piece
        assert bytes(found) == DATA
        assert not file.whole
    assert disk.closed


def test_no_more_waits_than_there_is_memory_for(tmp_path, monkeypatch):
    monkeypatch.setattr("tieredstore.filesystem.behind._MOST", 2 * SIZE)
    disk = Disk(tmp_path / "data")
    disk.may.clear()
    shelf = Behind(disk)
    for number in (0, 1):
        shelf.keep(number, BLOCKS[number], memoryview(PARTS[number]))
    threading.Timer(0.3, disk.may.set).start()
    since = time.monotonic()
    shelf.keep(2, BLOCKS[2], memoryview(PARTS[2]))
    assert time.monotonic() - since > 0.2
    shelf.close()


def test_a_child_that_is_forked_reads_and_writes_on(tmp_path):
    disk = Disk(tmp_path / "data")
    disk.may.clear()
    shelf = Behind(disk)
    shelf.keep(0, BLOCKS[0], memoryview(PARTS[0]))
    child = os.fork()
    if not child:
        code = 1
        try:
            disk.may.set()
            shelf.keep(1, BLOCKS[1], memoryview(PARTS[1]))
            good = read(shelf, 0, SIZE) == PARTS[0] and read(shelf, SIZE, SIZE) == PARTS[1]
            shelf.close()
            code = 0 if good and sorted(disk.kept) == [0, 1] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    disk.may.set()
    shelf.close()
    assert disk.kept == [0]
