"""What is left over on keyed places: what counts as such, and that nothing in use ever does."""

from __future__ import annotations

import itertools
import random
import threading
import time
from datetime import UTC, datetime, timedelta

import fsspec
import pytest

from tieredstore import keyed
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.errors import HeadConflict, TierUnavailable, Unsupported
from tieredstore.keyed_litter import generation_of
from tieredstore.manifest.artifact import HEAD
from tieredstore.testing.samples import Sample, publish, read_artifact, stage

DAY = 86400
FILES = {"train.bin": b"1234", "sub/val.bin": b"56"}
NEW = {"train.bin": b"other"}
_numbers = itertools.count()


@pytest.fixture
def place():
    return FsspecBackend(f"memory://litter-{next(_numbers)}")


def age(place, seconds, below=""):
    """Let everything below a folder have been written so much earlier."""
    root = place.place.removeprefix("memory:/")
    for path, file in fsspec.filesystem("memory").store.items():
        if path.startswith(f"{root}/{below}"):
            file.created -= timedelta(seconds=seconds)


def found(place, grace=DAY):
    return [left.path for left in place.litter(grace)]


def generation(sample, folder="name"):
    return f"{folder}/{sample.generation}"


def test_a_replaced_generation_is_litter_a_day_after_it_was_replaced(place):
    old = publish(place, "name", Sample.of(FILES))
    age(place, 9 * DAY)
    assert found(place) == []
    new = publish(place, "name", Sample.of(NEW))
    assert found(place) == []  # who began to read it an hour ago still does
    age(place, 2 * DAY)
    (left,) = place.litter(DAY)
    assert (left.what, left.path) == ("generation", generation(old))
    assert left.size > 6
    assert abs(time.time() - 2 * DAY - left.since) < 60
    assert place.drop(left) == left.size
    assert read_artifact(place, "name") == NEW
    assert {f.path.split("/")[1] for f in place.list("name")} == {new.generation, HEAD}
    assert place.drop(left) is None
    assert found(place, 0) == []


def test_of_an_artifact_that_is_replaced_often_the_old_ones_go(place):
    samples = []
    for _ in range(4):
        samples.append(publish(place, "name", Sample.of(FILES)))
        age(place, DAY)
    publish(place, "name", Sample.of(NEW))
    # Each was replaced a day after it was published; the last but one just now.
    assert found(place, 1.5 * DAY) == sorted(generation(s) for s in samples[:2])


def test_what_was_never_published_is_litter_by_its_newest_key(place):
    sample = Sample.of(FILES)
    stage(place, "group/name", sample)
    age(place, 2 * DAY)
    assert found(place, 3 * DAY) == []
    assert found(place) == [generation(sample, "group/name")]
    place.put(f"group/name/{sample.generation}/more", b"x", keyed.ANY_HEAD)
    assert found(place) == []


def test_damaged_copies_are_kept(place):
    sample = publish(place, "name", Sample.of(FILES))
    place.set_aside("name", sample.head())
    age(place, 9 * DAY)
    assert found(place) == []


def test_a_head_that_cannot_be_believed_keeps_everything(place):
    publish(place, "name", Sample.of(FILES))
    publish(place, "name", Sample.of(NEW))
    (left,) = place.litter(0)
    place.put(f"name/{HEAD}", b"{}", keyed.ANY_HEAD)
    age(place, 9 * DAY)
    assert found(place) == []
    assert place.drop(left) is None


@pytest.mark.parametrize(
    "key",
    [
        "shakespeare/train.bin",
        "datasets/20260131/x",
        "20260131t235959-0123456789abcdef/at-the-root",
        "logs/20260131t235959-0123456789abcde/x",
        ".tieredstore/damaged/20260131t235959-0123456789abcdef.json",
        "name/20260131t235959-0123456789abcdef",
    ],
)
def test_files_of_somebody_else_are_never_litter(place, key):
    place.put(key, b"mine", keyed.ANY_HEAD)
    age(place, 9 * DAY)
    assert found(place) == []


def test_artifacts_in_folders_that_look_like_generations(place):
    one = Sample.of({}).generation
    folder = f"runs/{one}/out"
    inner = f"{Sample.of({}).generation}/x"
    old = publish(place, folder, Sample.of({inner: b"old"}))
    publish(place, folder, Sample.of({inner: b"new"}))
    never = Sample.of(FILES)
    stage(place, f"runs/{one}/log", never)
    age(place, 9 * DAY)
    assert found(place) == [generation(old, folder)]  # the other may be anything
    assert generation_of(f"runs/{one}/{HEAD}") == ("runs", one)
    place.put(f"runs/{one}/{HEAD}", b"{}", keyed.ANY_HEAD)
    age(place, 9 * DAY)
    assert found(place) == [generation(old, folder)]


def test_a_place_that_says_no_times_is_left_alone(place, monkeypatch):
    monkeypatch.setattr("tieredstore.backends.fsspec._WHEN", ())
    stage(place, "name", Sample.of(FILES))
    with pytest.raises(Unsupported, match="when its keys were written"):
        list(place.litter(0))


def test_keys_without_a_time_are_left_alone(place):
    stage(place, "name", Sample.of(FILES))
    for file in fsspec.filesystem("memory").store.values():
        file.created = datetime.fromtimestamp(0, UTC)
    assert found(place) == []


def test_a_killed_collector_is_finished_by_the_next(place, monkeypatch):
    sample = Sample.of(FILES)
    stage(place, "name", sample)
    age(place, 2 * DAY)
    (left,) = place.litter(DAY)

    class Killed(BaseException):
        pass

    def die(keys):
        place.delete(keys[0])
        raise Killed

    monkeypatch.setattr(place, "delete_all", die)
    with pytest.raises(Killed):
        place.drop(left)
    monkeypatch.undo()
    monkeypatch.setattr(keyed, "_GRAVES", 0.2)
    monkeypatch.setattr(keyed, "_POLL", 0.1)
    with pytest.raises(TierUnavailable, match="run tieredstore gc"):
        place.begin("name", sample.head()).holds(next(iter(sample.records.files.values())))
    (left,) = place.litter(DAY)
    assert place.drop(left) is not None
    assert list(place.list("name")) == []
    publish(place, "name", sample, None)
    assert read_artifact(place, "name") == FILES


def test_only_a_tombstone_is_litter_at_once(place):
    place.put(f"{generation(Sample.of(FILES))}/.tieredstore.litter-1", b"", keyed.ANY_HEAD)
    (left,) = place.litter(DAY)
    place.drop(left)
    assert list(place.list("")) == []


# -- who goes on with a generation while it is taken away ---------------------------------------


class Turns:
    """Lets two threads make one step at a time, in a given order; then one of them to its end."""

    def __init__(self, order):
        self.order, self.at = list(order), 0
        self.turn = threading.Condition()
        self.ended = set()

    def wait(self, me):
        with self.turn:
            assert self.turn.wait_for(lambda: self.whose() in {me, None}, 10)

    def whose(self):
        while self.at < len(self.order) and self.order[self.at] in self.ended:
            self.at += 1
        return self.order[self.at] if self.at < len(self.order) else None

    def made(self):
        with self.turn:
            self.at += 1
            self.turn.notify_all()

    def end(self, me):
        with self.turn:
            self.ended.add(me)
            self.turn.notify_all()


class Stepped(FsspecBackend):
    """A place where each question and each change is one step of whoever makes it."""

    turns, me = None, ""

    def step(self, call, *args):
        self.turns.wait(self.me)
        try:
            return call(*args)
        finally:
            self.turns.made()

    def stat(self, path):
        return self.step(super().stat, path)

    def list(self, folder):
        return iter(self.step(lambda: list(FsspecBackend.list(self, folder))))

    def read(self, path, limit):
        return self.step(super().read, path, limit)

    def put(self, key, data, expected):
        self.step(super().put, key, data, expected)

    def delete(self, key):
        self.step(super().delete, key)


def go_on(place, sample):
    """What a promote does that goes on with what an earlier one has left."""
    staging = place.begin("name", sample.head())
    for file in sample.records.files.values():
        if not staging.holds(file):
            writer = staging.create(file)
            writer.write(0, memoryview(sample.files[file.path]))
            writer.close()
    staging.publish(sample.head(), sample.records, keyed.ANY_HEAD)


def raced(place, order, sample):
    """Go on with a generation, and collect without any grace, step by step in this order."""
    turns, said = Turns(order), {}

    def other(me):
        made = Stepped(place.place)
        made.turns, made.me = turns, me
        return made

    def collect(one):
        for left in one.litter(0):
            one.drop(left)

    def work(me, call):
        try:
            said[me] = call(other(me))
        except (HeadConflict, TierUnavailable) as error:
            said[me] = error
        finally:
            turns.end(me)

    threads = [
        threading.Thread(target=work, args=("stager", lambda one: go_on(one, sample)), daemon=True),
        threading.Thread(target=work, args=("gc", collect), daemon=True),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return said


@pytest.mark.parametrize("begun", [True, False])
def test_whatever_the_order_what_is_published_has_all_its_keys(place, monkeypatch, begun):
    monkeypatch.setattr(keyed, "_GRAVES", 0.002)
    monkeypatch.setattr(keyed, "_POLL", 0.001)
    orders = {tuple(w) for w in some_orders(stager=11, gc=14, count=150)}
    both = {"published": 0, "given way": 0}
    for order in orders:
        sample = Sample.of({"train.bin": b"1234"})
        if begun:
            stage(place, "name", sample)
        said = raced(place, order, sample)
        whole = read_artifact(place, "name")
        if said["stager"] is None:
            assert whole == sample.files, order
            both["published"] += 1
        else:
            assert whole is None, (order, said)
            both["given way"] += 1
            publish(place, "name", sample)  # as a promote does that is told so
            assert read_artifact(place, "name") == sample.files
        place.remove("name", sample.head())
        assert list(place.list("")) == [], order
    assert min(both.values()) > 5


def some_orders(stager, gc, count):
    """Orders in which the turn passes up to three times, and others by chance."""
    chosen = random.Random(7)
    for first, second in itertools.product(range(0, stager + 1, 2), range(0, gc + 1, 2)):
        yield ["stager"] * first + ["gc"] * second + ["stager"] * stager + ["gc"] * gc
        yield ["gc"] * second + ["stager"] * first + ["gc"] * gc + ["stager"] * stager
    for _ in range(count):
        steps = ["stager"] * stager + ["gc"] * gc
        chosen.shuffle(steps)
        yield steps
