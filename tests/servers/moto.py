"""moto's S3 server, a process of its own on a free loopback port.

moto looks at the condition of a request, and then does what it asks: of two that come at once both
may pass. Here one follows the other, as in S3.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

KEY, SECRET = "testing", "testing-secret"


def missing() -> str:
    """Why the server cannot be started here, or an empty text."""
    for module in ("moto", "s3fs", "flask", "boto3"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed (pip install 'moto[s3,server]' s3fs)"
    return ""


@dataclass
class Moto:
    """A running server."""

    process: subprocess.Popen[bytes]
    url: str

    @property
    def options(self) -> dict[str, object]:
        """What s3fs needs to talk to it."""
        return {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": self.url}}

    @property
    def environment(self) -> dict[str, str]:
        """The variables in which AWS's clients look for credentials, and nothing of this machine.

        Where the server is, is not among them: whoever talks to it says so.
        """
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def make_bucket(self, name: str) -> str:
        """Make a bucket and give its URL."""
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )
        client.create_bucket(Bucket=name)
        client.close()
        return f"s3://{name}"

    def stop(self) -> None:
        """End the process that was started, and no other."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                os.kill(self.process.pid, signal.SIGKILL)
                self.process.wait(5)


def start(folder: Path) -> Moto:
    """Start a server whose output goes to ``folder``; it answers when this returns."""
    port = free_port()
    with (folder / "moto.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true"},
        )
    server = Moto(process, f"http://127.0.0.1:{port}")
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{server.url}/moto-api/", timeout=5):
                return server
        except OSError:
            time.sleep(0.1)
    server.stop()
    raise RuntimeError(f"moto did not start: {(folder / 'moto.log').read_text()[-500:]}")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def one_at_a_time(handler, lock):
    """A handler of requests that waits for its turn."""

    @functools.wraps(handler)
    def handled(*args, **kwargs):
        with lock:
            return handler(*args, **kwargs)

    return handled


def serve() -> None:
    """Serve as the command line says, conditions and what depends on them in one step."""
    from moto.s3.responses import S3Response
    from moto.server import main

    lock = threading.RLock()
    for name in ("put_object", "copy_object", "delete_object", "_key_response_post"):
        setattr(S3Response, name, one_at_a_time(getattr(S3Response, name), lock))
    main(sys.argv[1:])


if __name__ == "__main__":
    serve()
