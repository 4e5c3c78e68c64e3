"""OpenSSH's server on a free loopback port, with keys and configuration of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
MaxStartups 100
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""


def missing() -> str:
    """Why the server cannot be started here, or an empty text."""
    if not os.access(SSHD, os.X_OK):
        return "sshd is not installed (apt-get install openssh-server)"
    return "" if shutil.which("ssh-keygen") else "ssh-keygen is not installed (openssh-client)"


@dataclass
class Sshd:
    """A server that can be killed and started again on its port.

    Attributes
    ----------
    folder : Path
        Holds ``host_key``, ``user_key``, ``known_hosts`` and the server's log.
    port : int
        Where it listens.
    user : str
        Who may come in with ``user_key``.
    """

    folder: Path
    port: int
    user: str = field(default_factory=getpass.getuser)
    process: subprocess.Popen[bytes] | None = None

    def url(self, path: os.PathLike[str] | str) -> str:
        """The URL of a folder on this machine, through the server."""
        return f"sftp://{self.user}@127.0.0.1:{self.port}{os.fspath(path)}"

    @property
    def options(self) -> dict[str, str]:
        """What the backend needs to come in."""
        names = {"key": "user_key", "known_hosts": "known_hosts"}
        return {option: str(self.folder / name) for option, name in names.items()}

    def start(self) -> None:
        """Start listening; the server answers when this returns."""
        with (self.folder / "sshd.log").open("ab") as log:
            command = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(200):
            if self.process.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                    if probe.recv(4) == b"SSH-":
                        return
            except OSError:
                time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"sshd did not start: {(self.folder / 'sshd.log').read_text()[-500:]}")

    def kill(self) -> None:
        """End the server and the processes that serve its connections, and no others."""
        if self.process is None:
            return
        os.kill(self.process.pid, signal.SIGSTOP)  # so that no more of them begin
        for pid in [*_below(self.process.pid), self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        self.process = None


def _below(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [found for child in map(int, children) for found in (*_below(child), child)]


def start(folder: Path) -> Sshd:
    """Make keys and a configuration in ``folder``, and start a server with them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = Sshd(folder, int(probe.getsockname()[1]))
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=30)
    kind, key, *_ = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {kind} {key}\n")
    (folder / "sshd_config").write_text(CONFIG.format(port=server.port, folder=folder))
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", 0o755, exist_ok=True)  # sshd wants it, a service would make it
    server.start()
    return server
