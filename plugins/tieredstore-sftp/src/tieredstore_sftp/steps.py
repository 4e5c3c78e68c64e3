"""What is done with one connection; each function comes to the same when it is done again.

Paths are the server's own. Nothing here knows of keys or generations.
"""

from __future__ import annotations

import stat
from contextlib import suppress
from typing import Any, Final

from tieredstore.errors import HeadConflict, TierUnavailable
from tieredstore_sftp.connections import SftpClient

CHUNK: Final = 32 << 10  # bytes that one SFTP request reads or writes
AHEAD: Final = 64  # requests on their way at once; SSH's window of 2 MiB is full then
TRIES: Final = 5  # for a rename whose folder another takes away as empty
UNSUPPORTED: Final = "unsupported"  # in what a server says of an extension that it has not


def read_small(full: str, limit: int, sftp: SftpClient) -> bytes:
    with sftp.open(full, "rb") as file:
        return bytes(file.read(limit))


def read_range(full: str, offset: int, buffer: memoryview, sftp: SftpClient) -> int:
    with sftp.open(full, "rb") as file:
        return _Ahead(sftp, file.handle, offset, buffer).read()


class _Ahead:
    """One range, read with many requests on their way at once.

    paramiko's own prefetch takes a thread for it, which prints a traceback when the connection
    breaks.
    """

    def __init__(self, sftp: SftpClient, handle: bytes, offset: int, buffer: memoryview) -> None:
        self._sftp = sftp
        self._handle = handle
        self._offset = offset
        self._buffer = buffer
        self._end = len(buffer)
        self._asked: dict[int, tuple[int, int]] = {}
        self._error: Exception | None = None

    def read(self) -> int:
        """Fill the buffer; fewer bytes only at the end of the file."""
        at = 0
        while at < self._end or self._asked:
            while at < self._end and len(self._asked) < AHEAD:
                size = min(CHUNK, self._end - at)
                self._ask(at, size)
                at += size
            self._sftp._read_response()  # noqa: SLF001
            if self._error is not None:
                raise self._error
        return self._end

    def _ask(self, at: int, size: int) -> None:
        from paramiko.sftp import CMD_READ, int64

        place = (self._handle, int64(self._offset + at), size)
        number = self._sftp._async_request(self, CMD_READ, *place)  # noqa: SLF001
        self._asked[number] = at, size

    def _async_response(self, kind: int, message: Any, number: int) -> None:
        """Take one answer, in whichever order they come; called by the client."""
        from paramiko.sftp import CMD_DATA

        at, size = self._asked.pop(number)
        if kind == CMD_DATA:
            data = message.get_string()[:size]
            self._buffer[at : at + len(data)] = data
            if data and len(data) < size:
                self._ask(at + len(data), size - len(data))
            elif not data:
                self._end = min(self._end, at)
            return
        try:
            self._sftp._convert_status(message)  # noqa: SLF001
        except EOFError:
            self._end = min(self._end, at)
        except Exception as error:  # noqa: BLE001 - raised where the range is read
            self._error = error


def write_range(part: str, offset: int, data: memoryview, last: bool, sftp: SftpClient) -> None:
    with opened_to_write(part, "r+b" if offset else "wb", sftp) as file:
        file.seek(offset)
        cut = (len(data) - 1) // CHUNK * CHUNK if data else 0
        file.set_pipelined(True)
        file.write(data[:cut])
        file.set_pipelined(False)
        file.write(data[cut:])  # waits for every answer, and raises what one of them says
        if last:
            sync(file, sftp)


def opened_to_write(part: str, mode: str, sftp: SftpClient) -> Any:
    try:
        return sftp.open(part, mode)
    except FileNotFoundError:
        if mode != "wb":
            raise
        make_folders(part.rpartition("/")[0], sftp)
        return sftp.open(part, mode)


def sync(file: Any, sftp: SftpClient) -> None:
    """Have the server put a file on its disk, where it can."""
    from paramiko.sftp import CMD_EXTENDED

    try:
        sftp._request(CMD_EXTENDED, "fsync@openssh.com", file.handle)  # noqa: SLF001
    except OSError as error:
        if UNSUPPORTED not in str(error).lower():
            raise


def make_folders(folder: str, sftp: SftpClient) -> None:
    try:
        sftp.mkdir(folder)
    except FileNotFoundError:
        parent = folder.rpartition("/")[0]
        if not parent:
            raise
        make_folders(parent, sftp)
        make_folders(folder, sftp)
    except OSError:
        if not stat.S_ISDIR(sftp.stat(folder).st_mode or 0):
            raise


def replace(part: str, full: str, size: int, sftp: SftpClient) -> None:
    """Rename over what may be there."""
    for attempt in range(TRIES):
        try:
            sftp.posix_rename(part, full)
            return
        except FileNotFoundError:
            if not exists(part, sftp) and sftp.lstat(full).st_size == size:
                return  # the answer to an earlier attempt was lost
            if attempt == TRIES - 1:
                raise
            make_folders(full.rpartition("/")[0], sftp)
        except OSError as error:
            if UNSUPPORTED in str(error).lower():
                text = "the server cannot rename over a file (no posix-rename@openssh.com)"
                raise TierUnavailable(f"{full}: {text}; it can only be read from") from error
            raise


def create(part: str, full: str, data: bytes, sftp: SftpClient) -> None:
    """Rename where nothing is yet."""
    for attempt in range(TRIES):
        try:
            sftp.rename(part, full)
            return
        except OSError as error:
            if exists(full, sftp):
                if read_small(full, len(data) + 1, sftp) == data:
                    return  # it is ours: the answer to an earlier attempt was lost
                raise HeadConflict(f"{full}: was published meanwhile") from None
            if attempt == TRIES - 1 or not isinstance(error, FileNotFoundError):
                raise
            make_folders(full.rpartition("/")[0], sftp)


def exists(full: str, sftp: SftpClient) -> bool:
    try:
        sftp.lstat(full)
    except FileNotFoundError:
        return False
    return True


def delete(root: str, full: str, sftp: SftpClient) -> None:
    with suppress(FileNotFoundError):
        sftp.remove(full)
    folder = full.rpartition("/")[0]
    with suppress(OSError):  # not empty, or another was faster
        while len(folder) > len(root):
            sftp.rmdir(folder)
            folder = folder.rpartition("/")[0]
