"""The contract of places whose users agree on who works: leases, and notes beside them.

Part of the contract in ``backend.py``, which authors of backends import it from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager

OnWait = Callable[[str], None]


class Leasable(ABC):
    """A place whose users can agree on who works on something."""

    @abstractmethod
    def lease(
        self, key: str, timeout: float | None, on_wait: OnWait
    ) -> AbstractContextManager[None]:
        """Hold the lease ``key`` for the time of a ``with`` block.

        Parameters
        ----------
        key : str
            What is leased, a valid name.
        timeout : float or None
            Seconds to wait for it; ``None`` waits without a limit.
        on_wait : callable
            Called now and then with who holds it, in words: ``process 4711 on node3``, or
            ``another process`` where the place does not tell.

        Raises
        ------
        LeaseTimeout
            When it was not to be had in time.
        OSError
            When the place cannot do leases now; the caller goes on without one.
        """

    def read_note(self, key: str) -> bytes:
        """What was left beside a lease by who holds it, or held it last; empty where nothing is.

        Whoever contends for the lease may ask. A place that keeps no notes needs no method: those
        who wait are then told less, and a build that fails is tried by the next one.
        """
        del key
        return b""

    def write_note(self, key: str, note: bytes) -> None:
        """Leave a small note beside a lease, whole, in the place of what was there.

        Parameters
        ----------
        key : str
            What is leased.
        note : bytes
            At most 8,192; none takes the note away.

        Raises
        ------
        OSError
            When the place cannot take it now; the holder works on.
        """
        del key, note
