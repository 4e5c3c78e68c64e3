"""HTTP/1.1 on connections of our own: whole requests out, answers right into the caller's memory.

A client that hands each range over in memory of its own has the kernel clear that memory first,
which costs as much again as receiving it, and one that works in threads of its own hands every
small object from thread to thread. Here the thread that asks does all of it. One attempt each:
what to do about a failure is for the caller to say. Framing as in RFC 9112: what is unusual is
refused, and the caller goes another way.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Self
from urllib.parse import urlsplit

from tieredstore.backends.s3.access import CONNECT
from tieredstore.errors import reason

_CHUNK: Final = 1 << 20  # bytes handed to the socket at once, so that a stall is noticed
_HEAD: Final = 1 << 16  # bytes of status line and header fields, and of what comes with them
_IDLE: Final = 256  # connections that are kept for the next request
CHUNKED: Final = -1
_SIZE: Final = 64  # bytes that the line with a chunk's length has at most
_HEXADECIMAL: Final = re.compile(rb"[0-9a-fA-F]{1,8}")
_BODILESS: Final = frozenset({204, 304})
# Asks the kernel to acknowledge at once what arrives. A server that sends an answer's head and
# body apart, as Ceph's gateway does, otherwise waits 40 ms for the delayed acknowledgement.
_QUICKACK: Final = getattr(socket, "TCP_QUICKACK", None)


class NoAnswer(Exception):
    """No answer came, or one that this client does not read."""


class Wire:
    """Connections to one server; used by several threads.

    Parameters
    ----------
    url : str
        Scheme, host and port are used.
    answer : float
        Seconds to wait for the next byte.
    certificates : str or None
        A file or folder of the certificates that servers are checked with, if not the system's.
    """

    def __init__(self, url: str, answer: float, certificates: str | None = None) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc.rpartition("@")[2]
        self._secure = parts.scheme == "https"
        self._address = parts.hostname or "", parts.port or (443 if self._secure else 80)
        self._answer = answer
        self._certificates = certificates
        self._context: ssl.SSLContext | None = None
        self._idle: list[_Connection] = []
        self._process = os.getpid()

    def ask(
        self,
        method: str,
        target: str,
        fields: Mapping[str, str],
        body: bytes | memoryview = b"",
    ) -> Incoming:
        """Send a request and read the head of its answer.

        Parameters
        ----------
        method, target : str
            Of the request line.
        fields : mapping
            Header fields; ``Host`` and ``Content-Length`` are added.
        body : bytes-like
            What is sent with it.

        Raises
        ------
        NoAnswer
            When the server cannot be reached, says nothing in time, or answers unusually.
        """
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        if len(body) or method in {"PUT", "POST"}:
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        connection: _Connection | None = None
        try:
            connection = self._taken()
            connection.send(head, memoryview(body))
            return Incoming(self, connection, method)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, OSError):
                raise NoAnswer(reason(error)) from error
            raise

    def give_back(self, connection: _Connection) -> None:
        """Keep a connection, whose answer has been read to its end, for the next request."""
        if len(self._idle) < _IDLE and self._process == os.getpid():
            self._idle.append(connection)
        else:
            connection.close()

    def _taken(self) -> _Connection:
        if self._process != os.getpid():  # a forked child must not talk on its parent's sockets
            self._idle, self._process = [], os.getpid()
        with suppress(IndexError):
            return self._idle.pop()
        plain = socket.create_connection(self._address, CONNECT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.settimeout(self._answer)
        return _Connection(self._wrapped(plain) if self._secure else plain)

    def _wrapped(self, plain: socket.socket) -> ssl.SSLSocket:
        if self._context is None:
            where = self._certificates
            if where is not None and os.path.isdir(where):
                self._context = ssl.create_default_context(capath=where)
            else:
                self._context = ssl.create_default_context(cafile=where)
        try:
            return self._context.wrap_socket(plain, server_hostname=self._address[0])
        except BaseException:
            plain.close()
            raise


class _Connection:
    """A socket, closed at the latest with this object, and memory for the heads of answers."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.close = weakref.finalize(self, _close, sock)
        self.head = bytearray(_HEAD)

    def send(self, head: bytes, body: memoryview) -> None:
        """Send a request: a small one in one packet; a server that stops listening may answer."""
        with suppress(BrokenPipeError, ConnectionResetError):
            if len(body) <= _HEAD:
                self._socket.sendall(head + body)
                return
            self._socket.sendall(head)
            for at in range(0, len(body), _CHUNK):
                self._socket.sendall(body[at : at + _CHUNK])

    def receive(self, view: memoryview) -> int:
        """Some bytes, at least one.

        Raises
        ------
        ConnectionError
            When the server has closed the connection.
        """
        if _QUICKACK is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        got = self._socket.recv_into(view)
        if not got:
            raise ConnectionResetError("the server closed the connection")
        return got


class Incoming:
    """The answer to a request, its body not yet read; closing it early closes the connection.

    Attributes
    ----------
    status : int
        Of the answer.
    fields : dict
        Its header fields, their names in lower case.
    left : int
        Bytes of its body that have not been read; `CHUNKED` where it does not say how many.
    """

    def __init__(self, wire: Wire, connection: _Connection, method: str) -> None:
        self._wire = wire
        self._connection: _Connection | None = connection
        buffer, got, end = connection.head, 0, -1
        whole = memoryview(buffer)
        while end < 0:
            if got == len(buffer):
                raise NoAnswer("a longer head than is read")
            begin = max(0, got - 3)
            got += connection.receive(whole[got:])
            end = buffer.find(b"\r\n\r\n", begin, got)
        self.status, self.fields = _parsed(buffer[:end].decode("latin-1"))
        self.left = self._length(method)
        self._ahead = whole[end + 4 : got]
        if CHUNKED < self.left < len(self._ahead):
            raise NoAnswer("more bytes than were announced")

    def _length(self, method: str) -> int:
        if method == "HEAD" or self.status in _BODILESS:
            return 0
        length = self.fields.get("content-length", "")
        coding = self.fields.get("transfer-encoding", "")
        if coding.lower() == "chunked" and not length:
            return CHUNKED
        if coding or not (length.isascii() and length.isdigit()):
            raise NoAnswer("a body without a length")
        return int(length)

    def readinto(self, view: memoryview) -> None:
        """Fill memory with the next bytes of the body, of which there have to be as many."""
        if len(view) > self.left or self._connection is None:
            raise NoAnswer(f"{self.left} bytes left, {len(view)} expected")
        at = min(len(self._ahead), len(view))
        view[:at] = self._ahead[:at]
        self._ahead = self._ahead[at:]
        try:
            while at < len(view):
                at += self._connection.receive(view[at : at + _CHUNK])
        except OSError as error:
            raise NoAnswer(reason(error)) from error
        self.left -= len(view)

    def read(self, limit: int) -> bytes:
        """All of the body; `NoAnswer` when it is longer than that."""
        if self.left == CHUNKED:
            return self._chunks(limit)
        if self.left > limit:
            raise NoAnswer(f"{self.left} bytes, at most {limit} expected")
        data = bytearray(self.left)
        self.readinto(memoryview(data))
        return bytes(data)

    def _chunks(self, limit: int) -> bytes:
        raw, body, at = bytearray(self._ahead), bytearray(), 0
        while True:
            while (end := raw.find(b"\r\n", at)) < 0 and len(raw) - at < _SIZE:
                self._more(raw)
            size = bytes(raw[at:end] if end >= 0 else b"").partition(b";")[0].strip()
            if not _HEXADECIMAL.fullmatch(size):
                raise NoAnswer(f"{bytes(raw[at : at + _SIZE])!r} is no length of a chunk")
            at, length = end + 2, int(size, 16)
            if len(body) + length > limit:
                raise NoAnswer(f"more than {limit} bytes")
            while len(raw) < at + length + 2:
                self._more(raw)
            body += raw[at : at + length]
            at += length + 2
            if raw[at - 2 : at] != b"\r\n":
                raise NoAnswer("a chunk of another length than it says, or fields behind the last")
            if not length:
                break
        self.left, self._ahead = 0, memoryview(raw)[at:]
        return bytes(body)

    def _more(self, raw: bytearray) -> None:
        assert self._connection is not None
        view = memoryview(self._connection.head)
        try:
            raw += view[: self._connection.receive(view)]
        except OSError as error:
            raise NoAnswer(reason(error)) from error

    def close(self) -> None:
        """Let go of the connection: kept where the body has been read and the server keeps it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        kept = self.fields.get("connection", "").lower() != "close"
        if kept and self.left == len(self._ahead):  # the rest has come with what was read
            self._wire.give_back(connection)
        else:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parsed(head: str) -> tuple[int, dict[str, str]]:
    """Status and header fields of an answer."""
    first, *lines = head.split("\r\n")
    version, _, rest = first.partition(" ")
    code = rest[:3]
    if version != "HTTP/1.1" or not (code.isascii() and code.isdigit()) or code < "200":
        raise NoAnswer(f"{first[:60]!r}")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.lower(), value.strip()
        if not colon or not name.isprintable() or " " in name:
            raise NoAnswer(f"{line[:60]!r} is no header field")
        if fields.setdefault(name, value) != value and name == "content-length":
            raise NoAnswer("two lengths")
    return int(code), fields


def _close(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.close()
