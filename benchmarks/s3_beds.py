"""The two servers that the S3 benchmark talks to: nginx as a source and sink, Ceph's gateway.

A bed says where it listens, puts the source there, says what arrived, forgets it, and counts the
seconds that its processes have worked.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

BUCKET = "bench"
_LISTING = Path(__file__).with_name("s3_listing.py")
_SERVERS = Path(__file__).parents[1] / "tests" / "servers"
_TICKS = os.sysconf("SC_CLK_TCK")
_NGINX = """\
{user}daemon off; worker_processes 2;
pid {folder}/nginx.pid; error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  client_max_body_size 0; client_body_buffer_size 1m;
  client_body_temp_path {root}/.tmp; proxy_temp_path {folder}/tmp; fastcgi_temp_path {folder}/tmp;
  uwsgi_temp_path {folder}/tmp; scgi_temp_path {folder}/tmp;
  default_type application/octet-stream; etag on;
  server {{
    listen 127.0.0.1:{port} reuseport; root {root};
    location / {{
      dav_methods PUT DELETE; create_full_put_path on; dav_access user:rw;
      if ($request_method = PUT) {{ add_header ETag '"{etag}"' always; }}
      if ($arg_partNumber) {{ rewrite ^/(.*)$ /.parts/$1/$arg_partNumber last; }}
      if ($request_method = POST) {{ rewrite ^ /.post last; }}
      if ($args ~ "list-type=2") {{ rewrite ^ /.list last; }}
    }}
    location = /{bucket} {{
      if ($args ~ "list-type=2") {{ rewrite ^ /.list last; }}
      return 200;
    }}
    location /.parts/ {{
      dav_methods PUT; create_full_put_path on; dav_access user:rw;
      add_header ETag '"{etag}"' always;
    }}
    location = /.list {{ proxy_pass http://127.0.0.1:{lists}; }}
    location = /.post {{
      default_type application/xml;
      if ($args ~ "^uploads") {{ return 200 '<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>k</Key><UploadId>u</UploadId></InitiateMultipartUploadResult>'; }}
      return 200 '<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>k</Key><ETag>"{etag}-1"</ETag></CompleteMultipartUploadResult>';
    }}
  }}
}}
"""  # noqa: E501 - nginx takes no line break within its strings, and S3 none before its XML
_ETAG = "sink"  # no MD5, and it must not look like one: rclone would compare it


class Bed(ABC):
    """A server that has been started."""

    name: str
    port: int
    environment: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def offer(self, served: Path) -> None:
        """Put the folder ``served`` at the root of the bucket."""

    @abstractmethod
    def arrived(self, prefix: str, folder: Path) -> Path:
        """A folder with what lies below a prefix now; ``folder`` may be used for it."""

    @abstractmethod
    def forget(self, prefix: str) -> None:
        """Delete what lies below a prefix."""

    @abstractmethod
    def pids(self) -> list[int]:
        """Its processes."""

    @abstractmethod
    def stop(self) -> None:
        """End the processes that were started, and no others."""

    def worked(self) -> float:
        """Seconds of processor time that its processes have used so far."""
        return sum(_processor_time(pid) for pid in self.pids())


def busy() -> float:
    """Seconds of processor time that everything on this machine has used so far."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def settle(patience: float) -> None:
    """Wait until the machine works on nothing, so many seconds at most."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        before = busy()
        time.sleep(0.25)
        if busy() - before < 0.05:
            return


def _processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Nginx(Bed):
    """Files as objects; what is uploaded is kept as it comes, parts beside one another."""

    name = "nginx"

    def __init__(self, folder: Path) -> None:
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            raise SystemExit("nginx is not installed (apt-get install nginx-light)")
        self._root = folder / "root"
        for made in (self._root / BUCKET, folder / "tmp"):
            made.mkdir(parents=True)
        command = [sys.executable, "-I", "-S", str(_LISTING), str(self._root), BUCKET]
        self._lists = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._lists.stdout is not None
        lists = int(self._lists.stdout.readline())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.environment = _credentials("any", "any")
        said = {"folder": folder, "root": self._root, "port": self.port, "lists": lists}
        user = "user root; " if os.geteuid() == 0 else ""
        config = folder / "nginx.conf"
        config.write_text(_NGINX.format(**said, user=user, bucket=BUCKET, etag=_ETAG))
        self._process = subprocess.Popen([program, "-c", str(config), "-e", f"{folder}/error.log"])
        _wait_for(self.port)

    def offer(self, served: Path) -> None:
        shutil.copytree(served, self._root / BUCKET, copy_function=os.link, dirs_exist_ok=True)

    def arrived(self, prefix: str, folder: Path) -> Path:
        """Whole objects where they lie; parts are put together."""
        parts = self._root / ".parts" / BUCKET / prefix
        for first in parts.rglob("1"):
            target = folder / first.parent.relative_to(parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as whole:
                for part in sorted(first.parent.iterdir(), key=lambda p: int(p.name)):
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, whole, 1 << 20)
                    part.unlink()
        whole_ones = self._root / BUCKET / prefix
        if whole_ones.exists():
            shutil.copytree(whole_ones, folder, copy_function=os.link, dirs_exist_ok=True)
        return folder

    def forget(self, prefix: str) -> None:
        for below in (self._root / BUCKET, self._root / ".parts" / BUCKET):
            shutil.rmtree(below / prefix, ignore_errors=True)

    def pids(self) -> list[int]:
        own = self._process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, self._lists.pid, *map(int, children)]

    def stop(self) -> None:
        for process in (self._process, self._lists):
            process.terminate()
            process.wait(10)


class Ceph(Bed):
    """Ceph's gateway over memory, as the tests start it."""

    name = "ceph"

    def __init__(self, folder: Path, s5cmd: str) -> None:
        module = _server("ceph")
        if module.missing():
            raise SystemExit(module.missing())
        self._s5cmd = s5cmd
        self._server = module.start(folder / "cluster", 12 << 30)
        self.port = self._server.port
        self.environment = self._server.environment
        self._run("mb", f"s3://{BUCKET}")

    def offer(self, served: Path) -> None:
        self._run("cp", f"{served}/", f"s3://{BUCKET}/")

    def arrived(self, prefix: str, folder: Path) -> Path:
        self._run("cp", f"s3://{BUCKET}/{prefix}/*", f"{folder}/")
        return folder

    def forget(self, prefix: str) -> None:
        if self._run("ls", f"s3://{BUCKET}/{prefix}/*", check=False):
            self._run("rm", f"s3://{BUCKET}/{prefix}/*")

    def pids(self) -> list[int]:
        return [process.pid for process in self._server.processes.values()]

    def stop(self) -> None:
        self._server.stop()

    def _run(self, *arguments: str, check: bool = True) -> str:
        command = [self._s5cmd, "--endpoint-url", self.url, *arguments]
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            command, env=environment, check=False, capture_output=True, text=True, timeout=600
        )
        if check and done.returncode:
            raise SystemExit(f"s5cmd {arguments[0]}: {done.stderr[-500:]}")
        return done.stdout


def _credentials(key: str, secret: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def _server(name: str) -> Any:
    """A module of the tests' servers, which are no package."""
    spec = importlib.util.spec_from_file_location(f"servers_{name}", _SERVERS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing answers on port {port}")
