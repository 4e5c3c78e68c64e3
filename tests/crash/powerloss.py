"""What a loss of power at one moment leaves of a folder, worked out from a trace of its changes.

The trace is that of ``tests/servers/lossyfs.py``; nothing here knows of the store. What holds:

- a file's bytes, size, mode and time are safe after ``fsync`` of that file, its name is not;
- a name (made, renamed, exchanged or removed) is safe after ``fsync`` of a folder that it was in,
  with the earlier changes of the same names; a rename between two folders is one step;
- a folder that is safe below one whose name was never synced is lost with it;
- ``syncfs`` makes all of one file system safe.

Of everything else nothing may be left (`STRICT`), all names and no bytes (`NAMES`: a rename that
came before its data), or any of it in any order (`TORN`): each name, and each page of 4096 bytes,
by itself, so that writes are torn at the borders of pages. A page that is lost below the end of
its file reads as what was there before, or as zeros.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

PAGE = 4096  # bytes
STRICT, NAMES, TORN = "strict", "names", "torn"


def _numbered():
    path = Path(__file__).parent.parent / "servers" / "lossyfs.py"
    spec = importlib.util.spec_from_file_location("powerloss_lossyfs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.numbered


@dataclass
class File:
    """What of a file is safe, and what has been done to it since."""

    data: bytes = b""
    mode: int = 0o600
    mtime_ns: int = 0
    since: list = field(default_factory=list)

    def after(self, changes, page_lives):
        """The file after some changes, of whose pages those are left that ``page_lives`` says."""
        data, mode, mtime = bytearray(self.data), self.mode, self.mtime_ns
        for what, *rest in changes:
            if what == "meta":
                mode, mtime = rest
            elif what == "truncate":
                data = data[: rest[0]].ljust(rest[0], b"\0")
            else:
                offset, new = rest
                data = data.ljust(offset + len(new), b"\0")
                for at in range(offset - offset % PAGE, offset + len(new), PAGE):
                    if page_lives():
                        begin, end = max(at, offset), min(at + PAGE, offset + len(new))
                        data[begin:end] = new[begin - offset : end - offset]
        return File(bytes(data), mode, mtime)


@dataclass
class Change:
    """One step in the names: what each of them means afterwards, ``None`` for nothing.

    A folder that it takes away was ``emptied`` before, and stays where one of those steps is lost.
    """

    names: dict
    emptied: int | None = None

    def rests_on(self, earlier):
        """Whether this step cannot be left without an earlier one."""
        return any(slot in self.names or slot[0] == self.emptied for slot in earlier.names)


class Disk:
    """What is safe of a folder, and what is not, while its trace is followed.

    Parameters
    ----------
    begin : path
        The folder as it was when the trace began; all of it is safe.
    """

    def __init__(self, begin):
        self.folders, self.files, self.system, self.since = {}, {}, {}, []
        numbers = dict(_numbered()(begin))
        for path, number in numbers.items():
            real = os.path.join(begin, path)
            if os.path.isdir(real):
                self.folders[number] = {}
            else:
                found = os.stat(real)
                data = Path(real).read_bytes()
                self.files[number] = File(data, found.st_mode & 0o7777, found.st_mtime_ns)
            if path:
                above, name = os.path.split(path)
                self.folders[numbers[above]][name] = number
                self.system[number] = numbers[path.split("/")[0]]
        self.now = {n: dict(names) for n, names in self.folders.items()}

    # -- following the trace --------------------------------------------------------------------

    def follow(self, what, *rest):
        """One entry of the trace."""
        getattr(self, f"_{what}")(*rest)

    def _make(self, folder, name, number, kind, mode):
        self.system[number] = self.system[folder]
        if kind == "folder":
            self.folders[number], self.now[number] = {}, {}
        else:
            self.files[number] = File(mode=mode)
        self._change({(folder, name): number})

    def _rename(self, folder, name, folder_t, name_t):
        number = self.now[folder][name]
        self._change({(folder, name): None, (folder_t, name_t): number})

    def _exchange(self, folder, name, folder_t, name_t):
        one, other = self.now[folder][name], self.now[folder_t][name_t]
        self._change({(folder, name): other, (folder_t, name_t): one})

    def _unlink(self, folder, name):
        self._change({(folder, name): None})

    def _change(self, names):
        gone = {self.now[folder].get(name) for folder, name in names} - set(names.values())
        self.since.append(Change(names, next((n for n in gone if n in self.folders), None)))
        _apply(self.now, names)

    def _write(self, number, offset, data):
        self.files[number].since.append(("write", offset, data))

    def _truncate(self, number, length):
        self.files[number].since.append(("truncate", length))

    def _meta(self, number, mode, mtime_ns):
        self.files[number].since.append(("meta", mode, mtime_ns))

    def _mark(self, text):
        pass

    def _fsync(self, number):
        if number in self.files:
            self._save(number)
        else:
            self._keep(lambda folder: folder == number)

    def _syncfs(self, system):
        self._keep(lambda folder: self.system[folder] == system)
        for number, file in self.files.items():
            if file.since and self.system[number] == system:
                self._save(number)

    def _save(self, number):
        file = self.files[number]
        self.files[number] = file.after(file.since, lambda: True)

    def _keep(self, chosen):
        """Make those changes safe that touch a chosen folder, and what they rest on."""
        kept, left = [], []
        for change in reversed(self.since):
            touched = any(chosen(folder) for folder, _ in change.names)
            if touched or any(later.rests_on(change) for later in kept):
                kept.append(change)
            else:
                left.append(change)
        for change in reversed(kept):
            _apply(self.folders, change.names)
        self.since = left[::-1]

    # -- losing power ---------------------------------------------------------------------------

    def left(self, how, chance, to):
        """Write what is left to the new folder ``to``; ``chance`` is a `random.Random`."""
        folders = {n: dict(names) for n, names in self.folders.items()}
        lost = []
        for change in self.since if how != STRICT else ():
            rests = any(change.rests_on(earlier) for earlier in lost)
            if rests or (how == TORN and chance.random() < 1 / 2):
                lost.append(change)
            else:
                _apply(folders, change.names)
        self._write_out(1, folders, how, chance, to)

    def _write_out(self, number, folders, how, chance, to):
        os.mkdir(to)
        for name, inner in folders[number].items():
            path = os.path.join(to, name)
            if inner in folders:
                self._write_out(inner, folders, how, chance, path)
                continue
            file = self._survivor(self.files[inner], how, chance)
            with open(path, "wb") as out:
                out.write(file.data)
            os.chmod(path, file.mode)
            os.utime(path, ns=(file.mtime_ns, file.mtime_ns))

    def _survivor(self, file, how, chance):
        if how != TORN or not file.since:
            return file
        changes = file.since[: chance.randint(0, len(file.since))]
        return file.after(changes, lambda: chance.random() < 1 / 2)


def _apply(folders, names):
    for (folder, name), number in names.items():
        if number is None:
            folders[folder].pop(name, None)
        else:
            folders[folder][name] = number


def lose(disk, how, chance, to):
    """`Disk.left`, where a folder of an earlier loss may be in the way."""
    shutil.rmtree(to, ignore_errors=True)
    disk.left(how, chance, to)
