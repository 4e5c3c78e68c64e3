"""Small values on mounted file systems that many processes change, without trust in locks.

Version ``n`` of a value is the folder ``.tieredstore/record/<key>/<n>/``, which is renamed into
place: that succeeds for one of several, because a folder that is not empty is never replaced. The
newest version is the value; a copy of it lies under the value's own path, for people to look at.

Older versions lose their value soon and their folder after an hour, so that a number is not given
a second time: who was stopped for longer finds the version gone that it began from.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

from tieredstore.errors import CorruptData, HeadConflict
from tieredstore.manifest.artifact import digest128
from tieredstore.mounted import beneath
from tieredstore.mounted.alive import temporary
from tieredstore.mounted.mount import Root
from tieredstore.recordable import MAX_VALUE, Versioned

AREA: Final = "record"
_VALUE: Final = "value.json"
_OVER: Final = "over"  # lies where the value has been dropped
_KEPT: Final = 16  # values of older versions that readers may still be about to open
_GRACE: Final = 3600.0  # seconds
_LOOKS: Final = 50
_TAKEN: Final = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR})


class Versions:
    """The versions of one value below a root.

    Parameters
    ----------
    mount : Root
        Where.
    path : str
        Of the value, relative to the root.
    """

    def __init__(self, mount: Root, path: str) -> None:
        self._mount = mount
        self._path = path
        name = path.rpartition("/")[2]
        readable = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[-60:]
        self._key = f"{readable}-{digest128(path.encode())[:16]}"

    def read(self) -> Versioned | None:
        """The newest version, or ``None`` where there is none.

        Raises
        ------
        CorruptData
            When there are versions and none can be read.
        """
        try:
            with beneath.opened(self._mount.root()) as root:
                fd = beneath.open_folder(root, f".tieredstore/{AREA}/{self._key}")
        except FileNotFoundError:
            return None
        with beneath.opened(fd):
            for _ in range(_LOOKS):
                number = self._newest(fd)
                if not number:
                    return None
                with suppress(FileNotFoundError):  # dropped meanwhile: there are newer ones
                    data = beneath.read_small(fd, f"{number}/{_VALUE}", MAX_VALUE)
                    return Versioned(data, str(number))
        raise CorruptData(f"{self._mount.path}/.tieredstore/{AREA}/{self._key}: no version of it")

    def swap(self, data: bytes, version: str | None) -> None:
        """Write the version after ``version``, see `Recordable.swap_record`."""
        before = int(version or 0)
        os.close(self._mount.area(AREA))
        with beneath.opened(self._mount.area(f"{AREA}/{self._key}")) as fd:
            if not self._place(fd, str(before + 1), data):
                raise self._conflict()
            if before and not beneath.exists(fd, str(before)):
                # Stopped for so long that the numbers were forgotten: this one is not the newest.
                self._drop(fd, str(before + 1))
                raise self._conflict()
            self._tidy(fd, before + 1)
        self._show(data)

    def _conflict(self) -> HeadConflict:
        return HeadConflict(f"{self._mount.path}/{self._path}: was changed meanwhile")

    @staticmethod
    def _newest(fd: int) -> int:
        """The highest number; looked for by name too, where a listing may be stale."""
        number = max((int(n) for n in os.listdir(fd) if n.isascii() and n.isdigit()), default=0)
        while beneath.exists(fd, str(number + 1)):
            number += 1
        return number

    def _place(self, fd: int, number: str, data: bytes) -> bool:
        with beneath.opened(self._mount.area("stage")) as area:
            name = temporary("mark-")
            os.mkdir(name, dir_fd=area)
            try:
                with beneath.opened(beneath.open_folder(area, name)) as made:
                    beneath.write_small(made, _VALUE, data)
                    with beneath.opened(beneath.open_file(made, _VALUE)) as file:
                        os.fsync(file)  # no syncfs: others may have gigabytes to be flushed
                    os.fsync(made)
                os.rename(name, number, src_dir_fd=area, dst_dir_fd=fd)
            except OSError as error:
                beneath.delete_tree(area, name)
                if error.errno in _TAKEN:
                    return False
                raise
        os.fsync(fd)
        return True

    def _drop(self, fd: int, number: str) -> None:
        with suppress(FileNotFoundError), beneath.opened(self._mount.area("stage")) as area:
            name = temporary("mark-")
            os.rename(number, name, src_dir_fd=fd, dst_dir_fd=area)
            beneath.delete_tree(area, name)

    def _tidy(self, fd: int, newest: int) -> None:
        """Drop old values, and old numbers from the lowest on."""
        with suppress(OSError):
            now = os.stat(str(newest), dir_fd=fd).st_mtime
            old = sorted(int(n) for n in os.listdir(fd) if n.isascii() and n.isdigit())
            for number in (n for n in old if n < newest - _KEPT):
                name = str(number)
                if os.stat(name, dir_fd=fd).st_mtime < now - _GRACE:
                    self._drop(fd, name)
                elif beneath.exists(fd, f"{name}/{_VALUE}"):
                    with beneath.opened(beneath.open_folder(fd, name)) as there:
                        beneath.write_small(there, _OVER, b"")
                        os.unlink(_VALUE, dir_fd=there)

    def _show(self, data: bytes) -> None:
        """Put a copy under the value's own path; of several that do, the newest stays."""
        folder = beneath.split(self._path)[0]
        with suppress(OSError):
            with beneath.opened(self._mount.root()) as root:
                os.close(beneath.make_folder(root, folder))
                for _ in range(_LOOKS):
                    with beneath.opened(self._mount.area("stage")) as area:
                        written = temporary("manifest-")
                        beneath.write_small(area, written, data)
                        beneath.rename(area, written, root, self._path)
                    newest = self.read()
                    if newest is None or newest.data == data:
                        return
                    data = newest.data
