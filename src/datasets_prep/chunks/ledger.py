"""What is known of a run while it goes on: which chunks are being made, done, or have failed.

``completed.json`` for each GPU's slice, a shared record. It is for people and for estimates: what
counts as completed is the chunk's artifact and nothing else.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from datasets_prep.chunks.plan import Chunk, Plan
from tieredstore import Reporter, TieredStore, TieredStoreError

DONE, RUNNING, FAILED = "done", "running", "failed"
_TAIL: Final = 4000  # characters of a log

Entry = dict[str, Any]


class Ledger:
    """The records of one run.

    Parameters
    ----------
    store : TieredStore
        Where they are kept.
    plan : Plan
        The run.
    """

    def __init__(self, store: TieredStore, plan: Plan) -> None:
        self._reporter: Reporter = store.reporter
        self._folders = [f"{plan.run}/chunks/gpu{number}" for number in range(len(plan.slices))]
        self._records = [store.record(f"{folder}/completed.json") for folder in self._folders]

    def read(self) -> dict[str, Entry]:
        """What is said of each chunk, by its artifact's name."""
        found: dict[str, Entry] = {}
        for folder, record in zip(self._folders, self._records, strict=True):
            value = record.read()
            rows = value if isinstance(value, dict) else {}
            found.update({f"{folder}/{k}": v for k, v in rows.items() if isinstance(v, dict)})
        return found

    def begun(self, chunk: Chunk, gpu: str) -> None:
        """A chunk is being made here."""
        self._write(chunk, lambda row: {**_who(gpu), "state": RUNNING, "tries": _tries(row) + 1})

    def done(self, chunk: Chunk, gpu: str, seconds: float, generation: str) -> None:
        """A chunk has been made here and is published."""
        entry = {**_who(gpu), "state": DONE, "seconds": seconds, "generation": generation}
        self._write(chunk, lambda row: {**entry, "tries": _tries(row)})

    def failed(self, chunk: Chunk, gpu: str, why: str, log: str) -> None:
        """A chunk could not be made here."""
        entry = {**_who(gpu), "state": FAILED, "why": why, "log": log[-_TAIL:]}
        self._write(chunk, lambda row: {**entry, "tries": _tries(row)})

    def dropped(self, chunk: Chunk) -> None:
        """A chunk that was being made here has been given up."""
        self._write(chunk, lambda _: None)

    def _write(self, chunk: Chunk, entry: Callable[[Entry], Entry | None]) -> None:
        def change(rows: Any) -> dict[str, Entry]:
            rows = rows if isinstance(rows, dict) else {}
            before = rows.pop(chunk.label, None)
            after = entry(before if isinstance(before, dict) else {})
            return dict(sorted({**rows, **({} if after is None else {chunk.label: after})}.items()))

        record = self._records[chunk.slice]
        try:
            record.update(change)
        except (OSError, TieredStoreError) as error:  # only told: the chunk itself is what counts
            self._reporter.skipped(record.tier.name, f"{record.name}: {error}")


def _tries(row: Entry) -> int:
    tries = row.get("tries", 0)
    return tries if type(tries) is int else 0


def _who(gpu: str) -> Entry:
    return {"host": socket.gethostname(), "pid": os.getpid(), "gpu": gpu, "time": int(time.time())}
