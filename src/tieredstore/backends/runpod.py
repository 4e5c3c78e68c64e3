"""A RunPod network volume: a network mount, so nothing is trusted but rename and O_EXCL."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from tieredstore import leases
from tieredstore.backend import OnWait
from tieredstore.backends.local import LocalBackend


class RunPodBackend(LocalBackend):
    """The volume that outlives a pod; `config.py` finds it.

    Leases are marker files that their holder refreshes, because ``flock`` on a network mount may
    succeed for everybody.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.parallel_small = 4

    def _lease(
        self, key: str, timeout: float | None, on_wait: OnWait
    ) -> AbstractContextManager[None]:
        os.close(self.mount.area("lease"))
        return leases.soft_lease(self.mount.area_path("lease"), key, timeout, on_wait)
