"""How a run goes over all its runs and machines: done, running, failed, rate, time left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from datasets_prep.chunks.ledger import DONE, FAILED, RUNNING, Entry, Ledger
from datasets_prep.chunks.merged import MergeNotes
from datasets_prep.chunks.plan import Plan
from tieredstore import TieredStore

_WINDOW: Final = 20  # chunks that the rate is taken from


@dataclass(slots=True)
class Progress:
    """How a run stands.

    Attributes
    ----------
    run : str
        Its folder.
    total, done, running, failed : int
        Chunks. Done is what is published; running and failed is what was last said of the others.
    items_a_second : float
        Of what was done last; 0 while that is unknown.
    seconds_left : float or None
        At that rate.
    makers : dict
        For each machine and GPU: chunks done and running.
    failures : dict
        Why chunks failed, by name.
    """

    run: str
    total: int
    done: int = 0
    running: int = 0
    failed: int = 0
    items_a_second: float = 0.0
    seconds_left: float | None = None
    makers: dict[str, dict[str, int]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return asdict(self)


def progress(store: TieredStore, plan: Plan) -> Progress:
    """How a run stands now."""
    said = Ledger(store, plan).read()
    held = {
        c for note in MergeNotes(store, plan).read().values() if note.removed for c in note.chunks
    }
    chunks = {chunk.artifact(plan.run): chunk for chunk in plan.chunks()}
    published = set(store.names()) & chunks.keys()
    published |= {name for name, chunk in chunks.items() if chunk.label in held}
    found = Progress(plan.run, len(chunks), done=len(published))
    makers: dict[str, Counter[str]] = {}
    for name, row in said.items():
        state = DONE if name in published else str(row.get("state", ""))
        if name not in chunks:
            continue
        found.running += state == RUNNING
        found.failed += state == FAILED
        if state == FAILED:
            found.failures[name] = str(row.get("why", ""))
        gpu = f" GPU {row['gpu']}" if row.get("gpu") else ""
        makers.setdefault(f"{row.get('host', '?')}{gpu}", Counter())[state] += 1
    found.makers = {name: dict(counts) for name, counts in sorted(makers.items())}
    sizes = {name: chunk.end - chunk.start + 1 for name, chunk in chunks.items()}
    found.items_a_second = _rate(
        {n: said[n] for n in said.keys() & published & sizes.keys()}, sizes
    )
    left = sum(size for name, size in sizes.items() if name not in published)
    if found.items_a_second:
        found.seconds_left = left / found.items_a_second
    return found


def _rate(done: Mapping[str, Entry], sizes: Mapping[str, int]) -> float:
    """Items a second of the chunks that were done last, from the first of their beginnings on."""
    ends = {name: row["time"] for name, row in done.items() if _is_number(row.get("time"))}
    last = sorted(ends, key=lambda name: ends[name])[-_WINDOW:]
    if not last:
        return 0.0
    begins = [ends[n] - done[n]["seconds"] for n in last if _is_number(done[n].get("seconds"))]
    if not begins:
        return 0.0
    span = max(1.0, max(ends[name] for name in last) - min(begins))
    return round(float(sum(sizes[name] for name in last) / span), 3)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def lines(found: Progress) -> list[str]:
    """The same for people."""
    share = 100 * found.done // max(found.total, 1)
    done = f"{found.done} of {found.total} chunks done ({share} %)"
    text = [f"{found.run}: {done}, {found.running} running, {found.failed} failed"]
    if found.seconds_left is not None and found.done < found.total:
        hours, rest = divmod(int(found.seconds_left), 3600)
        left = f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
        text.append(f"{found.items_a_second:g} items a second, {left} left")
    for maker, counts in found.makers.items():
        said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()) if state)
        text.append(f"  {maker}: {said}")
    text += [f"  {name} failed: {why}" for name, why in sorted(found.failures.items())]
    return text
