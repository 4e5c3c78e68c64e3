"""How each chunk of a run stands: what its artifact says, never a file that happens to exist."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datasets_prep.chunks.merged import MergeNotes
from datasets_prep.chunks.phases import Phase
from datasets_prep.chunks.plan import Chunk, Plan
from tieredstore import ArtifactNotFound, Recipe, TieredStore

COMPLETE, STALE, MISSING = "complete", "stale", "missing"
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Stand:
    """How one chunk stands.

    Attributes
    ----------
    state : str
        ``complete``, ``stale`` (made from something else than what is there now) or ``missing``.
    why : str
        What has changed since a stale one was made.
    tiers : tuple of str
        Where a complete one lies.
    """

    state: str
    why: str = ""
    tiers: tuple[str, ...] = ()


class Standing:
    """Looks at the chunks of a run.

    Parameters
    ----------
    store : TieredStore
        Where they are kept.
    plan, phase : Plan, Phase
        Of the run.
    folder : Path
        Where the phase's code and inputs lie; their content is read once, here.
    """

    def __init__(self, store: TieredStore, plan: Plan, phase: Phase, folder: Path) -> None:
        self._store = store
        self._plan = plan
        self._phase = phase
        self._digests = phase.digests(folder)
        notes = MergeNotes(store, plan).read().values()
        self._removed = {label for note in notes if note.removed for label in note.chunks}

    def recipe(self, chunk: Chunk) -> Recipe:
        """What a chunk is made from now."""
        return self._phase.recipe(chunk, self._digests)

    def all(self, chunks: Iterable[Chunk]) -> dict[Chunk, Stand]:
        """How each of them stands."""
        wanted = list(chunks)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(zip(wanted, pool.map(self.look, wanted), strict=True))

    def look(self, chunk: Chunk) -> Stand:
        """How one stands, in whichever tiers can be reached."""
        name, recipe = chunk.artifact(self._plan.run), self.recipe(chunk)
        located = self._store.locate(name)
        have = [where for where in located if where.head is not None and where.serves(recipe)]
        if have and have[0].tier is located[0].tier:
            try:
                self._store.restore(name, recipe=recipe)  # a hit, unless files are gone there
            except ArtifactNotFound:
                return Stand(MISSING)
        if have:
            return Stand(COMPLETE, tiers=tuple(where.tier.name for where in have))
        if chunk.label in self._removed and not any(where.present for where in located):
            return Stand(COMPLETE)  # its merge holds it
        other = next((w.recipe for w in located if w.present and w.recipe is not None), None)
        return Stand(MISSING) if other is None else Stand(STALE, changes(recipe, other))


def changes(now: Recipe, before: Recipe) -> str:
    """What has changed since, in a few words: ``run.py changed``."""
    said = []
    for name in sorted(now.inputs.keys() | before.inputs.keys()):
        if name not in before.inputs:
            said.append(f"{name} is new")
        elif name not in now.inputs:
            said.append(f"{name} is gone")
        elif now.inputs[name] != before.inputs[name]:
            said.append(f"{name} changed")
    options = sorted(now.options.keys() | before.options.keys())
    said += [f"{n} changed" for n in options if now.options.get(n) != before.options.get(n)]
    return ", ".join(said) or "made by another version"
