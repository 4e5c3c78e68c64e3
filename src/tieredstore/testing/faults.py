"""Fault injectors: disks and places that fail, fill up, lie, hang, or take the process with them.

For the tests of this library and of plugins. `Points` counts what this process changes on disk and
lets a `Fault` happen at one of those points; `FaultyKeyed` and `FaultyBackend` stand before a
backend and do the same, or something worse, to its calls. Nothing here is loaded outside tests.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Self

from tieredstore.backend import (
    Expected,
    FileReader,
    FileStat,
    FileWriter,
    FoundHead,
    Publishable,
    Readable,
    Staging,
)
from tieredstore.keyed import KeyedBackend
from tieredstore.manifest.artifact import Head
from tieredstore.mounted import beneath

_CHANGING: Final = (
    "write",
    "pwrite",
    "rename",
    "replace",
    "unlink",
    "mkdir",
    "rmdir",
    "fsync",
    "ftruncate",
)
_STANDARD: Final = 2  # the highest descriptor of standard input, output and error


@dataclass(frozen=True, slots=True)
class Point:
    """Something that is about to be changed.

    Attributes
    ----------
    name : str
        The call, such as ``rename`` or ``put``.
    call : callable
        Does it.
    data : memoryview or None
        For writes: what is to be written.
    call_with : callable or None
        For writes: writes something else instead.
    """

    name: str
    call: Callable[[], Any]
    data: memoryview | None = None
    call_with: Callable[[memoryview], Any] | None = None


Fault = Callable[[Point], Any]
"""Happens in place of a point; what it returns is what the call returns."""


def die() -> NoReturn:
    """End this process at once, as power loss or the kernel's memory killer would."""
    os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(1)


def kill_before(point: Point) -> NoReturn:
    """Die before the change."""
    del point
    die()


def kill_after(point: Point) -> NoReturn:
    """Die right after the change."""
    point.call()
    die()


def kill_within(point: Point) -> NoReturn:
    """Die when half of a write is done; other changes are not begun."""
    if point.data is not None and point.call_with is not None:
        point.call_with(point.data[: len(point.data) // 2])
    die()


def failing(code: int) -> Fault:
    """Raise `OSError` with this number (``errno.ENOSPC`` …) instead of the change."""

    def fail(point: Point) -> NoReturn:
        del point
        raise OSError(code, os.strerror(code))

    return fail


def short(point: Point) -> Any:
    """Do half of a write and say so, as a file system may; other changes are done."""
    if point.data is None or point.call_with is None:
        return point.call()
    return point.call_with(point.data[: max(1, len(point.data) // 2)])


@dataclass
class Points:
    """Counts the points at which this process changes something; at some of them a fault happens.

    Used in a ``with`` block, it covers the file system calls of this process and
    ``beneath.syncfs`` and ``beneath.renameat2_exchange``; backends that call `meet` take part.

    Parameters
    ----------
    fault : callable
        What happens.
    first : int
        At which point, from 1 on; 0 for none, to count only.
    last : int, optional
        Up to which point; only the first by default.
    """

    fault: Fault
    first: int = 0
    last: int = 0
    met: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _installed: ExitStack = field(default_factory=ExitStack)

    def meet(self, point: Point) -> Any:
        """Count a point, and do what it is or what happens instead."""
        with self._lock:
            self.met.append(point.name)
            number = len(self.met)
        if self.first and self.first <= number <= max(self.first, self.last):
            return self.fault(point)
        return point.call()

    def __enter__(self) -> Self:
        for name in _CHANGING:
            self._install(os, name)
        self._install(os, "open")
        self._install(beneath, "syncfs")
        self._install(beneath, "renameat2_exchange")
        return self

    def __exit__(self, *_: object) -> None:
        self._installed.close()

    def _install(self, module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if not _counts(name, args, kwargs):
                return real(*args, **kwargs)
            data, call_with = None, None
            if name in {"write", "pwrite"}:
                data = memoryview(args[1])

                def call_with(part: memoryview) -> Any:
                    return real(args[0], part, *args[2:], **kwargs)

            return self.meet(Point(name, lambda: real(*args, **kwargs), data, call_with))

        setattr(module, name, call)
        self._installed.callback(setattr, module, name, real)


def _counts(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if name in {"write", "pwrite"}:
        return bool(args[0] > _STANDARD)
    if name == "open":
        flags = args[1] if len(args) > 1 else kwargs.get("flags", 0)
        return bool(flags & (os.O_CREAT | os.O_TRUNC))
    return True


@contextmanager
def no_flock() -> Iterator[None]:
    """``fcntl.flock`` succeeds for everybody, as on some Lustre, GPFS and NFS mounts."""
    import fcntl

    real = fcntl.flock
    fcntl.flock = lambda *_: None
    try:
        yield
    finally:
        fcntl.flock = real


@contextmanager
def no_exchange() -> Iterator[None]:
    """Folders cannot be exchanged, as on network mounts and older kernels."""
    real = beneath.renameat2_exchange
    beneath.renameat2_exchange = lambda *_: False
    try:
        yield
    finally:
        beneath.renameat2_exchange = real


# -- what a place may do to a call, and to what is read from it --------------------------------

OnCall = Callable[[str], None]
"""Told the name of each call before it is made; may raise, or take its time."""
OnRead = Callable[[int, memoryview, int], int]
"""Given offset, buffer and how many bytes were read; changes them, and says how many there are."""


def steady(_: str) -> None:
    """Nothing happens."""


def honest(_: int, __: memoryview, got: int) -> int:
    """Nothing happens."""
    return got


def flaky(every: int, code: int = errno.EIO) -> OnCall:
    """Each ``every``-th call fails."""
    lock, count = threading.Lock(), 0

    def on_call(name: str) -> None:
        nonlocal count
        with lock:
            count += 1
            bad = count % every == 0
        if bad:
            raise OSError(code, os.strerror(code), name)

    return on_call


def slow(seconds: float) -> OnCall:
    """Each call takes so much longer."""
    return lambda _: time.sleep(seconds)


def hanging(until: threading.Event, calls: frozenset[str] = frozenset()) -> OnCall:
    """Calls (all, or those named) do not return before the event is set."""

    def on_call(name: str) -> None:
        if not calls or name in calls:
            until.wait()

    return on_call


def truncating(size: int) -> OnRead:
    """Files end at byte ``size``."""
    return lambda offset, _, got: max(0, min(got, size - offset))


def bit_flipping(at: int) -> OnRead:
    """The lowest bit of byte ``at`` of each file is another."""

    def on_read(offset: int, buffer: memoryview, got: int) -> int:
        if offset <= at < offset + got:
            buffer[at - offset] ^= 1
        return got

    return on_read


class _Reader(FileReader):
    def __init__(self, inner: FileReader, on_call: OnCall, on_read: OnRead) -> None:
        self._inner, self._on_call, self._on_read = inner, on_call, on_read

    def readinto(self, offset: int, buffer: memoryview) -> int:
        self._on_call("readinto")
        return self._on_read(offset, buffer, self._inner.readinto(offset, buffer))

    def close(self) -> None:
        self._inner.close()


class _Faulty(Readable):
    def __init__(self, inner: Readable, on_call: OnCall = steady, on_read: OnRead = honest) -> None:
        self._inner, self._on_call, self._on_read = inner, on_call, on_read
        self.place = inner.place
        self.keeps_case = inner.keeps_case
        self.request, self.parallel = inner.request, inner.parallel

    def stat(self, path: str) -> FileStat:
        """See `Readable.stat`."""
        self._on_call("stat")
        return self._inner.stat(path)

    def open(self, path: str) -> FileReader:
        """See `Readable.open`."""
        self._on_call("open")
        return _Reader(self._inner.open(path), self._on_call, self._on_read)

    def list(self, folder: str) -> Iterator[FileStat]:
        """See `Readable.list`."""
        self._on_call("list")
        return self._inner.list(folder)


class FaultyBackend(_Faulty, Publishable):
    """Any backend that is published to, with faults in its calls and in what is read."""

    def read_head(self, folder: str) -> FoundHead | None:
        """See `Readable.read_head`."""
        self._on_call("read_head")
        return self._inner.read_head(folder)

    def data_path(self, folder: str, head: Head, file: str) -> str:
        """See `Readable.data_path`."""
        return self._inner.data_path(folder, head, file)

    def begin(self, folder: str, head: Head) -> Staging:
        """See `Publishable.begin`."""
        self._on_call("begin")
        assert isinstance(self._inner, Publishable)
        return self._inner.begin(folder, head)

    def remove(self, folder: str, head: Head) -> None:
        """See `Publishable.remove`."""
        self._on_call("remove")
        assert isinstance(self._inner, Publishable)
        self._inner.remove(folder, head)

    def set_aside(self, folder: str, head: Head) -> str:
        """See `Publishable.set_aside`."""
        self._on_call("set_aside")
        assert isinstance(self._inner, Publishable)
        return self._inner.set_aside(folder, head)


class _Writer(FileWriter):
    def __init__(self, inner: FileWriter, points: Points) -> None:
        self._inner, self._points = inner, points

    def write(self, offset: int, data: memoryview) -> None:
        def write(part: memoryview) -> None:
            self._inner.write(offset, part)

        self._points.meet(Point("write", lambda: write(data), data, write))

    def close(self) -> None:
        self._points.meet(Point("close", self._inner.close))

    def abort(self) -> None:
        self._inner.abort()


class FaultyKeyed(_Faulty, KeyedBackend):
    """A keyed backend whose writes, puts and deletes are points of a `Points`."""

    def __init__(self, inner: KeyedBackend, points: Points, on_call: OnCall = steady) -> None:
        super().__init__(inner, on_call)
        self._keyed, self._points = inner, points

    def writer(self, key: str, size: int) -> FileWriter:
        """See `KeyedBackend.writer`."""
        self._on_call("writer")
        return _Writer(self._keyed.writer(key, size), self._points)

    def put(self, key: str, data: bytes, expected: Expected) -> None:
        """See `KeyedBackend.put`."""
        self._on_call("put")
        self._points.meet(Point("put", lambda: self._keyed.put(key, data, expected)))

    def delete(self, key: str) -> None:
        """See `KeyedBackend.delete`."""
        self._on_call("delete")
        self._points.meet(Point("delete", lambda: self._keyed.delete(key)))
