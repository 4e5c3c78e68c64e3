"""Where errors and signals become one line and an exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, NoReturn

from datasets_prep.console import complain
from datasets_prep.errors import OptionError, PrepError, reason
from datasets_prep.options import MISUSED
from tieredstore import ConfigError, InvalidName, TieredStoreError

DONE: Final = 0
FAILED: Final = 1


def guarded(call: Callable[[], int]) -> int:
    """Call something; errors become one line and an exit status."""
    try:
        with _terminated_in_order():
            return call()
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else int(signal.SIGINT)
        how = "interrupted" if number == signal.SIGINT else "terminated"
        complain(f"{how}; run the command again to go on")
        return 128 + int(number)
    except (OptionError, ConfigError, InvalidName) as error:
        complain(reason(error))
        return MISUSED
    except (PrepError, TieredStoreError, OSError) as error:
        complain(reason(error))
        return FAILED
    except ImportError as error:
        complain(f"{error}; pip install 'tieredstore[prep,slurm]'")
        return FAILED
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user
        complain(f"unexpected {type(error).__name__}: {reason(error)}; please report it")
        return FAILED
    finally:
        _flush()


@contextmanager
def _terminated_in_order() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does, once; a second one ends the process at once."""
    before = None
    with suppress(ValueError):  # not in the main thread
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt(number)


def _flush() -> None:
    """What nobody reads any more goes nowhere, or it would fail again when the process exits."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
