"""A folder behind FUSE, passed on as it is: to be mounted twice, or stopped so that it hangs.

The daemon is not asked about locks, so those of two mounts do not know of one another.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # this folder is no package
from fuse_folder import Daemon, Passing, missing, serve

__all__ = ["Mounted", "missing"]


class Mounted(Daemon):
    """A mounted folder and its daemon."""

    def __init__(self, back, at):
        super().__init__(__file__, back, at)


if __name__ == "__main__":
    serve(Passing(sys.argv[1]), sys.argv[2])
