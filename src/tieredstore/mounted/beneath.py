"""File system calls that never leave a folder: every step is taken without following links.

The lowest layer of mounted places: open, create, rename, exchange, sync and delete below a folder
that is held open. Nothing here knows of artifacts. A link or special file on the way raises
:class:`~tieredstore.errors.UnsafePath`; nothing outside is read, written or deleted.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import ParamSpec, TypeVar

from tieredstore.errors import UnsafePath

UNNOTICED = os.O_RDONLY | os.O_NOATIME  # a look that is no use: it leaves the time of last access
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_EXCHANGE = 2
_KEPT_OPEN = 64
_ATTEMPTS = 5

P = ParamSpec("P")
T = TypeVar("T")


def anew(call: Callable[P, T]) -> Callable[P, T]:
    """Ask again where a network mount finds that what it remembered is stale (``ESTALE``).

    It looks at the server then. What stays stale has been removed by another node: that is no
    such file, as a local disk would say.
    """

    @wraps(call)
    def asked(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(_ATTEMPTS):
            try:
                return call(*args, **kwargs)
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
                stale = error
        raise FileNotFoundError(errno.ENOENT, "Removed by another node", stale.filename) from stale

    return asked


@contextmanager
def opened(fd: int) -> Iterator[int]:
    """Close a descriptor at the end of a ``with`` block."""
    try:
        yield fd
    finally:
        os.close(fd)


def open_root(path: str) -> int:
    """Open a tier's root; the root itself may be a link, what lies below may not."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@anew
def open_folder(fd: int, folder: str) -> int:
    """Open the folder ``folder`` below the open folder ``fd``, one part at a time.

    Raises
    ------
    FileNotFoundError
        When it is not there, or a regular file stands in its place.
    UnsafePath
        When a part is a link or a special file.
    """
    here = os.dup(fd) if not folder else -1
    for part in folder.split("/") if folder else ():
        above = fd if here < 0 else here
        try:
            below = os.open(part, _FOLDER, dir_fd=above)
        except OSError as error:
            raise _explained(error, part, above, folder) from None
        finally:
            if here >= 0:
                os.close(here)
        here = below
    return here


def _explained(error: OSError, part: str, fd: int, path: str) -> OSError:
    if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
        error.filename = path
        return error
    with suppress(OSError):
        mode = os.stat(part, dir_fd=fd, follow_symlinks=False).st_mode
        if stat.S_ISREG(mode):
            return FileNotFoundError(errno.ENOENT, "No such folder", path)
    return UnsafePath(
        f"{path}: {part!r} is a link or special file; the store follows none below a tier's root "
        f"(let the tier's path name the place itself)"
    )


def make_folder(fd: int, folder: str) -> int:
    """Open ``folder`` below ``fd`` and make what is missing of it.

    Raises
    ------
    NotADirectoryError
        When a regular file stands in the way.
    UnsafePath
        When a link or a special file does.
    """
    here = os.dup(fd)
    for part in folder.split("/") if folder else ():
        try:
            below = _open_or_make(here, part)
        except OSError as error:
            found = _explained(error, part, here, folder)
            if isinstance(found, FileNotFoundError) and error.errno == errno.ENOTDIR:
                why = "A file stands where a folder has to be"
                raise NotADirectoryError(errno.ENOTDIR, why, folder) from None
            raise found from None
        finally:
            os.close(here)
        here = below
    return here


def _open_or_make(fd: int, part: str) -> int:
    with suppress(FileNotFoundError):
        return os.open(part, _FOLDER, dir_fd=fd)
    with suppress(FileExistsError):
        os.mkdir(part, dir_fd=fd)
    return os.open(part, _FOLDER, dir_fd=fd)


def split(path: str) -> tuple[str, str]:
    """``a/b/c`` as ``a/b`` and ``c``."""
    folder, _, name = path.rpartition("/")
    return folder, name


@anew
def open_file(fd: int, path: str, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Open a regular file below ``fd``.

    Raises
    ------
    UnsafePath
        When the file is a link, a folder, or special.
    """
    folder, name = split(path)
    if not folder:
        return _open_regular(fd, name, path, flags, mode)
    with opened(open_folder(fd, folder)) as above:
        return _open_regular(above, name, path, flags, mode)


def _open_regular(above: int, name: str, path: str, flags: int, mode: int) -> int:
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        file = os.open(name, flags, mode, dir_fd=above)
    except OSError as error:
        if error.errno == errno.EPERM and flags & os.O_NOATIME:  # another's file
            return _open_regular(above, name, path, flags & ~os.O_NOATIME, mode)
        if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
            raise UnsafePath(f"{path}: a link, folder or special file, no regular file") from None
        error.filename = path
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise UnsafePath(f"{path}: a folder or special file, no regular file")
    return file


class Folders:
    """The folders below one that is held open, each opened once; for one thread.

    Parameters
    ----------
    fd : int
        The folder; taken over, and closed with this object.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._open: dict[str, int] = {}

    def at(self, folder: str) -> int:
        """The open folder ``folder``; it stays open as long as this object."""
        if not folder:
            return self._fd
        found = self._open.get(folder)
        if found is None:
            found = self._keep(folder, open_folder(self._fd, folder))
        return found

    def make(self, folder: str) -> int:
        """Like `at`; what is missing is made."""
        try:
            return self.at(folder)
        except FileNotFoundError:
            return self._keep(folder, make_folder(self._fd, folder))

    def open_file(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
        """Like `open_file`."""
        folder, name = split(path)
        return _open_regular(self.at(folder), name, path, flags, mode)

    def _keep(self, folder: str, fd: int) -> int:
        if len(self._open) >= _KEPT_OPEN:
            self._close_kept()
        self._open[folder] = fd
        return fd

    def _close_kept(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def close(self) -> None:
        """Close every folder."""
        self._close_kept()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):  # who makes it may be interrupted
            self.close()


@anew
def stat_file(fd: int, path: str) -> os.stat_result:
    """Stat a regular file below ``fd`` without opening it.

    Raises
    ------
    FileNotFoundError, UnsafePath
        When it is not there, or is no regular file.
    """
    folder, name = split(path)
    with opened(open_folder(fd, folder)) as above:
        try:
            found = os.stat(name, dir_fd=above, follow_symlinks=False)
        except OSError as error:
            error.filename = path
            raise
    if not stat.S_ISREG(found.st_mode):
        raise UnsafePath(f"{path}: a link, folder or special file, no regular file")
    return found


_stat = anew(os.stat)


def exists(fd: int, name: str) -> bool:
    """Whether anything of that name lies directly in ``fd``."""
    try:
        _stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def changed(fd: int, name: str) -> int:
    """When a file directly in ``fd`` was last changed or put there, in ns; 0 where it is not."""
    with suppress(FileNotFoundError, UnsafePath):
        return stat_file(fd, name).st_ctime_ns
    return 0


def is_regular(fd: int, name: str) -> bool:
    """Whether a regular file of that name lies directly in ``fd``."""
    with suppress(FileNotFoundError, UnsafePath):
        return stat.S_ISREG(stat_file(fd, name).st_mode)
    return False


@anew
def names(fd: int) -> list[str]:
    """The names of all that lies directly in ``fd``."""
    return os.listdir(fd)


@anew
def read_small(fd: int, path: str, limit: int, flags: int = os.O_RDONLY) -> bytes:
    """Read a file of at most ``limit`` bytes; one byte more is returned where there is more."""
    with opened(open_file(fd, path, flags)) as file:
        parts: list[bytes] = []
        want = limit + 1
        while want and (data := os.read(file, min(want, 1 << 20))):
            parts.append(data)
            want -= len(data)
    return b"".join(parts)


def write_all(file: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``; a short write is continued."""
    done = os.pwrite(file, data, offset) if len(data) else 0
    while done < len(data):
        done += os.pwrite(file, memoryview(data)[done:], offset + done)


def write_small(fd: int, name: str, data: bytes) -> None:
    """Write a small file directly in ``fd``, replacing what was there; not atomic by itself."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with opened(open_file(fd, name, flags)) as file:
        write_all(file, data, 0)


def walk(fd: int, skip: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every entry below ``fd`` that is no folder, as relative path and entry.

    Parameters
    ----------
    fd : int
        The folder, held open.
    skip : str
        Names that begin with it are passed over where it is not empty.
    """
    queue = [""]
    while queue:
        folder = queue.pop()
        try:
            opened_folder = open_folder(fd, folder)
        except FileNotFoundError:
            if not folder:
                raise
            continue  # deleted since it was seen
        with opened(opened_folder) as here, os.scandir(here) as entries:
            for entry in entries:
                if skip and entry.name.startswith(skip):
                    continue
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    queue.append(path)
                else:
                    yield path, entry


def rename(fd: int, source: str, fd_target: int, target: str) -> None:
    """Rename below two held folders, parents opened without following links."""
    (folder, name), (folder_t, name_t) = split(source), split(target)
    with opened(open_folder(fd, folder)) as a, opened(open_folder(fd_target, folder_t)) as b:
        os.rename(name, name_t, src_dir_fd=a, dst_dir_fd=b)


def exchange(fd: int, one: str, other: str) -> bool:
    """Exchange two folders below ``fd`` in one step.

    Returns
    -------
    bool
        False where this file system cannot do it; nothing has changed then.
    """
    (folder, name), (folder_o, name_o) = split(one), split(other)
    with opened(open_folder(fd, folder)) as a, opened(open_folder(fd, folder_o)) as b:
        return renameat2_exchange(a, name, b, name_o)


def renameat2_exchange(a: int, name: str, b: int, other: str) -> bool:
    """``renameat2(…, RENAME_EXCHANGE)``; False where it is not supported."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(a, os.fsencode(name), b, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM}:
        return False
    raise OSError(code, os.strerror(code), other)


def syncfs(fd: int) -> None:
    """Flush the whole file system that ``fd`` lies on: one call for a set of files."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def delete_tree(fd: int, folder: str) -> None:
    """Delete ``folder`` below ``fd`` and all in it; links are unlinked, never followed."""
    above, name = split(folder)
    with suppress(FileNotFoundError), opened(open_folder(fd, above)) as parent:
        with opened(os.open(name, _FOLDER, dir_fd=parent)) as here:
            with os.scandir(here) as entries:
                found = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries]
            for child, is_folder in found:
                if is_folder:
                    delete_tree(here, child)
                else:
                    with suppress(FileNotFoundError):
                        os.unlink(child, dir_fd=here)
        os.rmdir(name, dir_fd=parent)
