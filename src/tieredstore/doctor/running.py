"""Examine tiers, each in a process of its own that is ended when a check takes too long.

A process that waits for a mount which hangs may not even be ended; nobody waits for it either.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final

from tieredstore.backends.local import LocalBackend
from tieredstore.backends.offline import OfflineBackend
from tieredstore.doctor.finding import BAD, NOTE, Examined, Finding, Place
from tieredstore.tiers.tier import Tier
from tieredstore.workers import together

LIMIT: Final = 20.0  # seconds that one check may take
_START: Final = 15.0  # seconds more for the process to begin, on a busy machine
_AT_ONCE: Final = 8
_LAST_WORDS: Final = 1.0  # seconds that a process which was ended may take to be gone


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be examined, and how.

    Attributes
    ----------
    config : str or None
        The configuration file, as the command was given it.
    limit : float
        Seconds that one check may take.
    nodes : int
        How many runs are to meet: 1, or 2.
    wait : float
        Seconds to wait for the other run.
    names : tuple of str
        Artifacts that are known, for places that cannot be listed.
    """

    config: str | None = None
    limit: float = LIMIT
    nodes: int = 1
    wait: float = 60.0
    names: tuple[str, ...] = ()


def examine(tiers: Sequence[Tier], first: Tier, wanted: Wanted) -> list[Examined]:
    """Examine tiers, all at the same time; each ends within a bounded time, whatever it does."""
    return together([partial(_examine, t, wanted, first=t is first) for t in tiers], _AT_ONCE)


def place_of(tier: Tier, *, first: bool) -> Place:
    """What the checks need to know of a tier."""
    return Place(
        tier.name,
        type(tier.backend).__name__,
        tier.backend.place,
        mounted=isinstance(tier.backend, LocalBackend),
        durable=tier.durable,
        read_only=not tier.writable,
        deadline=tier.deadline,
        keeps_free=tier.space.min_free is not None,
        first=first,
    )


def _examine(tier: Tier, wanted: Wanted, *, first: bool) -> Examined:
    place = place_of(tier, first=first)
    if isinstance(tier.backend, OfflineBackend):
        found = Finding("reachable", "offline", "left out because of TIEREDSTORE_OFFLINE", NOTE)
        return Examined(place, (found,))
    child = _Child(place, wanted)
    child.run()
    return Examined(place, tuple(child.findings))


@dataclass(slots=True)
class _Child:
    """One process, and what it has said."""

    place: Place
    wanted: Wanted
    findings: list[Finding] = field(default_factory=list)
    _doing: str = "reachable"
    _seconds: float = 0.0

    def run(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "tieredstore.doctor.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        last: list[bytes] = []
        for work in (partial(_hand_on, process, lines), partial(_last_words, process, last)):
            threading.Thread(target=work, name="tieredstore-doctor", daemon=True).start()
        try:
            self._ask(process)
            self._listen(lines)
        finally:
            code = _end(process)
        if code and not any(f.state == BAD for f in self.findings):
            said = b"".join(last).decode(errors="replace").strip().splitlines() or [f"code {code}"]
            self._bad("ended early", said[-1][:300])

    def _ask(self, process: subprocess.Popen[bytes]) -> None:
        asked = {"place": asdict(self.place), **asdict(self.wanted)}
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(asked).encode())
            process.stdin.close()

    def _listen(self, lines: queue.SimpleQueue[bytes | None]) -> None:
        extra = _START
        while True:
            try:
                line = lines.get(timeout=max(self.wanted.limit, self._seconds) + extra)
            except queue.Empty:
                seconds = max(self.wanted.limit, self._seconds)
                self._bad(f"hangs: no answer within {seconds:g} s", "every use of it waits so")
                return
            if line is None:
                return
            extra = 0.0
            self._take(json.loads(line))

    def _take(self, said: dict[str, Any]) -> None:
        if "finding" in said:
            self.findings.append(Finding.read(said["finding"]))
        else:
            self._doing, self._seconds = str(said["begin"]), float(said["seconds"])

    def _bad(self, result: str, meaning: str) -> None:
        self.findings.append(Finding(self._doing, result, meaning, BAD, False))


def _hand_on(process: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    process.stdout.close()
    lines.put(None)


def _last_words(process: subprocess.Popen[bytes], words: list[bytes]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        words[:] = [*words, line][-5:]
    process.stderr.close()


def _end(process: subprocess.Popen[bytes]) -> int:
    """End a process and what it has started; its exit status, 0 where it had to be ended."""
    try:
        return process.wait(_LAST_WORDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LAST_WORDS)
        return 0
