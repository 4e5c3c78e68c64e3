"""What a mounted place does: renames, links, flushes, names, space, time.

Some checks look at the root; those that write work in the current folder, see ``ground.py``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from typing import Final

from tieredstore.doctor.finding import (
    BAD,
    GOOD,
    NOTE,
    Check,
    Finding,
    Place,
    exists,
    median_of,
    milliseconds,
)
from tieredstore.errors import reason
from tieredstore.limits import size
from tieredstore.mounted import beneath

_FICLONE: Final = 0x40049409  # linux/fs.h: share the blocks of another file
_SPARSE: Final = 16 << 20
_NAME: Final = 255
_NETWORK: Final = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs"}
    | {"fuse.juicefs", "fuse.mfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs"}
    | {"lustre", "nfs", "nfs4", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "wekafs"}
)
VOLUMES: Final = frozenset({"RunPodBackend"})  # mounted by somebody else, never made here


def reading(place: Place) -> list[Check]:
    """Checks that change nothing."""
    return [
        Check("reachable", lambda: _reachable(place)),
        Check("space", lambda: _space(place.place)),
        Check("look", lambda: _look(place.place)),
    ]


def writing() -> list[Check]:
    """Checks that work in the current folder."""
    return [
        Check("rename", _rename),
        Check("exchange", _exchange),
        Check("hard links", _links),
        Check("fsync", _fsync),
        Check("syncfs", _syncfs),
        Check("sparse files", _sparse),
        Check("reflink", _reflink),
        Check("times", _times),
        Check("clock", _clock),
        Check("case", _case),
        Check("unicode", _unicode),
        Check("longest name", _longest),
        Check("latency", _latency),
    ]


# -- looked at ----------------------------------------------------------------------------------


def _reachable(place: Place) -> Finding:
    path = place.place
    if not exists(path):
        if place.kind in VOLUMES or place.read_only:
            return Finding("reachable", "no such folder", "is it mounted?", BAD, False)
        meaning = "made when something is first written"
        path = _above(path)
    else:
        meaning = ""
    if not os.path.isdir(path):
        return Finding("reachable", f"{path} is no folder", "expected one", BAD, False)
    os.listdir(path)
    kind, where, _ = mounted_on(path)
    there = "" if path == place.place else "not there yet, on "
    if kind in _NETWORK:
        meaning = f"a network mount ({where}){'; ' if meaning else ''}{meaning}"
    return Finding("reachable", f"{there}{kind or 'unknown file system'}", meaning, GOOD, kind)


def is_network(kind: object) -> bool:
    """Whether a kind of file system, as the system calls it, is reached over a network."""
    return kind in _NETWORK


def _above(path: str) -> str:
    while not exists(path):
        path = os.path.dirname(path)
    return path


def mounted_on(path: str) -> tuple[str, str, list[str]]:
    """The kind of file system that a path lies on, its source, and its options."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found = ("", "", [""])
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            parts = line.split()
            if parts[2] == wanted:
                at = parts.index("-")
                found = (parts[at + 1], parts[at + 2], parts[5].split(","))
    return found


def _space(path: str) -> list[Finding]:
    found = os.statvfs(_above(path))
    whole, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    used = 1 - free / whole if whole else 0.0
    result = f"{size(free)} of {size(whole)} free"
    full = "nothing more can be written" if whole and not free else ""
    rows = [Finding("space", result, full, NOTE if used >= 0.9 else GOOD, round(used, 4))]  # noqa: PLR2004
    if found.f_files:
        share = 1 - found.f_favail / found.f_files
        result = f"{found.f_favail} of {found.f_files} free"
        rows.append(Finding("inodes", result, "", NOTE if share >= 0.9 else GOOD, round(share, 4)))  # noqa: PLR2004
    return rows


def _look(path: str) -> Finding:
    path = _above(path)

    def once() -> float:
        begun = time.perf_counter()
        os.stat(path)
        os.listdir(path)
        return time.perf_counter() - begun

    taken = median_of(once, 10)
    return Finding("look", milliseconds(taken), "a stat and a listing of the root", GOOD, taken)


# -- tried --------------------------------------------------------------------------------------


def cannot_write(place: Place, error: OSError) -> Finding:
    """What it means that nothing can be written in a place."""
    why = reason(error)
    if place.read_only:
        return Finding("rights", "only read", "as it is configured", GOOD, False)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Finding("rights", "full", f"{why}: it can be read, until there is room", NOTE, False)
    return Finding("rights", "cannot be written", f"{why}: nothing is published here", BAD, False)


def rights() -> Finding:
    """Who the current folder belongs to, and what is made in it.

    Raises
    ------
    OSError
        When nothing can be written.
    """
    found = os.stat(".")
    with beneath.opened(os.open("rights", os.O_CREAT | os.O_WRONLY, 0o666)) as file:
        beneath.write_all(file, b"x" * 4096, 0)
        os.fsync(file)
        mode = stat.S_IMODE(os.fstat(file).st_mode)
    group = ", folders keep their group (setgid)" if found.st_mode & stat.S_ISGID else ""
    result = f"can be written; new files {mode:04o}, owner {found.st_uid}:{found.st_gid}{group}"
    if found.st_uid != os.geteuid():
        return Finding("rights", result, "files belong to somebody else than who makes them", NOTE)
    return Finding("rights", result, "", GOOD, True)


def _rename() -> Finding:
    lost = "publication relies on it: artifacts can be lost here"
    for name, data in (("old", b"old"), ("new", b"new")):
        _write(name, data)
    os.rename("new", "old")
    with open("old", "rb") as file:
        if file.read() != b"new" or exists("new"):
            return Finding("rename", "a file is not replaced", lost, BAD, False)
    for folder in ("folder/inner", "full/inner"):
        os.makedirs(folder)
    try:
        os.rename("folder", "full")
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            result = "replaces files, refuses full folders"
            return Finding("rename", result, "", GOOD, True)
        meaning = "of two that publish one artifact at once, one fails with that error"
        return Finding("rename", f"full folders: {error.strerror}", meaning, NOTE, True)
    return Finding("rename", "a full folder is replaced", lost, BAD, False)


def _exchange() -> Finding:
    for name in ("one", "two"):
        os.makedirs(f"{name}/{name}")
    with beneath.opened(os.open(".", os.O_RDONLY)) as here:
        try:
            done = beneath.renameat2_exchange(here, "one", here, "two")
        except OSError:
            done = False
    if done and os.path.isdir("one/two"):
        return Finding("exchange", "two folders change places in one step", "", GOOD, True)
    meaning = "a replacement takes two steps; a reader that comes between does the second itself"
    return Finding("exchange", "not supported", meaning, NOTE, False)


def _links() -> Finding:
    _write("linked", b"x")
    try:
        os.link("linked", "link")
    except OSError as error:
        return Finding(
            "hard links", f"none ({error.strerror})", "the store needs none", GOOD, False
        )
    same = os.path.samefile("linked", "link")
    return Finding("hard links", "work" if same else "are copies", "", GOOD, same)


def _fsync() -> Finding:
    def once() -> float:
        file = os.open("synced", os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            os.write(file, b"x" * 4096)
            begun = time.perf_counter()
            os.fsync(file)
            return time.perf_counter() - begun
        finally:
            os.close(file)

    taken = median_of(once, 5)
    return Finding("fsync", milliseconds(taken), "to flush a file of 4 KiB", GOOD, taken)


def _syncfs() -> Finding:
    with beneath.opened(os.open(".", os.O_RDONLY)) as here:
        begun = time.perf_counter()
        try:
            beneath.syncfs(here)
        except OSError as error:
            meaning = "what is published may be lost when the machine stops at once"
            return Finding("syncfs", f"failed ({error.strerror})", meaning, NOTE, None)
        taken = time.perf_counter() - begun
    return Finding("syncfs", milliseconds(taken), "each publication waits for one", GOOD, taken)


def _sparse() -> Finding:
    with open("sparse", "wb") as file:
        file.truncate(_SPARSE)
        file.seek(_SPARSE - 1)
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())
        used = os.fstat(file.fileno()).st_blocks * 512
    if used < _SPARSE // 2:
        return Finding("sparse files", "holes take no space", "", GOOD, True)
    meaning = "a file takes its whole size from its first block on"
    return Finding("sparse files", "holes take space", meaning, GOOD, False)


def _reflink() -> Finding:
    _write("cloned", b"x" * 65536)
    with open("cloned", "rb") as source, open("clone", "wb") as target:
        try:
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
        except OSError:
            return Finding("reflink", "none", "copies take their whole space", GOOD, False)
    return Finding("reflink", "works", "copies can share their space", GOOD, True)


def _times() -> Finding:
    _write("time", b"x")
    wanted = 1_700_000_001_123_456_789
    os.utime("time", ns=(wanted, wanted))
    off = abs(os.stat("time").st_mtime_ns - wanted)
    kept = next((s for s in (1, 100, 1000, 10**6, 10**9, 2 * 10**9) if off < s), 0)
    result = f"kept to {milliseconds(kept / 1e9)}" if kept > 1 else "kept to the nanosecond"
    if not kept:
        return Finding(
            "times", "not kept", "files get the time at which they are copied", NOTE, off
        )
    meaning = "restored files get the times of their originals so exactly"
    return Finding("times", result, meaning, GOOD, kept / 1e9)


def _clock() -> Finding:
    before = time.time()
    _write("now", b"x")
    after = time.time()
    found = os.stat("now").st_mtime
    off = found - before if found < before else max(0.0, found - after)
    if abs(off) < 2:  # noqa: PLR2004 - file systems round to two seconds
        return Finding(
            "clock", f"{off:+.1f} s", "a fresh file's time against this clock", GOOD, off
        )
    meaning = "the place and this machine differ: ages that are shown are wrong by so much"
    return Finding("clock", f"{off:+.0f} s", meaning, NOTE, off)


def _case() -> Finding:
    _write("Case", b"x")
    if exists("cASE"):
        meaning = "artifacts with names that differ only so are refused"
        return Finding("case", "'A' and 'a' are one file", meaning, NOTE, False)
    return Finding("case", "'A' and 'a' are two files", "", GOOD, True)


def _unicode() -> Finding:
    composed, apart = "\u00e9", "e\u0301"
    _write(composed, b"x")
    listed = composed in os.listdir(".")
    same = exists(apart)
    if listed and not same:
        return Finding("unicode", "names are kept as they are", "", GOOD, True)
    result = "two spellings are one name" if same else "names come back spelt otherwise"
    return Finding("unicode", result, "use plain ASCII in the names of files", NOTE, False)


def _longest() -> Finding:
    def fits(length: int) -> bool:
        try:
            _write("n" * length, b"")
        except OSError:
            return False
        os.unlink("n" * length)
        return True

    low, high = 1, _NAME
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    state = GOOD if low == _NAME else NOTE
    meaning = "" if low == _NAME else f"elsewhere it is {_NAME}: some artifacts cannot be kept here"
    return Finding("longest name", f"{low} bytes", meaning, state, low)


def _latency() -> Finding:
    def once() -> float:
        begun = time.perf_counter()
        os.close(os.open("small", os.O_CREAT | os.O_WRONLY, 0o600))
        os.stat("small")
        os.unlink("small")
        return time.perf_counter() - begun

    taken = median_of(once)
    return Finding(
        "latency", milliseconds(taken), "to make, look at and delete a file", GOOD, taken
    )


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
