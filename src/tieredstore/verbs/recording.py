"""One small JSON value that many processes on many nodes change, such as a plan or a ledger."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from tieredstore.errors import (
    CorruptData,
    HeadConflict,
    TierUnavailable,
    Unsupported,
    writing_to,
)
from tieredstore.manifest.artifact import random_hex
from tieredstore.manifest.names import check_name
from tieredstore.recordable import MAX_VALUE, Recordable, Versioned
from tieredstore.tiers.chain import Chain
from tieredstore.tiers.tier import Tier
from tieredstore.workers import within

_PATIENCE: Final = 120.0  # seconds
_PAUSE: Final = 0.005  # seconds, doubled with each try
_LONGEST_PAUSE: Final = 1.0

T = TypeVar("T")


class SharedRecord:
    """A JSON value by name, read and changed whole: of several that change it none is lost.

    It lies in one tier only, the farthest that all can write to, so that every process sees the
    same value. It is no artifact: it has no generation, is not promoted, restored or evicted.

    Attributes
    ----------
    name : str
        Such as ``phase1_0/plan.json``.
    tier : Tier
        Where it lies.
    """

    def __init__(self, chain: Chain, name: str, tier: str | None) -> None:
        self.name = check_name(name)
        chain.first.check_free(name)
        self.tier = _farthest(chain) if tier is None else chain.tier(tier)
        if not isinstance(self.tier.backend, Recordable) or self.tier.read_only:
            why = "is read-only" if self.tier.read_only else "cannot keep records"
            raise Unsupported(f"{name}: tier {self.tier.name!r} {why}; name another tier")
        self._place = self.tier.backend
        self._path = self.tier.layout.inner(name)

    def read(self) -> Any:
        """The value, or ``None`` where nothing has been written.

        Raises
        ------
        CorruptData
            When what lies there is no JSON.
        TierUnavailable
            When the tier cannot be read.
        """
        return self._value(self._read())

    def update(self, change: Callable[[Any], Any]) -> Any:
        """Change the value, again and again until nobody else has changed it meanwhile.

        Parameters
        ----------
        change : callable
            Given the value (``None`` where there is none), gives the new one, JSON values only.
            It may be called several times, each time with what was read then.

        Returns
        -------
        object
            What has been written, as it is read.

        Raises
        ------
        HeadConflict
            When others kept changing it for two minutes.
        ValueError
            When the new value is no JSON, or larger than 16 MiB.
        TierUnavailable
            When the tier cannot be read or written. The change may have been made then.
        """
        until, pause = time.monotonic() + _PATIENCE, _PAUSE
        spread = random.Random()  # noqa: S311 - only spreads attempts
        while True:
            found = self._read()
            before = self._value(found)
            data = self._emitted(change(copy.deepcopy(before)))
            after = self._value(Versioned(data, ""))
            if found is not None and after == before:
                return after
            version = None if found is None else found.version
            try:
                with writing_to(self.tier.name):
                    self._ask(partial(self._place.swap_record, self._path, data, version))
            except HeadConflict:
                if time.monotonic() > until:
                    raise
                time.sleep(pause * spread.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                return after

    def create(self, value: Any) -> Any:
        """Write the value unless there is one; what is there then, this one or the other."""
        return self.update(lambda there: value if there is None else there)

    def _read(self) -> Versioned | None:
        try:
            return self._ask(partial(self._place.read_record, self._path))
        except OSError as error:
            if isinstance(error, TierUnavailable):
                raise
            raise TierUnavailable(f"tier {self.tier.name!r}: {self._path}: {error}") from error

    def _ask(self, call: Callable[[], T]) -> T:
        return within(self.tier.deadline, call, f"tier {self.tier.name!r}")

    def _value(self, found: Versioned | None) -> Any:
        if found is None:
            return None
        try:
            return json.loads(found.data)["value"]
        except (ValueError, RecursionError, KeyError, TypeError):
            where = f"{self.tier.backend.place}/{self._path}"
            raise CorruptData(f"{where}: expected a JSON value that was recorded here") from None

    def _emitted(self, value: Any) -> bytes:
        """The value as it is written; no two writings are equal, so that each is known."""
        body = {"write": random_hex(16), "value": value}
        try:
            data = json.dumps(body, allow_nan=False, indent=1).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{self.name}: the value is no JSON: {error}") from None
        if len(data) > MAX_VALUE:
            raise ValueError(f"{self.name}: {len(data)} bytes, a record holds {MAX_VALUE}")
        return data


def _farthest(chain: Chain) -> Tier:
    able = [t for t in chain.tiers if isinstance(t.backend, Recordable) and not t.read_only]
    return able[-1] if able else chain.tiers[-1]
