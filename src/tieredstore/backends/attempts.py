"""One request tried again and again: how long each attempt may take, and the pauses in between.

For backends that talk HTTP themselves; what is worth trying again is theirs to say.
"""

from __future__ import annotations

import random
import time
from typing import Final

from tieredstore.errors import TierUnavailable

_FIRST_PAUSE: Final = 0.2  # seconds
_SHORTEST_TIMEOUT: Final = 0.05  # seconds; a client takes none of zero


class Attempts:
    """The attempts at one request.

    Parameters
    ----------
    timeout : float
        Seconds that one attempt may wait at most.
    seconds : float
        How long it is worth trying.
    longest : float
        Seconds of the longest pause, unless the server asks for more.
    """

    def __init__(self, timeout: float, seconds: float, longest: float) -> None:
        self._timeout = timeout
        self._seconds = seconds
        self._longest = longest
        self._tries = 0
        self.renew()

    def renew(self) -> None:
        """Begin the time anew: something has been got since."""
        self._end = time.monotonic() + self._seconds
        self._pause = _FIRST_PAUSE

    def begin(self) -> float:
        """Count one attempt; gives the seconds that it may wait."""
        self._tries += 1
        return min(self._timeout, max(_SHORTEST_TIMEOUT, self._end - time.monotonic()))

    def wait(self, kind: type[TierUnavailable], what: str, after: float) -> None:
        """Pause before the next attempt, at least the ``after`` seconds that the server asks for.

        Raises
        ------
        TierUnavailable
            As ``kind``, with ``what`` went wrong, when the time is over by then.
        """
        wait = max(after, self._pause * random.Random().uniform(0.5, 1))  # noqa: S311 - spreads
        if time.monotonic() + wait >= self._end:
            asked = f"; it asks to wait {after:g} s" if after else ""
            times = "once" if self._tries == 1 else f"{self._tries} times"
            raise kind(f"{what} (tried {times} within {self._seconds:g} s{asked})") from None
        time.sleep(wait)
        self._pause = min(2 * self._pause, self._longest)
