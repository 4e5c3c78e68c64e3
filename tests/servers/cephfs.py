"""CephFS: a small Ceph cluster in memory, and two FUSE mounts of its file system; loopback.

Locks, exclusive creation and renames hold between the mounts, and what one writes the other sees.
It stands on the daemons of ``ceph.py``, without its gateway.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # this folder is no package
import ceph
import mounts


class CephFs(mounts.Cluster):
    """The mounts, and the cluster below them."""

    below: ceph.Ceph | None = None

    def stop(self) -> None:
        """Take the mounts away, and end the daemons."""
        super().stop()
        if self.below is not None:
            self.below.stop()


def missing() -> str:
    """Why it cannot be started here, or an empty text."""
    return ceph.missing() or mounts.missing_program(
        {"ceph-mds": "ceph-mds", "ceph-fuse": "ceph-fuse"}
    )


def start(folder: Path) -> mounts.Cluster:
    """Start a cluster and mount its file system twice below ``folder``."""
    cluster = CephFs(folder)
    cluster.below = below = ceph.start(folder)
    try:
        below.kill_gateway()
        _make_file_system(below)
        configured = ("-c", str(folder / "ceph.conf"))
        for name in ("A", "B"):
            point = str(folder / name)
            cluster.mount(name, "ceph-fuse", "-f", "-n", "client.admin", *configured, point)
    except BaseException:
        cluster.stop()
        raise
    return cluster


def _make_file_system(below: ceph.Ceph) -> None:
    (below.folder / "mds").mkdir()
    below.run("ceph", "osd", "pool", "create", "names", "4")
    below.run("ceph", "osd", "pool", "create", "bytes", "4")
    below.run("ceph", "fs", "new", "t", "names", "bytes")
    data = str(below.folder / "mds")
    below.spawn("mds", "ceph-mds", "-f", "-i", "a", f"--mds_data={data}")
    for _ in range(300):
        if "up:active" in below.run("ceph", "mds", "stat"):
            return
        time.sleep(0.1)
    raise RuntimeError(f"the metadata server did not start: {below.said('mds')}")
