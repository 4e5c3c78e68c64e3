"""What the Hub's server keeps and answers: files, repositories, faults, answers; no routes here."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class File:
    """A committed file; a large one's bytes are in the storage."""

    size: int
    blob: str
    sha256: str = ""
    data: bytes = b""

    @classmethod
    def regular(cls, data: bytes) -> File:
        """As git keeps it."""
        return cls(len(data), hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(), "", data)

    @classmethod
    def large(cls, sha256: str, size: int) -> File:
        """As git-lfs keeps it: a pointer."""
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return cls(size, hashlib.sha1(text.encode()).hexdigest(), sha256)


@dataclass
class Repo:
    """One repository: each commit's files, and the tip of its one branch."""

    private: bool = False
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    tip: str = ""

    def commit(self, files: dict[str, File]) -> str:
        """Add a commit on the tip."""
        text = f"{len(self.commits)} {self.tip} {sorted(files)}"
        self.tip = hashlib.sha1(text.encode()).hexdigest()
        self.commits[self.tip] = files
        return self.tip

    @property
    def files(self) -> dict[str, File]:
        """What is at the tip."""
        return self.commits[self.tip]


@dataclass
class Fault:
    """What happens instead of the right answer to a request, or before it.

    Attributes
    ----------
    match : str
        Regular expression for ``METHOD path``.
    skip, times : int
        How many matching requests are answered right first, and how many are not then.
    status, headers
        Answered instead.
    cut : int, optional
        Bytes of the body after which the connection is closed.
    before, after : callable, optional
        Called before the request is looked at, and when it has been answered but not sent.
    change : callable, optional
        Makes another body of the right one.
    """

    match: str
    skip: int = 0
    times: int = 1 << 30
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    before: Callable[[], Any] | None = None
    after: Callable[[], Any] | None = None
    change: Callable[[bytes], bytes] | None = None


@dataclass(frozen=True)
class Seen:
    """One line of the log."""

    method: str
    path: str
    host: str
    authorized: bool
    range: str
    status: int
    length: int


@dataclass
class Answer:
    """What is sent."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, **headers: str) -> Answer:
        """An API answer."""
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        return cls(200, json.dumps(value).encode(), {"Content-Type": "application/json", **named})

    @classmethod
    def error(cls, status: int, code: str, text: str) -> Answer:
        """An error as the Hub words it."""
        said = {"X-Error-Message": text, **({"X-Error-Code": code} if code else {})}
        return cls(status, json.dumps({"error": text}).encode(), said)


class Refused(Exception):
    """Ends a request with an error."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.answer = Answer.error(status, code, text)


def mode_of(path: str, size: int, sample: bytes) -> str:
    """How the Hub wants a file."""
    if size and (path.endswith(".bin") or size > 1 << 20 or b"\0" in sample[:512]):
        return "lfs"
    return "regular"


def entry_of(path: str, file: File) -> dict[str, Any]:
    """A file as a listing has it."""
    row = {"type": "file", "oid": file.blob, "size": file.size, "path": path}
    large = {"oid": file.sha256, "size": file.size, "pointerSize": 130}
    return {**row, "lfs": large} if file.sha256 else row


def ranged(asked: str, data: bytes, headers: dict[str, str]) -> Answer:
    """The range of a file that a ``Range`` header asks for, or all of it."""
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
    if found is None:
        return Answer(200, data, headers)
    first, end = int(found[1]), min(int(found[2]) + 1, len(data))
    if first >= len(data):
        return Answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
    said = {"Content-Range": f"bytes {first}-{end - 1}/{len(data)}"}
    return Answer(206, data[first:end], {**headers, **said})


def reset(live: socket.socket) -> None:
    """Close a connection so that the other side notices at once."""
    try:
        live.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        live.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
