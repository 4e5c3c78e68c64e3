"""Servers that are no use, on loopback: they refuse, hang, deny, fail, or cannot be reached."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

KINDS = ("refuses", "hangs", "denies", "fails", "black hole")
_REST = b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_ANSWERS = {
    "denies": b"HTTP/1.1 403 Forbidden" + _REST,
    "fails": b"HTTP/1.1 500 Internal Server Error" + _REST,
}


class Dead:
    """A port of loopback that behaves as its ``kind`` says.

    Attributes
    ----------
    port : int
        Where it is.
    came : int
        Connections that were made to it.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.came = 0
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._held: list[socket.socket] = []
        self._thread: threading.Thread | None = None
        if kind == "black hole":
            self._fill()
        elif kind != "refuses":
            self._socket.listen(128)
            self._thread = threading.Thread(target=self._serve)
            self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _fill(self) -> None:
        """Fill the queue of those who wait to be let in: further ones get no answer at all."""
        self._socket.listen(0)
        for _ in range(8):
            waiting = socket.socket()
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(("127.0.0.1", self.port))
            self._held.append(waiting)

    def _serve(self) -> None:
        while True:
            try:
                came, _ = self._socket.accept()
            except OSError:
                return
            self.came += 1
            answer = _ANSWERS.get(self.kind)
            if answer is None:
                self._held.append(came)
                continue
            with contextlib.suppress(OSError), came:
                came.settimeout(5)
                came.recv(65536)
                came.sendall(answer)

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if self._thread is not None:
            self._thread.join(10)
        for each in self._held:
            each.close()


@contextlib.contextmanager
def dead(kind: str) -> Iterator[Dead]:
    """A server for the time of a ``with`` block."""
    server = Dead(kind)
    try:
        yield server
    finally:
        server.stop()
