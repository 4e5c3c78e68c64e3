"""A few daemon threads over a queue of tasks, and calls with a deadline.

Daemon threads, so that a place that hangs can never keep the process from exiting.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from tieredstore.errors import TierTimeout
from tieredstore.interrupting import should_wait

PUBLISH_DEADLINE: Final = 900.0  # seconds; a flush of all that was written takes its time
SLOWEST: Final = 1 << 20  # bytes a second at which what is large still counts as an answer

_UNWIND: Final = 2.0  # seconds that threads have to let go of things when the work is interrupted
_MOMENT: Final = 0.001  # seconds
_SEEN: Final = 0.2  # seconds after which a thread that waits sees that it is interrupted

_FIRST: Final = 2  # threads that begin
_LOOK: Final = 0.02  # seconds between two looks at whether more would help
_BUSY: Final = 0.7  # processors; threads that use so much are not waiting but contending
_IDLE: Final = 0.1  # processors; threads that use less do little else than wait
_GAIN: Final = 1.2  # how much faster it has to have become for more threads to be begun again

T = TypeVar("T")
Task = Callable[[], None]


class _Outcome(Generic[T]):
    def __init__(self) -> None:
        # No event: who is interrupted inside of one can leave it locked, or raises another error.
        self._runs = threading.Lock()
        self._runs.acquire()
        self.value: T
        self.error: BaseException | None = None

    def run(self, call: Callable[[], T]) -> None:
        try:
            self.value = call()
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread
            self.error = error
        self._runs.release()

    def ended(self, seconds: float) -> bool:
        """Wait for its end, once: whether it came in time."""
        return self._runs.acquire(timeout=seconds)

    def get(self) -> T:
        """What it gave, once; an error is not kept: with it would be whatever its frames hold."""
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
            return self.value
        finally:
            del error


def within(seconds: float, call: Callable[[], T], what: str) -> T:
    """Call something that may hang, in a thread that is left behind when it does.

    Raises
    ------
    TierTimeout
        When ``call`` has not returned after ``seconds``.
    """
    outcome: _Outcome[T] = _Outcome()
    stop = threading.Event()

    def work() -> None:
        if not stop.is_set():  # interrupted before it began
            outcome.run(call)

    thread = threading.Thread(target=work, name="tieredstore-call", daemon=True)
    with _interrupted_too([thread], stop):
        thread.start()
        until = time.monotonic() + seconds
        while not outcome.ended(min(_SEEN, max(0.0, until - time.monotonic()))):
            if time.monotonic() >= until:
                raise TierTimeout(f"{what}: no answer within {seconds:g} s")
    return outcome.get()


@contextlib.contextmanager
def _interrupted_too(threads: Sequence[threading.Thread], stop: threading.Event) -> Iterator[None]:
    """When the block is interrupted, interrupt the threads: they let go of what they hold.

    One that is in a call of the system sees it when that returns; nobody waits for it for long.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        stop.set()
        until = time.monotonic() + _UNWIND
        alive = waiting = [thread for thread in threads if thread.is_alive()]
        while waiting and time.monotonic() < until:
            time.sleep(_MOMENT)  # and whoever waits for the interpreter waits anew
            waiting = [thread for thread in waiting if thread.is_alive() and not _end(thread)]
        for thread in alive:
            thread.join(max(0.0, until - time.monotonic()))
        raise


def _end(thread: threading.Thread) -> bool:
    """Raise SystemExit in a thread, unless that should wait.

    Up to Python 3.11 a thread that is about to run goes by the number of the one that begins it.
    What is raised by that number then ends the new one, and the other waits for it without end.
    """
    import ctypes

    number = thread.ident or 0
    throw = ctypes.pythonapi.PyThreadState_SetAsyncExc
    where, what = ctypes.c_ulong(number), ctypes.py_object(SystemExit)
    if should_wait(sys._current_frames().get(number)):  # noqa: SLF001 - documented all the same
        return False
    throw(where, what)
    return True


def patience(deadline: float, size: int) -> float:
    """Seconds for a call that moves ``size`` bytes, where a mere question has ``deadline``."""
    return deadline + size / SLOWEST


def together(calls: Sequence[Callable[[], T]], most: int = 16) -> list[T]:
    """Call each in a thread of its own, ``most`` at a time; what they gave, in their order.

    A single one is called right here. Each has to end by itself, see `within`.

    Raises
    ------
    BaseException
        The first error, by the order of the calls, when all have ended.
    """
    if len(calls) == 1:
        return [calls[0]()]
    outcomes: list[_Outcome[T]] = [_Outcome() for _ in calls]
    work = iter(list(zip(outcomes, calls, strict=True)))
    lock = threading.Lock()

    stop = threading.Event()

    def worker() -> None:
        while not stop.is_set():
            with lock:
                outcome, call = next(work, (None, None))
            if outcome is None or call is None:
                return
            outcome.run(call)

    threads = [
        threading.Thread(target=worker, name="tieredstore-call", daemon=True)
        for _ in range(min(most, len(calls)))
    ]
    with _interrupted_too(threads, stop):
        for thread in threads:
            thread.start()
        _wait_for(outcomes)
    return [outcome.get() for outcome in outcomes]


def _wait_for(outcomes: Iterable[_Outcome[T]]) -> None:
    for outcome in outcomes:
        while not outcome.ended(_SEEN):
            pass  # a thread that is interrupted sees it between two looks


class Watch:
    """What each thread waits for right now, so that a call that hangs is noticed.

    A thread enters a call on something named, and leaves it. `overdue` lists threads that have
    been in one call for longer than its deadline; they are marked as left behind, and whatever
    they return later is dropped.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[int, tuple[str, float, float | None]] = {}
        self._left: set[int] = set()

    def enter(self, what: str, seconds: float | None = None) -> None:
        """Note that this thread begins a call, which may take so long."""
        self._calls[threading.get_ident()] = (what, time.monotonic(), seconds)

    def leave(self) -> None:
        """Note that this thread's call has returned.

        Raises
        ------
        SystemExit
            When the thread had been given up; ends it quietly.
        """
        me = threading.get_ident()
        with self._lock:
            self._calls.pop(me, None)
            if me in self._left:
                self._left.discard(me)
                raise SystemExit

    def overdue(self, seconds: float) -> list[tuple[int, str, float]]:
        """Give up on threads that have been in one call for too long, by default ``seconds``."""
        now = time.monotonic()
        with self._lock:
            calls = [
                (ident, what, now - since, seconds if own is None else own)
                for ident, (what, since, own) in list(self._calls.items())
            ]
            late = [(ident, what, own) for ident, what, taken, own in calls if taken > own]
            for ident, *_ in late:
                del self._calls[ident]
                self._left.add(ident)
        return late


class Workers:
    """Run tasks in threads; the first error stops all and is raised.

    A few begin; while they mostly wait for answers, and those begun last have helped, more are
    begun. A place that answers at once would only have them contend for the interpreter's lock.

    Parameters
    ----------
    count : int
        Threads at most.
    watch : Watch
        Where tasks say what they wait for.
    deadline : float
        Seconds that a watched call may take which does not say so itself.
    on_hang : callable
        Called with what hangs; returns whether the task may be tried again (elsewhere).
    """

    def __init__(
        self, count: int, watch: Watch, deadline: float, on_hang: Callable[[str], bool]
    ) -> None:
        self._count = max(1, count)
        self._watch = watch
        self._deadline = deadline
        self._on_hang = on_hang
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._running: dict[int, Task] = {}
        self._threads: list[threading.Thread] = []
        self._hung: set[int] = set()
        self._used: dict[int, float] = {}
        self._looked = (0.0, 0.0, 0)
        self._pace = 0.0
        self._lock = threading.Lock()
        self._all = self._left = 0
        self._stop = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether an error has ended the run: a long task looks now and then, and ends early."""
        return self._stop.is_set()

    def run(self, tasks: Iterable[Task]) -> None:
        """Run all tasks and return when they are done.

        Raises
        ------
        BaseException
            The first error of any task; the others are not begun any more.
        """
        for task in tasks:
            self._tasks.put(task)
            self._all += 1
        self._left = self._all
        self._count = min(self._count, self._all)
        self._looked = time.monotonic(), 0.0, 0
        for _ in range(min(self._count, _FIRST)):
            self._spawn()
        try:
            while self._left:
                self._next_event()
                self._grow()
        finally:
            self._stop.set()

    def settle(self, seconds: float) -> bool:
        """Wait for the threads to end, after a run that failed.

        Returns
        -------
        bool
            False when one of them is still in a task: what it uses must not be closed yet, or
            its descriptor's number may come to mean another file. For one that hangs nobody waits.
        """
        if any(thread.ident in self._hung and thread.is_alive() for thread in self._threads):
            return False
        until = time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:  # else it was interrupted before it was started
                thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _grow(self) -> None:
        """Begin as many threads again where those there are have time to spare."""
        since, used_before, done_before = self._looked
        now = time.monotonic()
        if len(self._threads) >= self._count or now - since < _LOOK:
            return
        used, done = sum(list(self._used.values())), self._all - self._left
        share, pace = (used - used_before) / (now - since), (done - done_before) / (now - since)
        if share >= _IDLE and done - done_before < len(self._threads):
            return  # too few have been done to tell how fast it goes
        self._looked = now, used, done
        if share < _IDLE or (share < _BUSY and pace >= _GAIN * self._pace):
            self._pace = pace
            for _ in range(min(len(self._threads), self._count - len(self._threads))):
                self._spawn()

    def _spawn(self) -> None:
        thread = threading.Thread(target=self._work, name="tieredstore-worker", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        me = threading.get_ident()
        while not self._stop.is_set():
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                return
            self._running[me] = task
            try:
                task()
            except SystemExit:
                return  # given up on; its task was handed to another
            except BaseException as error:  # noqa: BLE001 - raised in the calling thread
                self._events.put(error)
                return
            self._running.pop(me, None)
            self._used[me] = time.thread_time()
            with self._lock:
                self._left -= 1
                last = not self._left
            if last:
                self._events.put(None)

    def _next_event(self) -> None:
        """Wait for the end or an error, not for long; then look for calls that hang."""
        with contextlib.suppress(queue.Empty):
            growing = len(self._threads) < self._count
            event = self._events.get(timeout=_LOOK if growing else min(_SEEN, self._deadline / 4))
            if event is not None:
                try:
                    raise event
                finally:
                    del event  # its frames are this one too: a circle
            return
        for ident, what, seconds in self._watch.overdue(self._deadline):
            self._hung.add(ident)
            task = self._running.pop(ident, None)
            if not self._on_hang(what) or task is None:
                raise TierTimeout(f"{what}: no answer within {seconds:g} s")
            self._tasks.put(task)
            self._spawn()
