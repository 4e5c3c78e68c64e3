"""A reverse proxy that spoils a share of the requests to a server: threads, loopback.

It answers 500 or 503, breaks the connection before or after the server has done what it was asked,
and cuts bodies short. Which request meets what follows from a seed and the order they come in.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections import Counter
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP = {"connection", "expect", "keep-alive", "te", "transfer-encoding", "upgrade"}
WAYS = ("500", "503", "before", "after", "cut")


class FlakyProxy:
    """A running proxy.

    Attributes
    ----------
    share : float
        Which part of the requests is spoilt.
    met : Counter
        How often each way was taken, and ``""``: none.
    """

    def __init__(self, upstream: str, seed: int = 0) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.share = 0.0
        self.met: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            server_of = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def way(self) -> str:
        """What becomes of the next request."""
        with self._lock:
            spoilt = self._random.random() < self.share
            way = self._random.choice(WAYS) if spoilt else ""
            self.met[way] += 1
        return way

    def forward(self, method, path, headers, body):
        """Ask the server behind, and give its status, headers and body."""
        connection = HTTPConnection(self.upstream, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: FlakyProxy

    def log_message(self, *_) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        way = self.server_of.way()
        if way == "before":
            return self._break()
        if way in {"500", "503"}:
            code = {"500": "InternalError", "503": "SlowDown"}[way]
            text = f"<Error><Code>{code}</Code><Message>Spoilt.</Message></Error>".encode()
            return self._answer(int(way), [], text, len(text))
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
        status, given, data = self.server_of.forward(self.command, self.path, headers, body)
        if way == "after":
            return self._break()
        self._answer(status, given, data, len(data) // 2 if way == "cut" else len(data))
        if way == "cut":
            self._break()
        return None

    def _break(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.wfile.flush()
        self.connection.close()
        self.rfile.close()

    def _answer(self, status, headers, body, sent) -> None:
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in _HOP | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", length if status != 204 else "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _do  # noqa: N815
