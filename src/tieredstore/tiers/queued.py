"""Promotes that wait: small files in the first tier's ``.tieredstore/queue/``, one for each tier.

An entry is put whole and is on the disk when `add` returns; it outlives its process. It is only
taken away when the tier has the artifact, or when somebody says so. Who promotes what waits is
in ``flushing.py``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Final

from tieredstore.backends.local import LocalBackend
from tieredstore.errors import InvalidName, TieredStoreError, reason, writing_to
from tieredstore.manifest.artifact import digest128, random_hex
from tieredstore.manifest.names import check_name
from tieredstore.mounted import small
from tieredstore.mounted.mount import Root
from tieredstore.notes import without_secrets
from tieredstore.tiers.tier import Tier
from tieredstore.workers import within

AREA: Final = "queue"
_LIMIT: Final = 16384  # bytes of an entry
_REASON: Final = 1000  # characters
_KEY: Final = 32  # digits of a name's digest, which begin the name of its entries
_TRIES, _LARGEST = 1 << 30, 1e12


@dataclass(frozen=True, slots=True)
class Queued:
    """A promote that waits.

    Attributes
    ----------
    name : str
        The artifact; empty where the entry cannot be read.
    tier : str
        Where it is to go.
    generation : str
        What was there when it was queued; empty for data without a manifest.
    replace : bool
        Replace the artifact there even when another recipe made it.
    since : float
        Seconds since 1970 when it was queued.
    tries : int
        How often it has failed.
    reason : str
        Why, the last time.
    after : float
        Seconds since 1970 before which it is not tried again unless it is asked for by name.
    file : str
        The entry's own file.
    """

    name: str
    tier: str
    generation: str = ""
    replace: bool = False
    since: float = 0.0
    tries: int = 0
    reason: str = ""
    after: float = 0.0
    file: str = ""

    def emit(self) -> bytes:
        """The entry's bytes."""
        body = {key: value for key, value in asdict(self).items() if key != "file"}
        return json.dumps(body).encode()

    @classmethod
    def parse(cls, data: bytes, file: str) -> Queued:
        """What an entry says; one that cannot be read says so, and is never left out."""
        try:
            found = json.loads(data)
            kinds = {"tier": str, "generation": str, "replace": bool, "tries": int, "reason": str}
            values = {key: found[key] for key in kinds}
            if any(type(values[key]) is not kind for key, kind in kinds.items()):
                raise ValueError("not of the kind that is expected")
            since, after = (_time(found[key]) for key in ("since", "after"))
            values["tries"] = min(max(values["tries"], 0), _TRIES)
            values["reason"] = values["reason"][:_REASON]
            return cls(check_name(found["name"]), **values, since=since, after=after, file=file)
        except (
            ValueError,
            KeyError,
            TypeError,
            OverflowError,
            RecursionError,
            InvalidName,
        ) as error:
            return cls("", "", reason=f"the entry cannot be read: {reason(error)}", file=file)

    def failed(self, why: str, now: float, pause: float) -> Queued:
        """The same after a try that failed."""
        said = without_secrets(why)[:_REASON]
        return replace(self, tries=self.tries + 1, reason=said, after=now + pause)


def add(first: Tier, queued: Queued) -> Queued:
    """Put an entry into the first tier's queue, unless the same one waits already.

    Raises
    ------
    TierUnavailable
        When that cannot be written.
    """
    root = _root(first)
    wanted = (queued.tier, queued.generation, queued.replace)
    for there in entries(first, queued.name):
        if (there.tier, there.generation, there.replace) == wanted:
            return there
    made = replace(queued, file=f"{_key(queued.name)}-{random_hex(8)}.json")
    with writing_to(first.name):
        put = partial(small.put_lasting, root, AREA, made.file, made.emit())
        within(first.deadline, put, f"tier {first.name!r}")
    return made


def update(first: Tier, queued: Queued) -> None:
    """Write over an entry, unless it has been taken away."""
    with writing_to(first.name):
        if queued.file in set(small.names(_root(first), AREA)):
            small.put_lasting(_root(first), AREA, queued.file, queued.emit())


def remove(first: Tier, queued: Sequence[Queued]) -> None:
    """Take entries away."""
    with writing_to(first.name):
        for each in queued:
            small.remove(_root(first), AREA, each.file)


def entries(first: Tier, name: str | None = None) -> list[Queued]:
    """All that waits in the first tier's queue, or all of one artifact; the oldest first.

    Raises
    ------
    TierUnavailable
        When the tier does not answer.
    """
    found = within(first.deadline, partial(_entries, _root(first), name), f"tier {first.name!r}")
    return sorted(found, key=lambda each: (each.since, each.name, each.tier, each.file))


def what_waits(first: Tier, name: str) -> str:
    """Why an artifact's copy has to stay in the first tier; empty where nothing waits."""
    try:
        waiting = entries(first, name)
    except (OSError, TieredStoreError) as error:
        return f"what is queued there cannot be seen ({reason(error)})"
    if not waiting:
        return ""
    to = ", ".join(sorted({each.tier or each.reason for each in waiting}))
    return f"it waits to be promoted to {to}; tieredstore flush does it"


def _entries(root: Root, name: str | None) -> list[Queued]:
    found = []
    for file in small.names(root, AREA):
        if name is None or file.startswith(_key(name)):
            data = small.read(root, AREA, file, _LIMIT)
            if data or file in set(small.names(root, AREA)):  # else it was taken away meanwhile
                found.append(Queued.parse(data, file))
    return found


def _root(first: Tier) -> Root:
    assert isinstance(first.backend, LocalBackend)
    return first.backend.mount


def _key(name: str) -> str:
    return digest128(name.encode())[:_KEY]


def _time(found: object) -> float:
    if not isinstance(found, int | float) or not math.isfinite(found) or abs(found) > _LARGEST:
        raise ValueError("no time that could be meant")
    return float(found)
