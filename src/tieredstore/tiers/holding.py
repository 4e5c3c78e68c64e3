"""Holding a tier's lease: who has it says now and then how far it is, who waits is told.

What is said lies in a note beside the lease, see ``notes.py``. A note is written by a daemon
thread, so that a place that hangs keeps nobody from work, and only by who holds the lease for
more than a moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Final

from tieredstore.backend import Leasable
from tieredstore.errors import LeaseTimeout, TieredStoreError
from tieredstore.notes import Failure, Note, Work, work_of
from tieredstore.reporter import Relay, Reporter, Wait
from tieredstore.tiers.tier import Tier
from tieredstore.workers import within

_FIRST: Final = 0.5  # seconds until the first note; who is done by then needs none
_EVERY: Final = 5.0  # seconds between two notes
_GOODBYE: Final = 2.0  # seconds that the last note may keep whoever lets the lease go
_TELLING: Final = 15.0  # the same where it says what went wrong: without it others try in turn

Heard = Callable[[Failure], None]


class Progress:
    """How far the holder of a lease is.

    Parameters
    ----------
    verb : str
        What it does.
    write : callable, optional
        Puts a note beside the lease; by default there is none, and nobody is told.

    Attributes
    ----------
    earlier : Failure or None
        The last attempt that failed. The note goes on saying so until this one has an end, for
        those who waited then and were not quick enough to read it.
    """

    def __init__(self, verb: str, write: Callable[[bytes], None] | None = None) -> None:
        self._verb = verb
        self._write = write
        self._begun = time.monotonic()
        self._at = (0, 0, "")
        self._phase = ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._wrote = False
        self._failure: Failure | None = None
        self._succeeded = False
        self._thread: threading.Thread | None = None
        self.earlier: Failure | None = None

    @property
    def kept(self) -> bool:
        """Whether there is a lease, and notes beside it."""
        return self._write is not None

    def told(self, done: int, total: int = 0, text: str = "") -> None:
        """Say how much is done of how much, and what is under way."""
        self._at = (done, total, text)

    def started(self, phase: str, size: int) -> None:
        """So many bytes are about to be moved; what belongs to one phase is added up."""
        with self._lock:
            same = self._phase == phase
            done, total, _ = self._at if same else (0, 0, "")
            self._phase = phase
            self._at = (done, total + size, "" if phase == self._verb else phase)

    def advanced(self, size: int) -> None:
        """So many bytes are done."""
        with self._lock:
            done, total, text = self._at
            self._at = (done + size, total, text)

    def succeeded(self) -> None:
        """The work is done: nobody needs to know any more what went wrong before."""
        self._succeeded = True

    def failed(self, failure: Failure) -> None:
        """The work has failed; those who wait for it are told why when the lease is let go."""
        before = 0 if self.earlier is None else self.earlier.count
        self._failure = replace(failure, count=before + 1)

    def begin(self) -> None:
        """Begin to write notes."""
        if self._write is not None:
            thread = threading.Thread(target=self._keep, name="tieredstore-note", daemon=True)
            thread.start()
            self._thread = thread  # now: what was interrupted before cannot be waited for

    def end(self) -> None:
        """Write the last note, or take the note away; while the lease is still held."""
        with self._lock:
            self._ended.set()
        if self._thread is not None and self._last() is not None:
            self._thread.join(_GOODBYE if self._failure is None else _TELLING)

    def _keep(self) -> None:
        pause = _FIRST
        while not self._ended.wait(pause):
            pause = _EVERY
            with self._lock:
                if self._ended.is_set():
                    break
                self._wrote = True
            self._put(Note(self._work(), self.earlier).emit())
        last = self._last()
        if last is not None:
            self._put(last)

    def _work(self) -> Work:
        done, total, text = self._at
        return work_of(self._verb, done, total, text, time.monotonic() - self._begun)

    def _last(self) -> bytes | None:
        """The note to leave; ``None`` where nothing has to be done about it."""
        if self._failure is not None:
            return Note(None, self._failure).emit()
        kept = None if self._succeeded else self.earlier
        return Note(None, kept).emit() if self._wrote or kept != self.earlier else None

    def _put(self, note: bytes) -> None:
        assert self._write is not None
        with suppress(OSError, TieredStoreError):  # those who wait are told less
            self._write(note)


class Counting(Relay):
    """A reporter that also counts, for those who wait, what is moved under a lease."""

    def __init__(self, to: Reporter, progress: Progress) -> None:
        super().__init__(to)
        self._progress = progress

    def started(self, verb: str, name: str, size: int) -> None:
        """See `Reporter.started`."""
        self._progress.started(verb, size)
        super().started(verb, name, size)

    def advanced(self, size: int) -> None:
        """See `Reporter.advanced`."""
        self._progress.advanced(size)
        super().advanced(size)


class Claim:
    """What one process wants to do with an artifact in a tier, alone.

    Parameters
    ----------
    tier : Tier
        Whose lease.
    name, verb : str
        Of the artifact, and what is to be done with it.
    reporter : Reporter
        Told who is waited for.
    """

    def __init__(self, tier: Tier, name: str, verb: str, reporter: Reporter) -> None:
        self.tier = tier
        self._name = name
        self._verb = verb
        self._key = f"{name}.{verb}"
        self._reporter = reporter
        self._asked = 0.0
        self._seen: tuple[Note, float] = (Note(), 0.0)

    @property
    def possible(self) -> bool:
        """Whether the tier has leases at all."""
        return isinstance(self.tier.backend, Leasable) and not self.tier.read_only

    def note(self) -> Note:
        """What lies beside the lease now.

        Raises
        ------
        OSError, TieredStoreError
            When the tier does not say.
        """
        assert isinstance(self.tier.backend, Leasable)
        read = partial(self.tier.backend.read_note, self._key)
        return Note.parse(within(self.tier.deadline, read, f"tier {self.tier.name!r}"))

    @contextmanager
    def held(self, timeout: float | None = None, heard: Heard | None = None) -> Iterator[Progress]:
        """Hold the lease where it can be had; without it work is done twice at worst.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait for it; without a limit by default.
        heard : callable, optional
            Told while waiting of the last attempt that failed; what it raises ends the wait.

        Raises
        ------
        LeaseTimeout
            When it was not to be had in time.
        """
        with ExitStack() as lease:
            progress = self._take(lease, timeout, heard)
            progress.begin()
            try:
                yield progress
            finally:
                progress.end()

    def _take(self, lease: ExitStack, timeout: float | None, heard: Heard | None) -> Progress:
        backend = self.tier.backend
        if not self.possible or not isinstance(backend, Leasable):
            return Progress(self._verb)
        self._asked = time.monotonic()
        try:
            # Asking for it touches the place, so a mount that hangs is noticed here; waiting
            # for it may then take as long as its holder works.
            ask = partial(backend.lease, self._key, timeout, partial(self._wait, heard))
            asked = within(self.tier.deadline, ask, f"tier {self.tier.name!r}")
            lease.enter_context(_let_go_when_dropped(asked))
        except LeaseTimeout:
            raise
        except OSError as error:
            self._reporter.skipped(self.tier.name, f"no lease: {error}")
            return Progress(self._verb)
        return Progress(self._verb, partial(backend.write_note, self._key))

    def _wait(self, heard: Heard | None, holder: str) -> None:
        """Tell who holds it; called now and then while that is so."""
        now = time.monotonic()
        note = Note()
        with suppress(OSError, TieredStoreError):
            note = self.note()
        if note.failed is not None and heard is not None:
            heard(note.failed)
        if note != self._seen[0]:
            self._seen = note, now
        work = note.work
        if work is None or (holder.startswith("process ") and holder != work.who):
            wait = Wait(self._name, self._verb, holder, now - self._asked)
        else:
            seconds = work.seconds + now - self._seen[1]
            far = (work.done, work.total, work.text)
            wait = Wait(self._name, self._verb, work.who, now - self._asked, seconds, *far)
        self._reporter.waits(wait)


@contextmanager
def _let_go_when_dropped(lease: AbstractContextManager[None]) -> Iterator[None]:
    """Hold a lease; an interruption before anybody keeps this drops it, which lets it go."""
    with lease:
        yield
