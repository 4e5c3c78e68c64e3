"""Notes beside leases: how far a holder is, and how the last attempt failed; parse and emit.

People read them, and who waited for a build learns from one why it failed. No result depends on
a note, and no clock of another machine is compared with one's own: a note says how long its
holder has been at work, and the reader adds how long the note has been there.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from tieredstore.errors import BuildFailed, reason
from tieredstore.manifest.artifact import random_hex

MAX_NOTE: Final = 8192  # bytes
_WORD, _TEXT, _MESSAGE = 255, 200, 2000  # bytes of a host, of a text, of a reason
_LARGEST: Final = 1 << 62

_SECRETS: Final = (
    (re.compile(r"(?<=://)[^/\s@]*@"), ""),
    (re.compile(r"(://[^\s?'\"]*)\?[^\s'\")]*"), r"\1?…"),
    (
        re.compile(
            r"(?i)((?:token|secret|passw(?:or)?d|credential|signature|authorization|api.?key"
            r"|access.?key)\w*[\"']?\s*[:=]\s*[\"']?)(?:(?:bearer|basic)\s+)?[^\s\"',;&]+"
        ),
        r"\1…",
    ),
    (re.compile(r"(?i)\bbearer\s+\S+"), "bearer …"),
    (re.compile(r"\b(?:hf_|gh[a-z]_|github_pat_|sk-|AKIA|ASIA|xox[a-z]-)[\w-]{8,}"), "…"),
)


@dataclass(frozen=True, slots=True)
class Work:
    """How far the holder of a lease was when it wrote the note.

    Attributes
    ----------
    verb : str
        What it does: ``build``, ``restore``, ``promote``, …
    host, pid : str and int
        Which process it is.
    seconds : float
        How long it had held the lease, by its own monotonic clock.
    done, total : int
        How much is done of how much, in whatever it counts; ``total`` is 0 where it is not known.
    text : str
        A word on what it is at.
    """

    verb: str
    host: str
    pid: int
    seconds: float = 0.0
    done: int = 0
    total: int = 0
    text: str = ""

    @property
    def who(self) -> str:
        """The holder in words."""
        return who(self.pid, self.host)


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed.

    Attributes
    ----------
    attempt : str
        Another for each attempt and each lease.
    host, pid : str and int
        Whose it was.
    when : int
        Seconds since 1970 by that machine's clock; for people.
    message : str
        Why, in one line.
    count : int
        How many have failed since one succeeded, this one included.
    """

    attempt: str
    host: str
    pid: int
    when: int
    message: str
    count: int = 1

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """A new one, of what was raised here, or of what another's attempt is said to have raised.

        What looks like a secret is left out of the message, and it is cut to some 2,000 bytes.
        """
        own = me()
        if isinstance(error, BuildFailed):
            return cls(random_hex(8), error.host, error.pid, error.when, _cut(error.why, _MESSAGE))
        message = _cut(without_secrets(reason(error)), _MESSAGE)
        return cls(random_hex(8), *own, int(time.time()), message)

    def error(self, name: str) -> BuildFailed:
        """What those are told who waited for it."""
        return BuildFailed(name, self.message, pid=self.pid, host=self.host, when=self.when)


@dataclass(frozen=True, slots=True)
class Note:
    """What lies beside a lease: of the attempt that goes on, and of the last one that failed."""

    work: Work | None = None
    failed: Failure | None = None

    def emit(self) -> bytes:
        """The note's bytes; none where it says nothing."""
        if self.work is None and self.failed is None:
            return b""
        parts = {"work": self.work, "failed": self.failed}
        body = {key: None if part is None else asdict(part) for key, part in parts.items()}
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """What the bytes say; whatever is no note says nothing."""
        if not data or len(data) > MAX_NOTE:
            return cls()
        try:
            found = json.loads(data)
            return cls(_work(found.get("work")), _failure(found.get("failed")))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return cls()


def me() -> tuple[str, int]:
    """Host and number of the process that asks."""
    return _cut(socket.gethostname(), _WORD), os.getpid()


def who(pid: int, host: str) -> str:
    """A process in words."""
    return f"process {pid} on {host}"


def work_of(verb: str, done: int, total: int, text: str, seconds: float) -> Work:
    """How far this process is."""
    host, pid = me()
    done, total = (min(max(int(n), 0), _LARGEST) for n in (done, total))
    return Work(verb, host, pid, round(seconds, 1), done, total, _cut(text, _TEXT))


def without_secrets(text: str) -> str:
    """A message without what looks like a password, a key, or the query of a signed address."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def _work(found: Mapping[str, Any] | None) -> Work | None:
    if found is None:
        return None
    seconds = float(found["seconds"])
    if not 0 <= seconds < _LARGEST:
        raise ValueError("no time that somebody could have worked")
    done, total = (_number(found[key]) for key in ("done", "total"))
    verb, host, text = (_cut(str(found[key]), _TEXT) for key in ("verb", "host", "text"))
    return Work(verb, host, _number(found["pid"]), seconds, done, total, text)


def _failure(found: Mapping[str, Any] | None) -> Failure | None:
    if found is None:
        return None
    attempt, host = (_cut(str(found[key]), _WORD) for key in ("attempt", "host"))
    message = _cut(str(found["message"]), _MESSAGE)
    pid, when, count = (_number(found[key]) for key in ("pid", "when", "count"))
    return Failure(attempt, host, pid, when, message, count)


def _number(found: Any) -> int:
    if type(found) is not int or not 0 <= found <= _LARGEST:
        raise ValueError("no number that could be meant")
    return found


def _cut(text: str, size: int) -> str:
    """One line of at most so many bytes."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    data = line.encode("utf-8", "replace")
    return line if len(data) <= size else data[: size - 3].decode("utf-8", "ignore") + "…"
