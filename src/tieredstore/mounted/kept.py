"""Blocks that were read before their file was restored, kept where a restore finds them.

``.tieredstore/part/<generation>/blocks/<key>/`` is a pair: ``data``, a sparse file as long as the
whole one, and for each machine a file with a byte for each block that is in it and was verified.
Only this machine's is believed, and only until it is started anew: until then what was written
first is there first. Other blocks are compared again before they count. Readers in several
processes share the pair. A restore takes it as a whole: ``data`` becomes the file that it goes on
with, and who has the pair open writes no more to it. Beside the pairs the generation's records are
kept, so that who opens a file need not fetch them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from tieredstore.errors import ManifestError
from tieredstore.manifest.artifact import Head, digest128, random_hex
from tieredstore.manifest.records import MAX_RECORDS, Block, FileRecord, Records, block_digest
from tieredstore.mounted import beneath
from tieredstore.mounted.alive import machine, temporary
from tieredstore.mounted.mount import Root
from tieredstore.mounted.staged import AREA as OWN
from tieredstore.mounted.staged import BLOCKS, RECORDS_KEPT

_DATA: Final = "data"
_YES: Final = b"\x01"
_TRIES: Final = 5
_TAKEN: Final = frozenset({errno.EEXIST, errno.ENOTEMPTY})


class KeptBlocks:
    """The blocks of one file that are here.

    Parameters
    ----------
    data, seen : int
        The pair, open for reading and writing; taken over.
    count : int
        How many blocks the file has.
    """

    def __init__(self, data: int, seen: int, count: int) -> None:
        self._data = data
        self._seen = seen
        known = os.pread(seen, count, 0)
        self._known = bytearray(known.ljust(count, b"\x00"))

    @classmethod
    def of(cls, mount: Root, generation: str, file: FileRecord, count: int) -> KeptBlocks:
        """The pair of a file, made where there is none.

        Raises
        ------
        OSError
            When nothing can be written there.
        """
        os.close(mount.area("part"))
        key = digest128(file.path.encode())
        with beneath.opened(mount.root()) as root:
            home = mount.make_below(root, _home(generation))
        with beneath.opened(home):
            for _ in range(_TRIES):
                with suppress(FileNotFoundError), _pair(home, key, file.size) as pair:
                    flags = os.O_RDWR | os.O_CREAT
                    data = beneath.open_file(pair, _DATA, os.O_RDWR)
                    try:
                        seen = beneath.open_file(pair, f"seen-{_believed()}", flags)
                    except BaseException:
                        os.close(data)
                        raise
                    return cls(data, seen, count)
        raise FileNotFoundError(errno.ENOENT, "kept being taken by restores", file.path)

    def has(self, number: int, block: Block) -> bool:
        """Whether a block is here, verified by somebody on this machine, or just now."""
        if self._known[number]:
            return True
        if os.pread(self._seen, 1, number) != _YES:
            if not self._lies(block):
                return False
            self._note(number)
        self._known[number] = 1
        return True

    def known(self, number: int) -> bool:
        """Whether this process has seen that a block is here; no call of the system."""
        return self._known[number] == 1

    def readinto(self, offset: int, view: memoryview) -> int:
        """Fill ``view`` from blocks that are here."""
        done = 0
        while done < len(view) and (got := os.preadv(self._data, [view[done:]], offset + done)):
            done += got
        return done

    def keep(self, number: int, block: Block, data: memoryview) -> None:
        """Keep a verified block, unless a restore has taken the pair."""
        if os.fstat(self._seen).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "taken by a restore")
        beneath.write_all(self._data, data, block.offset)
        self._note(number)
        self._known[number] = 1

    @property
    def whole(self) -> bool:
        """Whether every block is here, as far as this process knows."""
        return all(self._known)

    def close(self) -> None:
        """Let go of the pair."""
        for fd in (self._data, self._seen):
            if fd >= 0:
                os.close(fd)
        self._data = self._seen = -1

    def _note(self, number: int) -> None:
        with suppress(OSError):  # it is compared again then
            os.pwrite(self._seen, _YES, number)

    def _lies(self, block: Block) -> bool:
        """Whether a block that nobody here has noted is in the file all the same."""
        try:
            if os.lseek(self._data, block.offset, os.SEEK_DATA) >= block.offset + block.length:
                return False
        except OSError:
            return False  # nothing but a hole from there on
        view = memoryview(bytearray(block.length))
        return self.readinto(block.offset, view) == len(view) and block_digest(view) == block.digest


def kept_records(mount: Root, head: Head) -> Records | None:
    """The records of a generation, kept beside the blocks of its files; ``None`` where none are."""
    with suppress(OSError, ManifestError), beneath.opened(mount.root()) as root:
        with beneath.opened(beneath.open_folder(root, _home(head.generation))) as home:
            data = beneath.read_small(home, RECORDS_KEPT, min(head.records_size, MAX_RECORDS))
            return Records.parse(data, head.records_digest, RECORDS_KEPT)
    return None


def keep_records(mount: Root, head: Head, records: Records) -> None:
    """Keep the records of a generation, where blocks of its files are kept."""
    with suppress(OSError), beneath.opened(mount.root()) as root:
        with beneath.opened(beneath.open_folder(root, _home(head.generation))) as home:
            if not beneath.exists(home, RECORDS_KEPT):
                written = temporary("new-")
                beneath.write_small(home, written, records.emit())
                os.rename(written, RECORDS_KEPT, src_dir_fd=home, dst_dir_fd=home)


def _home(generation: str) -> str:
    return f"{OWN}/part/{generation}/{BLOCKS}"


def take_kept(generation: int, wip: int, file: FileRecord) -> None:
    """Go on with the blocks of a file that were kept: they become the file in ``wip``.

    Parameters
    ----------
    generation : int
        The generation's own folder, held open.
    wip : int
        Its folder ``wip``, held open.
    file : FileRecord
        Which; what lies in ``wip`` already stays.
    """
    taken = temporary("taken-")
    try:
        beneath.rename(generation, f"{BLOCKS}/{digest128(file.path.encode())}", generation, taken)
    except FileNotFoundError:
        return
    with suppress(OSError):
        folder, name = beneath.split(file.path)
        with beneath.opened(beneath.make_folder(wip, folder)) as above:
            if not beneath.exists(above, name):
                beneath.rename(generation, f"{taken}/{_DATA}", above, name)
    beneath.delete_tree(generation, taken)


def _believed() -> str:
    """Whose notes are believed here: this machine's, or where that is not known nobody's."""
    name = machine()
    return name if name.strip("0") else random_hex(6)


@contextmanager
def _pair(home: int, key: str, size: int) -> Iterator[int]:
    try:
        found = beneath.open_folder(home, key)
    except FileNotFoundError:
        made = temporary("new-")
        with beneath.opened(beneath.make_folder(home, made)) as pair:
            flags = os.O_RDWR | os.O_CREAT
            with beneath.opened(beneath.open_file(pair, _DATA, flags)) as data:
                os.ftruncate(data, size)
        try:
            os.rename(made, key, src_dir_fd=home, dst_dir_fd=home)
        except OSError as error:
            beneath.delete_tree(home, made)
            if error.errno not in _TAKEN:
                raise
        found = beneath.open_folder(home, key)
    with beneath.opened(found):
        yield found
