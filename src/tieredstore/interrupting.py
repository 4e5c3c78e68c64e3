"""Where a thread should not be interrupted just now: what it holds would not be let go.

Only the look at a thread's frames belongs here; who interrupts is in ``signals.py`` and
``workers.py``.
"""

from __future__ import annotations

import threading
from types import FrameType
from typing import Final

# What is raised in a finalizer is printed and lost; in the midst of leaving a block or of
# beginning a thread it keeps the rest from being done.
_WITHIN: Final = frozenset({"__del__", "__exit__"})
# Between these and the block that they are for, nobody lets go of what was just taken.
_TAKING: Final = frozenset({"enter_context", "_push_cm_exit", "_push_exit_callback"})


def should_wait(frame: FrameType | None) -> bool:
    """Whether an interruption of the thread that is in this frame should wait for a moment."""
    if frame is not None and frame.f_code.co_name in _TAKING:
        return True
    while frame is not None:
        code = frame.f_code
        if code.co_name in _WITHIN or code is threading.Thread.start.__code__:
            return True
        frame = frame.f_back
    return False
