"""Small objects that change: written on the condition that nobody else has, where S3 can.

What a server makes of ``If-None-Match`` and ``If-Match`` is found out once by writing an object of
our own, and remembered beside the data for a week. Amazon and moto keep both; Ceph's gateway 16.2
keeps ``If-Match`` only with the ETag unquoted; others ignore them and write. There the object is
read and compared just before it is written, and of two that write at the same instant the last
one wins; either is whole.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

from tieredstore.backends.s3.objects import Lost, Objects
from tieredstore.errors import TieredStoreError
from tieredstore.manifest.artifact import random_hex
from tieredstore.manifest.names import RESERVED

_REMEMBERED: Final = f"{RESERVED}/conditional.json"
_VALID: Final = 7 * 24 * 3600  # seconds
_LIMIT: Final = 4096  # bytes
QUOTED, PLAIN, NEVER = "quoted", "plain", "never"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a server does with conditions.

    Attributes
    ----------
    create : bool
        An object is written only where there is none.
    replace : str
        ``quoted`` or ``plain``: how it wants the ETag of what is replaced; ``never``: it ignores
        or refuses the condition.
    checked : int
        When that was found out, seconds since 1970.
    """

    create: bool
    replace: str
    checked: int = 0


class Heads:
    """Conditional writes to a bucket."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._conditions: Conditions | None = None
        self._sure = True

    def conditions(self) -> Conditions:
        """What the server does with conditions, remembered or found out."""
        if self._conditions is None:
            self._conditions = self._remembered() or self._probe()
        return self._conditions

    def put(self, path: str, data: bytes, found: tuple[bytes, str] | None) -> str:
        """Write over what was found, or where nothing was, and give the new ETag.

        Parameters
        ----------
        path : str
            Of the object.
        data : bytes
            What to write.
        found : tuple of bytes and str, or None
            What was there and its ETag.

        Raises
        ------
        Lost
            When somebody else has written since, as far as the server can tell.
        """
        conditions = self.conditions()
        try:
            if found is None and conditions.create:
                return self._objects.create(path, data)
            if found is not None and conditions.replace != NEVER:
                return self._objects.replace(path, data, self.written(found[1]))
            return self._objects.put(path, data)
        except Lost:
            # The first answer may have been lost on its way, and this be the second attempt.
            there, tag = self.now(path, len(data)) or (b"", "")
            if there != data:
                raise
            return tag

    def now(self, path: str, limit: int) -> tuple[bytes, str] | None:
        """What an object holds now and its ETag; ``None`` where there is none, or a larger one."""
        with suppress(FileNotFoundError, ValueError):
            return self._objects.get(path, limit)
        return None

    def written(self, tag: str) -> str:
        """An ETag as the server wants it in a condition."""
        return _written(tag, self.conditions().replace)

    # -- what the server does -------------------------------------------------------------------

    def _remembered(self) -> Conditions | None:
        try:
            found = json.loads(self._objects.get(_REMEMBERED, _LIMIT)[0])
            known = Conditions(**found)
        except (FileNotFoundError, ValueError, TypeError):
            return None
        right = type(known.create) is bool and known.replace in {QUOTED, PLAIN, NEVER}
        fresh = type(known.checked) is int and 0 <= time.time() - known.checked < _VALID
        return known if right and fresh else None

    def found_out(self) -> Conditions:
        """What the server does with conditions now; nothing is remembered or left behind."""
        path = f"{RESERVED}/probe/{random_hex(8)}"
        try:
            return Conditions(self._creates(path), self._replaces(path), int(time.time()))
        finally:
            with suppress(OSError, TieredStoreError):
                self._objects.delete([path])

    def _probe(self) -> Conditions:
        found = self.found_out()
        with suppress(OSError, TieredStoreError):
            if self._sure:
                self._objects.put(_REMEMBERED, json.dumps(asdict(found)).encode())
        return found

    def _creates(self, path: str) -> bool:
        """Whether a second object is refused, and a first one not."""
        if not self._holds(partial(self._objects.create, path, b"one")):
            self._objects.put(path, b"one")
            return False
        return not self._holds(partial(self._objects.create, path, b"two"))

    def _replaces(self, path: str) -> str:
        """How the ETag has to be given for the right one to be taken and a wrong one refused."""
        for way in (QUOTED, PLAIN):
            tag = self._objects.put(path, b"three")
            right, wrong = _written(tag, way), _written("0" * 32, way)
            if not tag or self._holds(partial(self._objects.replace, path, b"four", wrong)):
                return NEVER
            if self._holds(partial(self._objects.replace, path, b"five", right)):
                return way
        return NEVER

    def _holds(self, write: Callable[[], object]) -> bool:
        """Whether a conditional write is done.

        A server that failed, rather than refused or knew no condition, is asked again by the next
        process; meanwhile it counts as one that has none.
        """
        try:
            write()
        except (Lost, FileNotFoundError, NotImplementedError):
            return False
        except TieredStoreError:
            self._sure = False
            return False
        return True


def _written(tag: str, way: str) -> str:
    bare = tag.strip('"')
    return f'"{bare}"' if way == QUOTED else bare
