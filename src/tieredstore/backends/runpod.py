"""A RunPod network volume: a network mount, so nothing is trusted but rename and O_EXCL."""

from __future__ import annotations

import errno
import os
from contextlib import AbstractContextManager

from tieredstore import leases
from tieredstore.backend import OnWait
from tieredstore.backends.local import LocalBackend
from tieredstore.mounted.stage import Mount


class Volume(Mount):
    """The volume's root, which is only ever mounted: a folder made in its place would be lost."""

    def make_root(self) -> None:
        """Refuse where nothing is mounted."""
        if not os.path.isdir(self.path):
            raise FileNotFoundError(
                errno.ENOENT, "No such folder; is the volume mounted?", self.path
            )


class RunPodBackend(LocalBackend):
    """The volume that outlives a pod; `config.py` finds it.

    Leases are marker files that their holder refreshes, because ``flock`` on a network mount may
    succeed for everybody.
    """

    mount_type = Volume
    lease_markers = True

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.parallel_small = 4

    def _lease(
        self, key: str, timeout: float | None, on_wait: OnWait
    ) -> AbstractContextManager[None]:
        os.close(self.mount.area("lease"))
        return leases.soft_lease(self.mount.area_path("lease"), key, timeout, on_wait)
