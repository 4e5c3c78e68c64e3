"""What a run has been merged into, and which chunks have been removed since: a shared record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from datasets_prep.chunks.plan import Plan
from tieredstore import TieredStore

_FILE = "merged.json"


@dataclass(frozen=True, slots=True)
class Note:
    """One merge.

    Attributes
    ----------
    made_of : str
        Fingerprint of its recipe.
    artifacts : tuple of str
        What has been published.
    chunks : tuple of str
        The labels of what it is made of.
    time : int
        When, seconds since 1970.
    removed : bool
        Whether the chunks have been removed because it holds them.
    """

    made_of: str
    artifacts: tuple[str, ...]
    chunks: tuple[str, ...]
    time: int
    removed: bool = False


class MergeNotes:
    """The merges of one run, by scope.

    Parameters
    ----------
    store : TieredStore
        Where they are recorded.
    plan : Plan
        The run.
    """

    def __init__(self, store: TieredStore, plan: Plan) -> None:
        self._store = store
        self._record = store.record(f"{plan.run}/{_FILE}")

    def read(self) -> dict[str, Note]:
        """All merges whose artifacts are still there."""
        rows = self._record.read()
        notes = {scope: _note(row) for scope, row in _rows(rows).items()}
        return {s: n for s, n in notes.items() if n is not None and self._stands(n)}

    def merged(
        self, scope: str, made_of: str, artifacts: Sequence[str], labels: Sequence[str]
    ) -> None:
        """Note a merge."""
        note = Note(made_of, tuple(artifacts), tuple(labels), int(time.time()))
        self._record.update(lambda rows: {**_rows(rows), scope: asdict(note)})

    def removed(self, scope: str) -> None:
        """Note, before it is done, that a merge's chunks are removed."""

        def change(rows: Any) -> dict[str, Any]:
            known = _rows(rows)
            return {**known, scope: {**known[scope], "removed": True}}

        self._record.update(change)

    def _stands(self, note: Note) -> bool:
        return all(any(w.present for w in self._store.locate(name)) for name in note.artifacts)


def _rows(rows: Any) -> dict[str, Any]:
    return rows if isinstance(rows, dict) else {}


def _note(row: Any) -> Note | None:
    try:
        texts = tuple(map(str, row["artifacts"])), tuple(map(str, row["chunks"]))
        return Note(str(row["made_of"]), *texts, int(row["time"]), bool(row["removed"]))
    except (KeyError, TypeError, ValueError):
        return None  # of another version: what it says is found out anew
