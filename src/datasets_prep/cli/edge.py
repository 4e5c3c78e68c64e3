"""Where errors and signals become one line and an exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from datasets_prep.console import complain
from datasets_prep.errors import OptionError, PrepError, reason
from datasets_prep.options import MISUSED
from tieredstore import ConfigError, InvalidName, Terminated, TieredStoreError, terminable

DONE: Final = 0
FAILED: Final = 1


def guarded(call: Callable[[], int]) -> int:
    """Call something; errors become one line and an exit status."""
    try:
        with terminable():
            return call()
    except KeyboardInterrupt:
        complain("interrupted; run the command again to go on")
        return 128 + signal.SIGINT
    except Terminated:
        complain("terminated; run the command again to go on")
        return 128 + signal.SIGTERM
    except (OptionError, ConfigError, InvalidName) as error:
        complain(reason(error))
        return MISUSED
    except (PrepError, TieredStoreError, OSError) as error:
        complain(reason(error))
        return FAILED
    except ImportError as error:
        complain(f"{error}; pip install 'tieredstore[prep,slurm,caches]'")
        return FAILED
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user
        complain(f"unexpected {type(error).__name__}: {reason(error)}; please report it")
        return FAILED
    finally:
        _flush()


def _flush() -> None:
    """What nobody reads any more goes nowhere, or it would fail again when the process exits."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
