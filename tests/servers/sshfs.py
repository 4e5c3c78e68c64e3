"""sshfs: one folder of an OpenSSH server, mounted twice; loopback.

Locks are local to each mount and always granted there. Both mounts keep names and attributes for
as long as sshfs does by default. Replacing a file is no single step unless the server has
``posix-rename``, which OpenSSH's has.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # this folder is no package
import mounts
import sshd


class Sshfs(mounts.Cluster):
    """The cluster, and the server of it."""

    server: sshd.Sshd | None = None

    def stop(self) -> None:
        """Take the mounts away, and end the server."""
        super().stop()
        if self.server is not None:
            self.server.kill()


def missing() -> str:
    """Why it cannot be started here, or an empty text."""
    return sshd.missing() or mounts.missing_program({"sshfs": "sshfs", "ssh": "openssh-client"})


def start(folder: Path, *more: str) -> mounts.Cluster:
    """Start a server and mount a folder of it twice below ``folder``, with further options."""
    (folder / "shared").mkdir(parents=True)
    cluster = Sshfs(folder)
    cluster.server = server = sshd.start(folder)
    options = [
        f"IdentityFile={folder / 'user_key'}",
        f"UserKnownHostsFile={folder / 'known_hosts'}",
        "GlobalKnownHostsFile=/dev/null",
        "BatchMode=yes",
        *more,
    ]
    try:
        for name in ("A", "B"):
            source = f"{server.user}@127.0.0.1:{folder / 'shared'}"
            said = [part for option in options for part in ("-o", option)]
            port, point = str(server.port), str(folder / name)
            cluster.mount(name, "sshfs", "-f", "-F", "/dev/null", "-p", port, *said, source, point)
    except BaseException:
        cluster.stop()
        raise
    return cluster
