"""Small files in the store's own area of a mounted root: read whole, put whole, taken away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from tieredstore.mounted import beneath
from tieredstore.mounted.alive import temporary
from tieredstore.mounted.mount import Root
from tieredstore.mounted.staged import AREA


def read(root: Root, area: str, name: str, limit: int) -> bytes:
    """Read one; nothing where it is not there, or has more bytes than ``limit``."""
    with suppress(FileNotFoundError), beneath.opened(root.root()) as fd:
        data = beneath.read_small(fd, f"{AREA}/{area}/{name}", limit)
        return data if len(data) <= limit else b""
    return b""


def put(root: Root, area: str, name: str, data: bytes) -> None:
    """Put one in the place of what was there; readers see the old one or the new one."""
    with beneath.opened(root.area(area)) as fd:
        written = temporary(f".{name}.")
        try:
            beneath.write_small(fd, written, data)
            os.rename(written, name, src_dir_fd=fd, dst_dir_fd=fd)
        except BaseException:
            with suppress(OSError):
                os.unlink(written, dir_fd=fd)
            raise


def put_lasting(root: Root, area: str, name: str, data: bytes) -> None:
    """Put one as `put` does; it is on the disk when this returns."""
    put(root, area, name, data)
    with beneath.opened(root.area(area)) as fd:
        beneath.syncfs(fd)


def names(root: Root, area: str) -> Iterator[str]:
    """The names of those in one folder, in order; what is being put has none yet."""
    try:
        with beneath.opened(root.root()) as above:
            fd = beneath.open_folder(above, f"{AREA}/{area}")
    except FileNotFoundError:
        return
    with beneath.opened(fd), os.scandir(fd) as entries:
        found = sorted(e.name for e in entries if not e.name.startswith("."))
    yield from found


def remove(root: Root, area: str, name: str) -> None:
    """Take one away; nothing happens where there is none."""
    with suppress(FileNotFoundError), beneath.opened(root.root()) as above:
        with beneath.opened(beneath.open_folder(above, f"{AREA}/{area}")) as fd:
            os.unlink(name, dir_fd=fd)
