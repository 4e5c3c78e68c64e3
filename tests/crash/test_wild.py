"""Random histories on three tiers, killed again and again, looked at from outside after each kill.

A history is a few processes, one after the other in the same three tiers: each does random
operations until it is killed at a random point, whatever it left is what the next one finds. After
each kill ``looking.py`` compares all tiers with what ``promises.py`` reads in the log.
``TIEREDSTORE_TEST_KILLS`` says how many kills in all (CI: 100).
"""

from __future__ import annotations

import json
import math
import os
import random

import pytest

pytestmark = pytest.mark.timeout(900)
KILLS = int(os.environ.get("TIEREDSTORE_TEST_KILLS", "100"))
EACH = 10  # kills of one history
OPERATIONS = 12  # of one process that is not killed before
POINTS = 400  # up to which of its points a process lives
HISTORIES = math.ceil(KILLS / EACH)


class History:
    """One set of tiers, and the processes that live and die there."""

    def __init__(self, number, child, root, bucket=None):
        self.random, self.number = random.Random(f"history {number}"), number
        self.child, self.root, self.bucket = child, root, bucket
        self.read = self.kills = 0
        self.no_exchange = number % 4 == 3

    def order(self, operation, **more):
        s3 = self.bucket and {"url": self.bucket.url, "options": self.bucket.options}
        return self.child.order(
            root=str(self.root), s3=s3, operation=operation, no_exchange=self.no_exchange, **more
        )

    def live(self, life):
        """One process, until it is killed or has done all it was to do."""
        return self.order(
            "run",
            seed=f"{self.number}.{life}",
            operations=OPERATIONS,
            fault=self.random.choice(("before", "after", "within")),
            at=int(math.exp(self.random.uniform(0, math.log(POINTS)))),
        )

    def log(self):
        """What the last process has written to the log."""
        with open(self.root / "log", encoding="utf-8") as file:
            file.seek(self.read)
            lines = file.readlines()
            self.read = file.tell()
        return lines

    def places(self, looking):
        yield "local", looking.mounted(self.root / "local")
        yield "vol", looking.mounted(self.root / "vol")
        if self.bucket is None:
            yield "far", looking.mounted(self.root / "far")
        else:
            yield "far", looking.Place(self.bucket.keys())


@pytest.mark.parametrize("number", range(HISTORIES))
def test_a_history_of_kills_keeps_every_promise(number, world, request, checker):
    on_s3 = number % 2 == 1
    child = request.getfixturevalue("wild_s3_child" if on_s3 else "wild_child")
    bucket = request.getfixturevalue("bucket") if on_s3 else None
    history, promised = History(number, child, world, bucket), checker.promises.Promises()
    life = 0
    while history.kills < EACH:
        life += 1
        answer = history.live(life)
        where = f"history {number}, life {life}"
        assert "error" not in answer, f"{where}: {answer}"
        history.kills += answer["killed"]
        with checker.explained(where):
            promised.read(history.log())
            for tier, place in history.places(checker.looking):
                checker.looking.look(place, tier, promised)
                checker.looking.look_at_areas(place, tier)
    checker.collected(history, promised)


def test_the_checker_finds_what_is_lost_and_what_is_torn(wild_child, world, checker):
    history, promised = History(0, wild_child, world), checker.promises.Promises()
    log = [{"verb": "create", "name": "alpha", "tag": "t"}, {"ended": "create", "gave": None}]
    promised.read(map(json.dumps, log))
    with pytest.raises(checker.promises.Broken, match="'absent' of alpha, promised"):
        checker.looking.look(checker.looking.mounted(world), "local", promised)
    while not (world / "local" / "alpha").exists():
        history.order("run", seed=str(history.random.random()), operations=5, fault="none", at=0)
    place = checker.looking.mounted(world / "local")
    checker.looking.state(place, "alpha")
    place.files["alpha/tag.txt"] += b"!"
    with pytest.raises(checker.reading.NotWhole):
        checker.looking.state(place, "alpha")
    place.files["left-over"] = b""
    assert "left-over" in place.unknown()
