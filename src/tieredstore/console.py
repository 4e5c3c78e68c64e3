"""What a command line shows: results on stdout, warnings and progress on stderr.

Plain lines everywhere, and tables and bars where a person looks: ``rich`` is imported only then.
Command lines other than ``tieredstore`` may use it too.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TextIO

from tieredstore import views
from tieredstore.limits import size as shown
from tieredstore.reporter import Reporter, Wait
from tieredstore.views import clean

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SMALL: Final = 1 << 20  # bytes; less than this is moved before a bar could be read
EVERY: Final = 10.0  # seconds between two lines where no bar is shown


class OutputClosed(Exception):
    """Whoever read the output, such as ``head``, has gone."""


class ConsoleReporter(Reporter):
    """Tells a command's user what matters, in plain lines on stderr, each once.

    Parameters
    ----------
    program : str
        Begins each line.

    Attributes
    ----------
    skipped_tiers : dict
        Why tiers could not serve, by name.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._said: set[str] = set()
        self._saying = threading.RLock()  # several threads tell at once
        self.skipped_tiers: dict[str, str] = {}

    def line(self, text: str) -> None:
        """Write one line on stderr."""
        try:
            with self._saying:
                print(f"{self._program}: {clean(text)}", file=sys.stderr, flush=True)  # noqa: T201
        except (OSError, ValueError):
            _drop(sys.stderr)

    def warn(self, text: str) -> None:
        """Write a warning, unless the same one was written before."""
        with self._saying:
            if text not in self._said:
                self._said.add(text)
                self.line(f"warning: {text}")

    def error(self, text: str) -> None:
        """Write what went wrong."""
        self.close()
        self.line(f"error: {text}")

    def close(self) -> None:
        """Take away what is shown only while work goes on."""

    def skipped(self, tier: str, why: str) -> None:
        """See `Reporter.skipped`."""
        self.skipped_tiers.setdefault(tier, why)
        self.warn(f"tier {tier!r} skipped: {why}")

    def corrupt(self, tier: str, what: str) -> None:
        """See `Reporter.corrupt`."""
        self.warn(f"tier {tier!r} holds a damaged copy: {what}")

    def adopted(self, name: str, tier: str) -> None:
        """See `Reporter.adopted`."""
        self.warn(f"{name}: found in tier {tier!r} without a manifest; its recipe is unknown")

    def waits(self, wait: Wait) -> None:
        """See `Reporter.waits`."""
        self.line(f"waiting for {wait}")

    def evicted(self, name: str, tier: str, size: int) -> None:
        """See `Reporter.evicted`."""
        self.line(f"{name}: evicted from {tier} to make room, {shown(size)} freed")


class TerminalReporter(ConsoleReporter):
    """The same, with a bar while bytes move; one for all tiers that are promoted to at once."""

    def __init__(self, program: str) -> None:
        super().__init__(program)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._shown = ""
        self._size = self._moving = 0

    def line(self, text: str) -> None:
        """Write one line on stderr, above the bar where there is one."""
        progress = self._progress
        if progress is None:
            super().line(text)
            return
        whole = f"{self._program}: {clean(text)}"
        progress.console.print(whole, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def started(self, verb: str, name: str, size: int) -> None:
        """See `Reporter.started`."""
        shown = clean(f"{verb} {name}")
        with self._saying:
            if not self._moving or shown != self._shown:
                self.close()
                self._shown, self._size = shown, 0
            self._moving += 1
            self._size += size
            if self._progress is not None and self._task is not None:
                self._progress.update(self._task, total=self._size)
            elif self._size >= SMALL:
                self._progress = _bars()
                self._task = self._progress.add_task(shown, total=self._size)
                self._progress.start()

    def advanced(self, size: int) -> None:
        """See `Reporter.advanced`."""
        progress, task = self._progress, self._task
        if progress is not None and task is not None:
            progress.advance(task, size)

    def finished(self, verb: str, name: str, path: str) -> None:
        """See `Reporter.finished`."""
        del path
        with self._saying:
            self._moving -= self._shown == clean(f"{verb} {name}")
            if self._moving <= 0:
                self.close()

    def close(self) -> None:
        """Take the bar away."""
        with self._saying:
            progress, self._progress, self._task = self._progress, None, None
            self._moving = 0
            if progress is not None:
                progress.stop()


class PlainReporter(ConsoleReporter):
    """The same where nobody watches, with a line every ten seconds while bytes move."""

    def __init__(self, program: str) -> None:
        super().__init__(program)
        self._moving: list[str] = []
        self._size = self._done = 0
        self._since = self._told = 0.0

    def started(self, verb: str, name: str, size: int) -> None:
        """See `Reporter.started`."""
        with self._saying:
            if not self._moving:
                self._size = self._done = 0
                self._since = self._told = time.monotonic()
            self._moving.append(f"{verb} {name}")
            self._size += size

    def advanced(self, size: int) -> None:
        """See `Reporter.advanced`."""
        with self._saying:
            self._done += size
            now = time.monotonic()
            if now - self._told < EVERY or not self._moving:
                return
            self._told = now
            done, whole = views.size(self._done), views.size(self._size)
            speed = views.size(int(self._done / (now - self._since)))
            self.line(f"{self._moving[0]}: {done} of {whole}, {speed}/s")

    def finished(self, verb: str, name: str, path: str) -> None:
        """See `Reporter.finished`."""
        del path
        with self._saying, suppress(ValueError):
            self._moving.remove(f"{verb} {name}")


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def console_reporter(program: str) -> ConsoleReporter:
    """The reporter that fits: bars where stderr is a terminal, plain lines elsewhere."""
    return TerminalReporter(program) if _is_terminal(sys.stderr) else PlainReporter(program)


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()


def show_lines(lines: Sequence[str]) -> None:
    """Write lines on stdout.

    Raises
    ------
    OutputClosed
        When nobody reads them any more.
    OSError
        When they cannot be written.
    """
    with _output():
        for line in lines:
            print(clean(line))  # noqa: T201


def show_json(document: object) -> None:
    """Write one JSON document on stdout; raises as `show_lines` does."""
    import json

    with _output():
        print(json.dumps(document, indent=2, default=str))  # noqa: T201


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table on a terminal, and elsewhere each row as a line of columns between tabs.

    Raises as `show_lines` does.
    """
    if not _is_terminal(sys.stdout):
        with _output():
            for row in rows:
                print("\t".join(clean(cell) for cell in row))  # noqa: T201
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    with _output():
        Console().print(table)


@contextmanager
def _output() -> Iterator[None]:
    try:
        if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop(sys.stdout)
        raise OutputClosed from None
    except OSError as error:
        _drop(sys.stdout)
        raise OSError(error.errno, error.strerror, "standard output") from None


def _drop(stream: TextIO) -> None:
    """Let what is still buffered go nowhere, or it would fail again when the process exits."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
