"""nginx as a web server of static files: a process of its own on a free loopback port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_CONFIG = """
daemon off; master_process off; worker_processes 1;
pid {folder}/nginx.pid; error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
  log_format said '$request_method $status $bytes_sent $uri'; access_log {folder}/access.log said;
  client_body_temp_path {folder}/tmp; proxy_temp_path {folder}/tmp; fastcgi_temp_path {folder}/tmp;
  uwsgi_temp_path {folder}/tmp; scgi_temp_path {folder}/tmp;
  default_type application/octet-stream; etag on; sendfile on;
  server {{
    listen 127.0.0.1:{port}; root {root};
    location / {{ {limit} }}
  }}
}}
"""


def missing() -> str:
    """Why the server cannot be started here, or an empty text."""
    return "" if _program() else "nginx is not installed (apt-get install nginx-light)"


def _program() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass
class Nginx:
    """A server of one folder.

    Attributes
    ----------
    folder : Path
        Its configuration and logs.
    root : Path
        What it serves.
    port : int
        Kept when it is stopped and started again.
    """

    folder: Path
    root: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, limit: str = "") -> None:
        """Start it; it answers when this returns. ``limit``: directives for every file."""
        config = self.folder / "nginx.conf"
        said = {"folder": self.folder, "root": self.root, "port": self.port, "limit": limit}
        config.write_text(_CONFIG.format(**said))
        program = _program()
        assert program is not None, missing()
        self.process = subprocess.Popen(
            [program, "-p", str(self.folder), "-c", str(config), "-e", f"{self.folder}/error.log"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(200):
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
                return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"nginx did not start: {(self.folder / 'error.log').read_text()[-500:]}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the process that was started, and no other."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, how)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                os.kill(self.process.pid, signal.SIGKILL)
                self.process.wait(5)

    def said(self) -> list[tuple[str, int, int, str]]:
        """Method, status, bytes and path of each request that it has answered."""
        lines = (self.folder / "access.log").read_text().splitlines()
        rows = (line.split(" ", 3) for line in lines)
        return [(method, int(status), int(size), path) for method, status, size, path in rows]


def make(folder: Path, root: Path) -> Nginx:
    """A server that is not started yet."""
    folder.mkdir(parents=True, exist_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    return Nginx(folder, root, port)
