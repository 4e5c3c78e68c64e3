"""A TCP proxy on loopback that fails on request: threads of this process, standard library.

It knows nothing of what is said through it. Only what goes wrong between a client and a server
belongs here; what a server says wrong stands in ``web.py``.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal

_CHUNK: Final = 1 << 16
_TICK: Final = 0.02  # seconds between two looks at what is asked for now


@dataclass
class Line:
    """One direction. Every attribute may be set at any time and counts from then on.

    Attributes
    ----------
    latency : float
        Seconds that the first bytes after the other side's last ones take.
    bandwidth : float or None
        Bytes a second, for all connections together.
    after : int or None
        After so many bytes of a connection ``how`` happens to it.
    how : str
        ``reset``: the connection breaks at both ends; ``stall``: no further byte passes for as
        long as it is asked for.
    times : int or None
        To how many connections it happens; ``None``: to each.
    sent : int
        Bytes that have passed, of all connections.
    """

    latency: float = 0.0
    bandwidth: float | None = None
    after: int | None = None
    how: Literal["reset", "stall"] = "reset"
    times: int | None = None
    sent: int = 0
    _free_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def fail(
        self, how: Literal["reset", "stall"], after: int = 0, times: int | None = None
    ) -> None:
        """Let connections fail from now on."""
        self.how, self.times, self.after = how, times, after

    def heal(self) -> None:
        """Let everything pass; connections that stall go on."""
        self.latency, self.bandwidth, self.after, self.times = 0.0, None, None, None

    def left(self, sent: int) -> int | None:
        """How many more bytes a connection may send that has sent so many; ``None``: any."""
        if self.after is None or self.times == 0:
            return None
        return max(0, self.after - sent)

    def strikes(self) -> bool:
        """Whether the fault happens to one more connection, and count it."""
        with self._lock:
            if self.after is None or self.times == 0:
                return False
            if self.times is not None:
                self.times -= 1
            return True

    def pace(self, size: int) -> None:
        """Wait until so many bytes have had their time on the line, and count them."""
        with self._lock:
            self.sent += size
            if self.bandwidth is None:
                return
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / self.bandwidth
            wait = self._free_at - now
        time.sleep(wait)


class FaultProxy:
    """Forwards connections to a port on this machine.

    Attributes
    ----------
    port : int
        Where it listens; kept when it refuses for a while.
    up, down : Line
        From the client to the server, and back.
    connections : int
        How many it has taken so far.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = ("127.0.0.1", upstream)
        self.up, self.down = Line(), Line()
        self.connections = 0
        self._open: set[_Connection] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self.port = 0
        self.accept()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def refuse(self) -> None:
        """Let nobody connect; connections that are open stay."""
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._listener.close()
            self._listener = None
        if self._thread is not None:
            self._thread.join(10)
            self._thread = None

    def accept(self) -> None:
        """Let connect again, on the same port."""
        if self._listener is not None:
            return
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._thread.start()

    def reset_all(self) -> None:
        """Break every connection that is open."""
        with self._lock:
            found = list(self._open)
        for connection in found:
            connection.reset()

    def stop(self) -> None:
        """End it, and every connection with it."""
        self.refuse()
        self._stopped.set()
        self.reset_all()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._upstream, 10)
            except OSError:
                _break(client)
                continue
            server.settimeout(None)
            connection = _Connection(client, server, self._stopped)
            with self._lock:
                self.connections += 1
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: _Connection) -> None:
        connection.serve(self.up, self.down)
        with self._lock:
            self._open.discard(connection)


class _Connection:
    """A client's socket and the server's, and two threads that pump between them."""

    def __init__(
        self, client: socket.socket, server: socket.socket, stopped: threading.Event
    ) -> None:
        self._client = client
        self._server = server
        self._stopped = stopped
        self._speaker: Line | None = None
        self._broken = False

    def serve(self, up: Line, down: Line) -> None:
        """Pump until both sides have ended."""
        other = threading.Thread(
            target=self._pump, args=(up, self._client, self._server), daemon=True
        )
        other.start()
        self._pump(down, self._server, self._client)
        other.join()
        self._client.close()
        self._server.close()

    def reset(self) -> None:
        """Break it at both ends."""
        self._broken = True
        for end in (self._client, self._server):
            _break(end)

    def _pump(self, line: Line, source: socket.socket, target: socket.socket) -> None:
        sent = 0
        try:
            while data := source.recv(_CHUNK):
                if self._speaker is not line:
                    self._speaker = line
                    time.sleep(line.latency)
                sent = self._forward(line, data, sent, target)
            if not self._broken:  # else the end that is broken last would see an orderly one
                target.shutdown(socket.SHUT_WR)
        except OSError:
            self.reset()

    def _forward(self, line: Line, data: bytes, sent: int, target: socket.socket) -> int:
        left = line.left(sent)
        if left is not None and left < len(data) and line.strikes():
            sent += self._send(line, data[:left], target)
            data = data[left:]
            if line.how == "reset":
                raise ConnectionResetError
            while line.after is not None and line.how == "stall" and not self._stopped.is_set():
                time.sleep(_TICK)
        return sent + self._send(line, data, target)

    @staticmethod
    def _send(line: Line, data: bytes, target: socket.socket) -> int:
        line.pace(len(data))
        target.sendall(data)
        return len(data)


def _break(end: socket.socket) -> None:
    """Close a socket so that its other end is told of a reset."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        end.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
    end.close()
