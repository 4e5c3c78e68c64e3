"""A web server that misbehaves on request: standard library, threads of this process, loopback."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

DATE = "Sat, 01 Jan 2022 00:00:00 GMT"


class Asked:
    """One request, and the right answer to it; a fault changes it or answers itself.

    Attributes
    ----------
    data : bytes or None
        The file asked for, whole.
    status, headers, body
        What is answered. Without a ``Content-Length`` of its own the body's is sent.
    """

    def __init__(self, web: Web, handler: BaseHTTPRequestHandler) -> None:
        self.handler = handler
        self.method = handler.command
        self.path = unquote(handler.path.partition("?")[0]).lstrip("/")
        self.sent = dict(handler.headers.items())
        file = web.root / self.path
        self.data = file.read_bytes() if file.is_file() else None
        self.headers: dict[str, str] = {}
        self.status, self.body = 404, b"no such file"
        if self.data is not None:
            self.whole()
            self._range()

    def whole(self) -> None:
        """Answer with the whole file."""
        self.status, self.body = 200, self.data
        self.headers = {
            "ETag": f'"{hashlib.sha256(self.data).hexdigest()[:16]}"',
            "Last-Modified": DATE,
        }

    @property
    def span(self) -> tuple[int, int] | None:
        """First byte asked for and the one after the last."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.sent.get("Range", ""))
        if found is None or self.data is None:
            return None
        return int(found[1]), min(int(found[2]) + 1, len(self.data))

    def _range(self) -> None:
        if (
            self.span is None
            or self.sent.get("If-Range", self.headers["ETag"]) != self.headers["ETag"]
        ):
            return
        start, end = self.span
        if start >= len(self.data):
            self.status, self.body = 416, b""
            self.headers["Content-Range"] = f"bytes */{len(self.data)}"
            return
        self.status, self.body = 206, self.data[start:end]
        self.headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(self.data)}"

    def answer(self) -> None:
        """Send it."""
        self.handler.send_response(self.status)
        for name, value in {"Content-Length": str(len(self.body)), **self.headers}.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        if self.method != "HEAD":
            self.handler.wfile.write(self.body)


class Web:
    """A server of the folder ``root``.

    Attributes
    ----------
    fault : callable or None
        Called with each `Asked` before it is answered; returns whether it has answered itself.
    asked : list of Asked
        Every request so far.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fault: Callable[[Asked], object] | None = None
        self.asked: list[Asked] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked = Asked(web, self)
                web.asked.append(asked)
                if web.fault is None or not web.fault(asked):
                    asked.answer()

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                """A client that hangs up is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
