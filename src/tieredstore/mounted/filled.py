"""Manifests for files that lie in an artifact's folder already, and have been measured there.

Put in one by one (a filling), or from before this library (adopted). Head and records are staged
and published like everything else under a mark that one of several gets, so that the head of one
never stands above the records of another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from tieredstore.errors import HeadConflict
from tieredstore.manifest.artifact import Head
from tieredstore.manifest.records import Records
from tieredstore.mounted import beneath
from tieredstore.mounted.inplace import claim_filling, lay_mark, records_stand, roll_forward
from tieredstore.mounted.marks import Marks, Pending
from tieredstore.mounted.mount import ATTEMPTS
from tieredstore.mounted.stage import Mount
from tieredstore.mounted.staged import Staged


def mark_filling(mount: Mount, folder: str, generation: str, required: tuple[str, ...]) -> None:
    """Hide the artifact at ``folder``, made where it is missing, while files are put in.

    Raises
    ------
    HeadConflict
        When others kept publishing it at the same time.
    """
    mark = Pending("filling", generation, "stage", required)
    for _ in range(ATTEMPTS):
        with beneath.opened(mount.area("stage")) as area, beneath.opened(mount.root()) as root:
            with beneath.opened(mount.make_below(root, folder)) as fd:
                if lay_mark(area, fd, Marks(folder), mark):
                    return
        mount.complete(folder)
    raise HeadConflict(f"{mount.path}/{folder}: kept being published while files were put in")


def publish_filled(mount: Mount, folder: str, head: Head, records: Records) -> bool:
    """Publish what was put in under the filling mark of ``head``'s generation.

    Returns
    -------
    bool
        False when another has taken the mark over: then nothing has been changed.
    """

    def claim(area: int, fd: int, marks: Marks) -> bool:
        del area
        return claim_filling(fd, marks, head.generation)

    return _put(mount, folder, head, records, claim)


def put_manifest(mount: Mount, folder: str, head: Head, records: Records) -> bool:
    """Give files from before this library their manifest.

    Returns
    -------
    bool
        False while others publish there.
    """
    mark = Pending("publishing", head.generation, "stage")
    return _put(mount, folder, head, records, partial(_lay, mark))


def _lay(mark: Pending, area: int, fd: int, marks: Marks) -> bool:
    return lay_mark(area, fd, marks, mark)


def _put(
    mount: Mount,
    folder: str,
    head: Head,
    records: Records,
    claim: Callable[[int, int, Marks], bool],
) -> bool:
    marks = Marks.of(folder, head.kind)
    staged = mount.staged("stage", head.generation)
    with beneath.opened(mount.root()) as root, beneath.opened(mount.area("stage")) as area:
        with beneath.opened(beneath.open_folder(root, marks.folder)) as fd:
            beneath.syncfs(fd)
            staged.write_measured(head, records)
            if not claim(area, fd, marks):
                staged.delete()
                return False
            _forward(mount, staged, fd, marks)
            os.fsync(fd)
            return records_stand(fd, marks, head.generation)


def _forward(mount: Mount, staged: Staged, fd: int, marks: Marks) -> None:
    roll_forward(staged, fd, marks, mount.retire_file)
    staged.leave()
