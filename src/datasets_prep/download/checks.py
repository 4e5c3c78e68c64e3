"""What is looked at before anything moves: room, rights, and what the source really is."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datasets_prep.download.telling import shown
from datasets_prep.errors import DownloadError, reason

SPARE: Final = 64 << 20  # bytes of a disk that are left free
_PAGES: Final = (b"<!doctype html", b"<html", b"<head", b"<?xml version")
_ARCHIVES: Final = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".zip", ".tbz2", ".txz")


@dataclass(frozen=True, slots=True)
class Demand:
    """Bytes that will be written below a folder, and what for."""

    folder: Path
    size: int
    what: str


def check_writable(folder: Path) -> None:
    """Refuse a place that cannot be written, before anything is fetched.

    Raises
    ------
    DownloadError
        Naming the folder, and what the system says.
    """
    there = existing(folder)
    probe = there / f".datasets-prep-{os.getpid()}"
    try:
        if not there.is_dir():
            raise NotADirectoryError(20, "Not a directory", str(there))
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        probe.unlink()
    except OSError as error:
        raise DownloadError(f"{folder}: cannot be written: {error.strerror or error}") from None


def existing(folder: Path) -> Path:
    """The nearest folder above that is there, or this one."""
    folder = Path(os.path.abspath(folder))
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def check_room(demands: list[Demand]) -> int:
    """Refuse what does not fit, with figures; the demands of one disk count together.

    Returns
    -------
    int
        Bytes that stay free beside them, on the last one's disk.

    Raises
    ------
    DownloadError
        When a disk has less room than is needed.
    """
    disks: dict[int, list[Demand]] = {}
    left = 0
    for demand in demands:
        disks.setdefault(_disk(demand.folder), []).append(demand)
    for together in disks.values():
        free = _free(together[0].folder)
        needed = sum(d.size for d in together)
        left = free - needed - SPARE
        if left < 0:
            parts = " and ".join(f"{shown(d.size)} for {d.what}" for d in together)
            raise DownloadError(
                f"{together[0].folder}: {shown(free)} are free, {shown(needed)} are needed "
                f"({parts}); make room, or name another disk with --dest or --temp-dir"
            )
    return left


def _disk(folder: Path) -> int:
    try:
        return existing(folder).stat().st_dev
    except OSError as error:
        raise DownloadError(f"{folder}: {reason(error)}") from None


def _free(folder: Path) -> int:
    return shutil.disk_usage(existing(folder)).free


def check_no_page(head: bytes, path: str, where: str, *, extract: bool) -> None:
    """Refuse a web page that is answered in place of an archive.

    Raises
    ------
    DownloadError
        When it is one.
    """
    if path.lower().endswith((".html", ".htm", ".xml")):
        return
    page = head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES)
    if page and (extract or path.lower().endswith(_ARCHIVES)):
        raise DownloadError(
            f"{where}: a web page, where an archive was expected; the link may need a login, or "
            "lead to a page about the file: give the address of the file itself"
        )
