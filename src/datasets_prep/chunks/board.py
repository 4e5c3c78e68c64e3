"""Which chunk is next, for the threads of one run; nothing is made here."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from datasets_prep.chunks.plan import Chunk

_LOOK = 0.5  # seconds


@dataclass(slots=True)
class _Waiting:
    chunk: Chunk
    tries: int = 0
    avoid: set[int] = field(default_factory=set)
    after: float = 0.0


class Board:
    """Chunks that wait to be made.

    Parameters
    ----------
    chunks : iterable of Chunk
        In the order in which they are made.
    workers : int
        How many threads take from it; each begins with the slice of its own number.
    """

    def __init__(self, chunks: Iterable[Chunk], workers: int) -> None:
        self._waiting = [_Waiting(chunk) for chunk in chunks]
        self._taken: dict[Chunk, _Waiting] = {}
        self._alive = set(range(workers))
        self._change = threading.Condition()
        self._ended = False

    def take(self, worker: int) -> Chunk | None:
        """The next chunk for a worker, waited for while others may still give one back.

        Returns
        -------
        Chunk or None
            ``None`` when there is nothing left to do, or the run ends.
        """
        with self._change:
            while not self._ended and (self._waiting or self._taken):
                found = self._next(worker)
                if found is not None:
                    self._waiting.remove(found)
                    self._taken[found.chunk] = found
                    return found.chunk
                self._change.wait(_LOOK)
            return None

    def end(self) -> None:
        """Give out no more."""
        with self._change:
            self._ended = True
            self._change.notify_all()

    def over(self, chunk: Chunk) -> None:
        """A chunk is done with, made or not."""
        with self._change:
            del self._taken[chunk]
            self._change.notify_all()

    def back(self, chunk: Chunk, seconds: float) -> None:
        """Somebody else makes it: to be looked at again after a while."""
        with self._change:
            waiting = self._taken.pop(chunk)
            waiting.after = time.monotonic() + seconds
            self._waiting.append(waiting)
            self._change.notify_all()

    def again(self, chunk: Chunk, worker: int, retries: int) -> int:
        """A chunk has failed on a worker: another one tries it, or the same where it is alone.

        Returns
        -------
        int
            How many tries are left; when there are none it is done with.
        """
        with self._change:
            waiting = self._taken.pop(chunk)
            waiting.tries += 1
            waiting.avoid.add(worker)
            left = retries + 1 - waiting.tries
            if left > 0:
                self._waiting.append(waiting)
            self._change.notify_all()
            return max(left, 0)

    def gone(self, worker: int) -> bool:
        """Whether a worker may leave; the last one may not."""
        with self._change:
            if self._alive == {worker}:
                return False
            self._alive.discard(worker)
            self._change.notify_all()
            return True

    @property
    def left(self) -> int:
        """How many chunks are not done with."""
        with self._change:
            return len(self._waiting) + len(self._taken)

    def _next(self, worker: int) -> _Waiting | None:
        now = time.monotonic()
        able = [w for w in self._waiting if w.after <= now and not self._avoids(w, worker)]
        own = [w for w in able if w.chunk.slice == worker]
        return next(iter(own or able), None)

    def _avoids(self, waiting: _Waiting, worker: int) -> bool:
        return worker in waiting.avoid and not self._alive <= waiting.avoid
