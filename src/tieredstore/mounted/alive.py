"""Signs of life: which process works on what in the store's own area of a mounted place.

Who stages something leaves a file in ``.tieredstore/alive/`` that names the process, and refreshes
it. A collector on the same machine asks the kernel whether that process lives; one on another
machine watches whether the file changes, by its own clock. No lock, and no clock of another
machine, is trusted. What is only written and renamed at once carries its process in its name.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from contextlib import suppress
from functools import lru_cache
from typing import Final

from tieredstore.manifest.artifact import digest128, random_hex
from tieredstore.mounted import beneath

AREA: Final = "alive"
BEAT: Final = 10.0  # seconds between two refreshments
_UNKNOWN: Final = "0" * 12  # a machine that says nothing of its processes
_OWNER: Final = re.compile(r"([0-9a-f]{12})\.([0-9]{1,10})\.([0-9]{1,20})\.[0-9a-f]{8,}$")


def temporary(prefix: str) -> str:
    """A name that nothing else has, and that says which process gave it."""
    return f"{prefix}{_owner(os.getpid())}.{random_hex(8)}"


def lives(name: str) -> bool | None:
    """Whether the process that gave this name lives; ``None`` where that cannot be known here."""
    found = _OWNER.search(name)
    if found is None or found[1] == _UNKNOWN or found[1] != machine():
        return None
    pid = int(found[2])
    started = _started(pid)
    return started == found[3] if started else _hidden(pid)


def clock(area: int) -> float:
    """Seconds since 1970, as the file system that a folder lies on has them now.

    Parameters
    ----------
    area : int
        A folder to write to, held open.
    """
    name = temporary("clock-")
    with beneath.opened(beneath.open_file(area, name, os.O_WRONLY | os.O_CREAT)) as file:
        try:
            beneath.write_all(file, b"now", 0)
            return os.fstat(file).st_ctime
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=area)


def there(pid: int) -> bool:
    """Whether a process of this number is there."""
    return bool(_started(pid)) or _hidden(pid) is None


class Sign:
    """A sign of life, refreshed until it is taken away or nobody has it any more.

    Parameters
    ----------
    area : int
        The folder for it, held open; taken over.
    key : str
        What is worked on, without a dot: a generation.

    Attributes
    ----------
    key : str
        The same.
    """

    def __init__(self, area: int, key: str) -> None:
        beating = _Beating(area, f"{key}.{temporary('')}")
        self.key = key
        self._end = weakref.finalize(self, beating.end)
        beating.begin()

    def end(self) -> None:
        """Take it away: what was worked on is done, or given up."""
        self._end()


def key_of(sign: str) -> str:
    """What a sign is for, from its name."""
    return sign.partition(".")[0]


class _Beating:
    def __init__(self, area: int, name: str) -> None:
        self._area = area
        self._name = name
        self._pid = os.getpid()
        self._over = threading.Event()
        self._lock = threading.RLock()  # the thread that refreshes may also be the one that ends

    def begin(self) -> None:
        try:
            os.close(os.open(self._name, _NEW, 0o666, dir_fd=self._area))
        except BaseException:
            self.end()
            raise
        threading.Thread(target=self._refresh, name="tieredstore-alive", daemon=True).start()

    def _refresh(self) -> None:
        while not self._over.wait(BEAT):
            with self._lock, suppress(OSError):
                if self._area >= 0:
                    os.utime(self._name, dir_fd=self._area, follow_symlinks=False)

    def end(self) -> None:
        if os.getpid() != self._pid:
            return  # a fork's copy of what its parent works on
        self._over.set()
        with self._lock:
            if self._area >= 0:
                with suppress(OSError):
                    os.unlink(self._name, dir_fd=self._area)
                os.close(self._area)
                self._area = -1


_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@lru_cache(maxsize=1)
def _owner(pid: int) -> str:
    return f"{machine()}.{pid}.{_started(pid) or 0}"


def machine() -> str:
    """The machine, since it was started, and the processes that are seen from here."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            boot = file.read().strip()
        return digest128(f"{boot} {os.readlink('/proc/self/ns/pid')}".encode())[:12]
    except OSError:
        return _UNKNOWN


def _started(pid: int) -> str:
    """When a process was started, in ticks since the machine was; empty where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _hidden(pid: int) -> bool | None:
    """Of a process that cannot be looked at: ``None`` when it is another user's, else gone."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return None
    except (ProcessLookupError, OverflowError):
        pass
    return False  # or dead already, and only not waited for
