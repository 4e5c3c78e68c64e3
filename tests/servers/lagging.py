"""A reverse proxy that makes an S3 server as late and lacking as RunPod's: threads, loopback.

It refuses to delete many keys at once, denies for a while what was just written, lists slowly, and
says of a completed upload that it timed out. What RunPod's documentation says of its server is
the measure (docs.runpod.io, "S3-compatible API").
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP = {"connection", "expect", "keep-alive", "te", "transfer-encoding", "upgrade"}
_CONDITIONS = {"if-match", "if-none-match"}
_LARGEST = 500_000_000  # bytes of one request


class LaggingProxy:
    """A running proxy.

    Attributes
    ----------
    lag : float
        Seconds for which a key is denied after it was written.
    listing : float
        Seconds that a listing takes longer.
    completing : float
        Seconds that the server goes on to complete an upload after it said that it timed out;
        0: it answers in time.
    bulk_delete, conditions : bool
        Whether many keys are deleted in one request; whether writes on a condition keep it.
    asked : Counter
        How often each kind of request was made.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.lag = self.listing = self.completing = 0.0
        self.bulk_delete, self.conditions = False, True
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.shown: dict[str, float] = {}
        self.pending: set[str] = set()
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

    def forward(self, method, path, headers, body):
        """Ask the server behind, and give its status, headers and body."""
        connection = HTTPConnection(self.upstream, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def written(self, path: str) -> None:
        with self.lock:
            self.shown[path] = time.monotonic() + self.lag

    def denies(self, path: str) -> bool:
        with self.lock:
            return time.monotonic() < self.shown.get(path, 0.0)

    def complete_late(self, path, headers, body) -> None:
        """Complete an upload in the background, once, however often it is asked for."""
        with self.lock:
            if path in self.pending:
                return
            self.pending.add(path)

        def later() -> None:
            time.sleep(self.completing)
            self.forward("POST", path, headers, body)
            self.written(path.partition("?")[0])

        threading.Thread(target=later, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: LaggingProxy

    def log_message(self, *_) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()

    def _do(self) -> None:
        proxy = self.server_of
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        kind = self._kind(path, query)
        proxy.asked[kind] += 1
        refused = self._refused(kind, path, body)
        if refused is not None:
            return self._answer(*refused)
        dropped = _HOP if proxy.conditions else _HOP | _CONDITIONS
        headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
        if kind == "complete" and proxy.completing:
            proxy.complete_late(self.path, headers, body)
            return self._answer(504, [], b"<Error><Code>GatewayTimeout</Code></Error>")
        if kind == "list":
            time.sleep(proxy.listing)
        answer = proxy.forward(self.command, self.path, headers, body)
        if kind in {"put", "complete"} and answer[0] == 200:
            proxy.written(path)
        return self._answer(*answer)

    def _kind(self, path: str, query: str) -> str:
        names = {pair.partition("=")[0] for pair in query.split("&")}
        in_bucket = path.strip("/").count("/") == 0
        if self.command == "POST":
            return "bulk" if "delete" in names else "begin" if "uploads" in names else "complete"
        if self.command == "GET" and in_bucket:
            return "list"
        if "uploadId" in names:
            return "part"
        return {"PUT": "put", "GET": "get", "HEAD": "get"}.get(self.command, "delete")

    def _refused(self, kind: str, path: str, body: bytes):
        proxy = self.server_of
        if kind == "bulk" and not proxy.bulk_delete:
            return 501, [], b"<Error><Code>NotImplemented</Code><Message>No.</Message></Error>"
        if kind == "get" and proxy.denies(path):
            return 404, [], b"<Error><Code>NoSuchKey</Code><Message>Not yet.</Message></Error>"
        if len(body) > _LARGEST:
            return 413, [], b"<Error><Code>EntityTooLarge</Code></Error>"
        return None

    def _answer(self, status, headers, body) -> None:
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
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _do  # noqa: N815
