"""What is looked at before anything moves: room, rights, and what the source really is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from datasets_prep.errors import DownloadError, reason

SPARE: Final = 64 << 20  # bytes of a disk that are left free
_PAGES: Final = (b"<!doctype html", b"<html", b"<head", b"<?xml version")
_ARCHIVES: Final = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".zip", ".tbz2", ".txz")


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


def free_of(folder: Path) -> int:
    """Bytes that are free on the disk of a folder that may not be there yet.

    Raises
    ------
    DownloadError
        When the disk cannot be asked.
    """
    try:
        return shutil.disk_usage(existing(folder)).free
    except OSError as error:
        raise DownloadError(f"{folder}: {reason(error)}") from None


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
