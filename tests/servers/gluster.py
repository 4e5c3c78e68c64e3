"""GlusterFS: one brick and two mounts of it, with attributes that may be seconds old; loopback.

No management daemon and no peers: the brick's process and both clients read volume files. Locks
work between the mounts. What a mount has seen of a name stays true for it for ``stale`` seconds,
whatever the other one does, as on NFS; who reads a file that was replaced may get ``ESTALE``.
"""

from __future__ import annotations

import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # this folder is no package
import mounts

_SERVER = """\
volume posix
  type storage/posix
  option directory {folder}/brick
end-volume
volume locks
  type features/locks
  subvolumes posix
end-volume
volume iot
  type performance/io-threads
  option thread-count 8
  subvolumes locks
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address 127.0.0.1
  option transport.socket.listen-port {port}
  option auth.addr.iot.allow 127.0.0.1
  subvolumes iot
end-volume
"""
_CLIENT = """\
volume client
  type protocol/client
  option transport-type tcp
  option remote-host 127.0.0.1
  option remote-port {port}
  option remote-subvolume iot
end-volume
volume wb
  type performance/write-behind
  subvolumes client
end-volume
"""


def missing() -> str:
    """Why it cannot be started here, or an empty text."""
    return mounts.missing_program(
        {"glusterfsd": "glusterfs-server", "glusterfs": "glusterfs-client"}
    )


def start(folder: Path, stale: float = 5.0) -> mounts.Cluster:
    """Start a brick and two clients below ``folder``; both are mounted when this returns."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (folder / "brick").mkdir(parents=True)
    (folder / "server.vol").write_text(_SERVER.format(folder=folder, port=port))
    (folder / "client.vol").write_text(_CLIENT.format(port=port))
    cluster = mounts.Cluster(folder)
    try:
        vol, log = str(folder / "server.vol"), str(folder / "brick.log")
        cluster.spawn("brick", "glusterfsd", "-N", "-f", vol, "-l", log)
        _wait_for(cluster, port)
        times = [f"--{kind}-timeout={stale:g}" for kind in ("attribute", "entry", "negative")]
        for name in ("A", "B"):
            vol, log = str(folder / "client.vol"), str(folder / f"{name}.log")
            point = str(folder / name)
            cluster.mount(name, "glusterfs", "-N", "-f", vol, "-l", log, *times, point)
    except BaseException:
        cluster.stop()
        raise
    return cluster


def _wait_for(cluster: mounts.Cluster, port: int) -> None:
    for _ in range(500):
        if cluster.processes["brick"].poll() is not None:
            break
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.02)
    raise RuntimeError(f"the brick did not start: {cluster.said('brick')}")
