"""The status of a store in which a tier hangs or fails."""

import threading
import time

import pytest

from tieredstore import Reporter, Tier, TieredStore, local_tier
from tieredstore.backends.local import LocalBackend


class Hanging(LocalBackend):
    """A mount that does not answer until it is let go."""

    def __init__(self, path, answer):
        super().__init__(path)
        self.answer = answer

    def folders(self):
        self.answer.wait(20)
        yield from super().folders()

    def read_head(self, folder):
        self.answer.wait(20)
        return super().read_head(folder)


class Notes(Reporter):
    def __init__(self):
        self.tiers = []

    def skipped(self, tier, why):
        self.tiers.append((tier, why))


@pytest.fixture
def answer():
    event = threading.Event()
    yield event
    event.set()


def test_a_tier_that_hangs_is_waited_for_once(tmp_path, answer):
    notes = Notes()
    hangs = Tier("far", Hanging(str(tmp_path / "far"), answer), deadline=2.0)
    store = TieredStore([local_tier(tmp_path / "data"), hangs], notes)
    for number in range(8):
        with store.create(f"a{number}") as stage:
            (stage.path / "f").write_text("x")
    since = time.monotonic()
    found = store.status()
    assert time.monotonic() - since < 12  # eight waits would be longer
    assert len(found) == 8
    assert {w.state for located in found.values() for w in located[:1]} == {"whole"}
    assert {w.state for located in found.values() for w in located[1:]} == {"unreachable"}
    assert all("2 s" in located[1].detail for located in found.values())
    assert [tier for tier, _ in notes.tiers] == ["far"]


def test_names_of_every_tier_are_found(tmp_path):
    low = Tier("low", LocalBackend(str(tmp_path / "low")), durable=True)
    store = TieredStore([local_tier(tmp_path / "data"), low])
    for name in ("a", "b/c"):
        with store.create(name) as stage:
            (stage.path / "f").write_text("x")
        store.promote(name)
    store.evict("a")
    assert store.names() == ["a", "b/c"]
    states = {name: [w.state for w in located] for name, located in store.status().items()}
    assert states == {"a": ["absent", "whole"], "b/c": ["whole", "whole"]}


class Unlisted(LocalBackend):
    """A place without a listing."""

    listable = False

    def folders(self, below=""):
        return iter(())


def test_a_tier_that_cannot_be_listed_is_named_and_still_located(tmp_path):
    notes = Notes()
    low = Tier("low", Unlisted(str(tmp_path / "low")), durable=True)
    store = TieredStore([local_tier(tmp_path / "data"), low], notes)
    with store.create("a") as stage:
        (stage.path / "f").write_text("x")
    store.promote("a")
    states = {name: [w.state for w in located] for name, located in store.status().items()}
    assert states == {"a": ["whole", "whole"]}
    (told,) = notes.tiers
    assert told[0] == "low"
    assert "cannot be listed" in told[1]
