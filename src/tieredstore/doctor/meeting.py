"""Two runs that meet on a mounted place, on one node each, and try what they see of one another.

Each says what it has done by a file, ``<run>.<step>.json``, that it renames into the shared folder
``.tieredstore/doctor/meeting``, and waits a bounded time for the other's. The run whose name sorts
first leads.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from tieredstore.doctor.finding import GOOD, NOTE, Check, Finding, milliseconds
from tieredstore.doctor.locks import LOST, WON, try_fcntl, try_flock

FOLDER: Final = "meeting"
STEP: Final = 40.0  # seconds that one step may take
_STALE: Final = 30.0  # seconds that old attributes are waited for
_POLL: Final = 0.1
_FRESH: Final = 600.0  # seconds after which somebody's greeting is an old one


class Meeting:
    """One run's side of it.

    Parameters
    ----------
    folder : str
        The shared folder.
    run : str
        This run's own name.
    patience : float
        Seconds to wait for another to come.
    """

    def __init__(self, folder: str, run: str, patience: float) -> None:
        self._folder = folder
        self._run = run
        self._patience = patience
        self._other = ""
        self._said: list[str] = []

    def checks(self) -> list[Check]:
        """Wait for another run, then what the two can try."""
        return [Check("other node", self._meet, self._patience + STEP)]

    def _meet(self) -> list[Finding]:
        try:
            return self._met()
        finally:
            for path in self._said:
                with suppress(OSError):
                    os.unlink(path)

    def _met(self) -> list[Finding]:
        self._say("hello", {"host": socket.gethostname(), "boot": _boot()})
        other = self._wait_for(self._find, self._patience)
        if not other:
            meaning = "start tieredstore doctor --nodes 2 on two nodes within that time"
            result = f"none came within {self._patience:g} s"
            return [Finding("other node", result, meaning, NOTE, None)]
        self._other = other
        hello = self._hear("hello")
        here = hello["boot"] == _boot()
        where = f"{hello['host']}{', which is this node' if here else ''}"
        meaning = "two mounts of one node may agree where two nodes do not" if here else ""
        state = NOTE if here else GOOD
        found = [Finding("other node", where, meaning, state, not here)]
        leads = self._run < self._other
        steps = (self._locks, self._exclusive, self._changes, self._clocks)
        for step in steps:
            found += step(leads=leads)
        self._say("bye", {})
        self._wait_for(self._is_done, STEP)  # or it would miss what is taken away now
        return found

    def _is_done(self) -> bool:
        """Whether the other run needs nothing of this one any more: it has said so, or is gone."""
        there = self._listed()
        return f"{self._other}.bye.json" in there or f"{self._other}.hello.json" not in there

    # -- steps ----------------------------------------------------------------------------------

    def _locks(self, *, leads: bool) -> list[Finding]:
        found = []
        for name, lock in (("flock", try_flock), ("fcntl locks", try_fcntl)):
            step = name.replace(" ", "-")
            result = self._hold(step, lock) if leads else self._try(step, lock)
            found.append(_excludes(f"{name} across nodes", result))
        return found

    def _hold(self, step: str, lock: Callable[[int], int]) -> int:
        path = os.path.join(self._folder, f"{self._run}.{step}.lock")
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._said.append(path)
        try:
            held = lock(file)
            self._say(step, {"held": held})
            return int(self._hear(f"{step}-tried")["result"]) if held == WON else held
        finally:
            os.close(file)

    def _try(self, step: str, lock: Callable[[int], int]) -> int:
        held = int(self._hear(step)["held"])
        if held != WON:
            return held
        path = os.path.join(self._folder, f"{self._other}.{step}.lock")
        file = os.open(path, os.O_RDWR)  # made before its maker said so
        try:
            result = lock(file)
        finally:
            os.close(file)
        self._say(f"{step}-tried", {"result": result})
        return result

    def _exclusive(self, *, leads: bool) -> list[Finding]:
        """The leader makes a file exclusively; the other must not be able to make it again."""
        run = self._run if leads else self._other
        path = os.path.join(self._folder, f"{run}.exclusive")
        if leads:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            self._said.append(path)
            self._say("exclusive", {})
            made = bool(self._hear("exclusive-tried")["made"])
        else:
            self._hear("exclusive")
            made = True
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            except FileExistsError:
                made = False
            self._say("exclusive-tried", {"made": made})
        if made:
            meaning = "two nodes may both believe that they were first"
            return [Finding("O_EXCL across nodes", "both made one file", meaning, NOTE, False)]
        return [Finding("O_EXCL across nodes", "one of two makes a file", "", GOOD, True)]

    def _changes(self, *, leads: bool) -> list[Finding]:
        """How long the other node goes on seeing a file as it was before it was replaced."""
        run = self._run if leads else self._other
        path = os.path.join(self._folder, f"{run}.changing")
        if leads:
            _replace(path, b"1")
            self._said.append(path)
            self._say("there", {})
            self._hear("looked")
            _replace(path, b"22")
            self._say("changed", {})
            taken = float(self._hear("seen")["seconds"])
        else:
            self._hear("there")
            self._wait_for(lambda: os.stat(path).st_size == 1, STEP)
            self._say("looked", {})
            self._hear("changed")
            begun = time.monotonic()
            while time.monotonic() - begun < _STALE and not _has(path, 2):
                time.sleep(_POLL)
            taken = time.monotonic() - begun
            self._say("seen", {"seconds": taken})
        if taken < 1:
            return [
                Finding("stale attributes", f"seen within {milliseconds(taken)}", "", GOOD, taken)
            ]
        most = " and more" if taken >= _STALE else ""
        meaning = "another node goes on seeing the old copy for so long; each is whole"
        return [Finding("stale attributes", f"{taken:.0f} s{most}", meaning, NOTE, taken)]

    def _clocks(self, *, leads: bool) -> list[Finding]:
        """The other's clock read between two looks at ours."""
        if leads:
            before = time.time()
            self._say("time", {})
            there = float(self._hear("time")["time"])
            after = time.time()
            off = there - before if there < before else max(0.0, there - after)
            self._say("offset", {"seconds": off})
        else:
            self._hear("time")
            self._say("time", {"time": time.time()})
            off = -float(self._hear("offset")["seconds"])
        state = NOTE if abs(off) >= 2 else GOOD  # noqa: PLR2004 - seconds
        meaning = "no result depends on it; ages that are shown do" if state == NOTE else ""
        return [Finding("clock across nodes", f"{off:+.1f} s", meaning, state, off)]

    # -- what is said ---------------------------------------------------------------------------

    def _say(self, step: str, what: dict[str, Any]) -> None:
        path = os.path.join(self._folder, f"{self._run}.{step}.json")
        _replace(path, json.dumps(what).encode())
        self._said.append(path)

    def _hear(self, step: str) -> dict[str, Any]:
        path = os.path.join(self._folder, f"{self._other}.{step}.json")

        def look() -> dict[str, Any] | None:
            # What was once looked for in vain stays missing for a while on some mounts.
            if os.path.basename(path) not in self._listed():
                return None
            with open(path, "rb") as file:
                found: dict[str, Any] = json.load(file)
            return {"heard": True, **found}

        found = self._wait_for(look, STEP)
        if found is None:
            raise TimeoutError(f"the other run did not answer ({step}) within {STEP:g} s")
        return dict(found)

    def _listed(self) -> list[str]:
        """What is in the folder; a change of our own has a mount forget the listing it kept."""
        poke = os.path.join(self._folder, f"{self._run}.poke")
        os.close(os.open(poke, os.O_CREAT | os.O_WRONLY, 0o666))
        os.unlink(poke)
        return os.listdir(self._folder)

    def _find(self) -> str:
        """Another run that is here, and has met nobody else."""
        for name in sorted(self._listed()):
            run, _, step = name.rpartition(".hello.")
            path = os.path.join(self._folder, name)
            is_other = step == "json" and run != self._run
            if is_other and abs(time.time() - os.stat(path).st_mtime) < _FRESH:
                return run
        return ""

    def _wait_for(self, look: Callable[[], Any], seconds: float) -> Any:
        until = time.monotonic() + seconds
        while True:
            with suppress(FileNotFoundError, ValueError):
                found = look()
                if found:
                    return found
            if time.monotonic() >= until:
                return None
            time.sleep(_POLL)


def _excludes(name: str, result: int) -> Finding:
    if result == LOST:
        return Finding(name, "exclude the other node", "", GOOD, True)
    if result == WON:
        meaning = "each node believes that it holds the lock alone; nodes do work twice"
        return Finding(name, "do not exclude the other node", meaning, NOTE, False)
    return Finding(name, "not supported", "", NOTE, False)


def _boot() -> str:
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
    return socket.gethostname()


def _has(path: str, size: int) -> bool:
    with suppress(FileNotFoundError):
        return os.stat(path).st_size == size
    return False


def _replace(path: str, data: bytes) -> None:
    temporary = f"{path}.new"
    with open(temporary, "wb") as file:
        file.write(data)
    os.rename(temporary, path)
