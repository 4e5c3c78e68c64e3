"""What the state machine of ``test_store_machine.py`` knows of its store: a dictionary.

The tiers are made here as well, and what each generation holds. Nothing here does anything to an
artifact.
"""

from __future__ import annotations

import errno
import random
import tempfile
import uuid
from pathlib import Path

from tieredstore import Tier, TieredStore, local_tier
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.backends.runpod import RunPodBackend
from tieredstore.testing.faults import FaultyKeyed, Points, kill_before

OWN = ".tieredstore"
FOLDERS, SINGLES, MERGED = ("a", "runs/b"), ("one.bin", "logs/two.bin"), "merged.bin"
TIERS = ("first", "vol", "far")
NAMES = (*FOLDERS, *SINGLES, MERGED)
SIZES = {"a.bin": 1 << 20 | 5, "deep/b.bin": 999, "c": 11, "empty": 0}


def bytes_of(tag, file, size):
    return random.Random(f"{tag} {file}").randbytes(size)


def contents(name, tag):
    """The files of one generation; sizes are the same for all of a name."""
    if name in FOLDERS:
        return {file: bytes_of(tag, file, size) for file, size in SIZES.items()}
    file = name.rpartition("/")[2]
    return {file: bytes_of(tag, file, 70_001)}


class Known:
    """A store on three tiers; ``may`` has the generations that each tier may have."""

    def __init__(self):
        memory = Path("/dev/shm")
        self.root = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.vol, self.away = self.root / "vol", self.root / "vol.away"
        self.vol.mkdir()
        self.url = f"memory://{uuid.uuid4().hex}"
        self.down = False
        far = FaultyKeyed(FsspecBackend(self.url), Points(kill_before), self.on_call)
        self.store = TieredStore(
            [
                Tier("first", local_tier(self.root / "first").backend),
                Tier("vol", RunPodBackend(str(self.vol)), durable=True, populate=True),
                Tier("far", far, durable=True),
            ]
        )
        self.bytes, self.recipes = {}, {}  # by generation
        self.may = {(tier, name): {None} for tier in TIERS for name in NAMES}
        # Which generation was changed behind the store's back, by tier and name: nobody is sure of
        # that one there any more, also when it has been set aside and has come again.
        self.damaged = {}
        self.partial = set()  # tier and name of copies that have only some files
        self.number = 0

    def on_call(self, name):
        if self.down:
            raise OSError(errno.EIO, "the far place is down", name)

    # -- what is known ----------------------------------------------------------------------------

    def up(self, tier):
        return {"first": True, "vol": not self.away.exists(), "far": not self.down}[tier]

    def tier(self, tier):
        return self.store.tiers[TIERS.index(tier)]

    def intact(self, tier, name):
        """The generation that a tier surely has, whole in its bytes; ``None`` where not sure."""
        may = self.may[tier, name]
        sure = len(may) == 1 and self.up(tier) and (tier, name) not in self.partial
        generation = next(iter(may)) if sure else None
        return None if generation == self.damaged.get((tier, name)) else generation

    def servable(self, name):
        """Generations that some tier that answers surely has."""
        return {g for tier in TIERS if (g := self.intact(tier, name)) is not None}

    def learn(self, name, content, recipe):
        """A generation has been made in the first tier."""
        located = self.tier("first").locate(name)
        generation = located.head.generation
        assert located.state == "whole"
        assert generation not in self.bytes
        self.bytes[generation], self.recipes[generation] = content, recipe
        self.may["first", name] = {generation}
        self.partial.discard(("first", name))
        return generation

    def look(self, name):
        """Each tier that answers has what it may have, and that is what it has from now on."""
        for tier in TIERS:
            located = self.tier(tier).locate(name)
            if not self.up(tier):
                assert located.state in {"unreachable", "absent"}, (tier, located)
                continue
            found = located.head.generation if located.head else None
            hurt = self.damaged.get((tier, name))
            if located.state == "damaged":
                assert hurt in self.may[tier, name], (tier, name, located)
                continue
            if located.state == "pending":  # files that damaged records no longer name
                assert hurt, (tier, name, located)
                self.may[tier, name] = {None}
                continue
            assert located.state in {"whole", "partial", "absent"}, (tier, located)
            assert found in self.may[tier, name] or (hurt and not found), (tier, name, located)
            self.may[tier, name] = {found}
            if found != hurt:
                self.damaged.pop((tier, name), None)
            (self.partial.add if located.state == "partial" else self.partial.discard)((tier, name))

    def tag(self):
        self.number += 1
        return str(self.number)
