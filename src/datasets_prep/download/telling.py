"""What people see of a download: lines, and how far it is, in one place on a terminal."""

from __future__ import annotations

import sys
import threading
import time
from typing import Final

from datasets_prep.console import Console
from tieredstore import Wait

_EVERY: Final = 10.0  # seconds between two lines where nobody watches
_OFTEN: Final = 0.2  # seconds between two changes on a terminal
_UNITS: Final = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "B"))


def shown(size: int, like: int = 0) -> str:
    """Bytes for people: ``10.24GB``; in the unit of ``like`` where that is given."""
    unit, name = next(((u, n) for u, n in _UNITS if (like or size) >= u), _UNITS[-1])
    return f"{size / unit:.2f}{name}" if unit > 1 else f"{size}{name}"


class Telling(Console):
    """Tells of one download.

    Attributes
    ----------
    kept : bool
        What has arrived stays when the download is interrupted.
    """

    kept = True

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self._done = self._size = self._files = self._total = 0
        self._records = self._of = 0
        self._told = 0.0
        self._moving = self._ended = False
        self._bar = sys.stdout is not None and sys.stdout.isatty()
        self._length = 0

    # -- how far it is --------------------------------------------------------------------------

    def started(self, verb: str, name: str, size: int) -> None:
        """See `Reporter.started`."""
        del name
        with self._lock:
            self._moving = verb == "restore"
            self._done, self._size, self._ended = 0, size, False
            self._records = 0
            self._told = time.monotonic()

    def advanced(self, size: int) -> None:
        """See `Reporter.advanced`."""
        with self._lock:
            if self._moving:
                self._done += size
                ended = self._done >= self._size and not self._ended
                self._ended = self._ended or ended
                self._tell(at_end=ended)

    def finished(self, verb: str, name: str, path: str) -> None:
        """See `Reporter.finished`."""
        del name
        with self._lock:
            self._moving = False
        if verb == "promote":
            self.line(f"📁 Saved to {path}")

    def extracted(self, files: int, total: int) -> None:
        """So many files have come of the archive, of how many; 0: nobody knows."""
        with self._lock:
            self._files, self._total = files, total
            self._tell(at_end=False)

    def verified(self, records: int, total: int) -> None:
        """So many records have been compared, of how many; 0: nobody knows."""
        with self._lock:
            self._records, self._of = records, total
            self._tell(at_end=False)

    def whole(self, files: int) -> None:
        """The archive is extracted."""
        with self._lock:
            self._moving, self._size, self._files = False, 0, 0
        self.line(f"📦 Extracted: {files}/{files} files")

    def _tell(self, *, at_end: bool) -> None:
        now = time.monotonic()
        if now - self._told < (_OFTEN if self._bar else _EVERY) and not at_end:
            return
        self._told = now
        if not self._bar:
            self.line(self._how_far())
            return
        text = self._how_far()
        _put(f"\r{text.ljust(self._length)}")
        self._length = len(text)

    def _how_far(self) -> str:
        parts = []
        if self._size:
            done, size = min(self._done, self._size), self._size
            parts.append(f"{100 * done / size:.1f}% ({shown(done, size)} / {shown(size)})")
        if self._files:
            of = f"/{self._total}" if self._total else ""
            parts.append(f"Extracted: {self._files}{of} files")
        if self._records:
            of = f"/{self._of}" if self._of else ""
            parts.append(f"Verified: {self._records}{of} records")
        return ", ".join(parts)

    # -- lines ----------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """Print a line, in the place of what says how far it is."""
        with self._lock:
            if self._length:
                _put("\r" + " " * self._length + "\r")
                self._length = 0
            super().line(text)

    def located(self, name: str, tier: str, path: str) -> None:
        """See `Reporter.located`; the source has been told of already."""

    def copied(self, file: str, source: str, target: str) -> None:
        """See `Reporter.copied`; there may be very many."""

    def adopted(self, name: str, tier: str) -> None:
        """See `Reporter.adopted`; that is what a download is."""

    def skipped(self, tier: str, why: str) -> None:
        """See `Reporter.skipped`; what the source says is raised."""
        if tier != "source":
            super().skipped(tier, why)

    def waits(self, wait: Wait) -> None:
        """See `Reporter.waits`."""
        self.line(f"⏳ Waiting for {wait}")


def _put(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError):
        return  # nobody reads it any more
