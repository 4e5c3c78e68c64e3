"""Files put in one by one: absent until all are there, never old and new together."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tieredstore import (
    ArtifactChanged,
    ArtifactNotFound,
    PromoteFailed,
    Recipe,
    Reporter,
    Tier,
    TieredStore,
    local_tier,
)
from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.backends.runpod import RunPodBackend
from tieredstore.manifest.names import Layout
from tieredstore.mounted import beneath

FILES = ("train.bin", "val.bin", "meta.pkl")


class Said(Reporter):
    def __init__(self) -> None:
        self.promotes: list[tuple[str, str, str]] = []

    def promoted(self, name: str, tier: str, action: str, detail: str) -> None:
        self.promotes.append((tier, action, detail))


class Place:
    """A first tier, a volume, and where their files lie."""

    def __init__(self, root: Path, *further: Tier) -> None:
        (root / "volume").mkdir(exist_ok=True)
        self.said = Said()
        self.here = root / "data" / "a"
        self.volume = root / "volume" / "data" / "a"
        self.tier = Tier(
            "runpod",
            RunPodBackend(str(root / "volume")),
            Layout("data/{name}"),
            durable=True,
            adopt=True,
        )
        self.store = TieredStore([local_tier(root / "data"), self.tier, *further], self.said)

    def fill(self, recipe: Recipe | None = None, required: tuple[str, ...] = FILES):
        return self.store.fill("a", required, recipe)


def put(filling, file: str, data: bytes, *, mtime_ns: int | None = None) -> dict[str, str]:
    path = filling.temporary(file)
    path.write_bytes(data)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))
    return filling.put(file, path)


def put_all(filling, mark: bytes) -> None:
    for file in FILES:
        put(filling, file, mark + file.encode())


def read(got, file: str) -> bytes:
    with got.open(file) as opened:
        return opened.read()


def whole(store: TieredStore) -> dict[str, bytes] | None:
    try:
        with store.restore("a", files=FILES) as got:
            return {f: read(got, f) for f in FILES}
    except ArtifactNotFound:
        return None


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_each_file_is_visible_at_once_in_both_places_and_the_artifact_only_whole(place) -> None:
    filling = place.fill()
    for n, file in enumerate(FILES):
        places = put(filling, file, b"x" * (n + 1))
        assert places == {"local": str(place.here / file), "runpod": str(place.volume / file)}
        assert (place.here / file).read_bytes() == (place.volume / file).read_bytes()
        states = [w.state for w in place.store.locate("a", FILES)]
        assert states == (["whole"] * 2 if n == 2 else ["pending"] * 2)
    assert filling.complete
    heads = [w.head for w in place.store.locate("a")]
    assert heads[0] == heads[1]
    assert all(v.ok for v in place.store.verify("a"))


def test_a_second_preparation_with_the_same_object_hides_the_old_one_until_it_is_whole(
    place,
) -> None:
    filling = place.fill()
    put_all(filling, b"old")
    put(filling, "train.bin", b"new")
    assert not filling.complete
    assert [w.state for w in place.store.locate("a")] == ["pending", "pending"]
    put(filling, "val.bin", b"new")
    assert whole(place.store) is None  # meta.pkl is the old one
    put(filling, "meta.pkl", b"new")
    assert whole(place.store) == dict.fromkeys(FILES, b"new")
    assert [w.state for w in place.store.locate("a")] == ["whole", "whole"]


def test_an_unmanaged_copy_is_not_mixed_with_what_is_put_in(place) -> None:
    place.here.mkdir(parents=True)
    for file in FILES:
        (place.here / file).write_bytes(b"old")
    filling = place.fill()
    put(filling, "train.bin", b"new")
    assert whole(place.store) is None
    assert filling.settle() is False
    assert place.fill().settle() is False
    put(filling, "val.bin", b"new")
    put(filling, "meta.pkl", b"new")
    assert whole(place.store) == dict.fromkeys(FILES, b"new")


def test_a_required_file_written_by_hand_counts_when_the_filling_is_settled(place) -> None:
    filling = place.fill()
    put(filling, "train.bin", b"t")
    put(filling, "val.bin", b"v")
    (place.here / "meta.pkl").write_bytes(b"m")
    assert whole(place.store) is None
    assert filling.settle() is True
    assert whole(place.store) == {"train.bin": b"t", "val.bin": b"v", "meta.pkl": b"m"}
    assert (place.volume / "meta.pkl").read_bytes() == b"m"
    assert [w.state for w in place.store.locate("a")] == ["whole", "whole"]


def test_a_file_that_was_there_before_an_incomplete_set_counts_when_settled(place) -> None:
    place.here.mkdir(parents=True)
    (place.here / "meta.pkl").write_bytes(b"m")
    filling = place.fill()
    put(filling, "train.bin", b"t")
    put(filling, "val.bin", b"v")
    assert not filling.complete
    assert place.fill().settle() is True  # another object, as another process would
    assert whole(place.store) == {"train.bin": b"t", "val.bin": b"v", "meta.pkl": b"m"}


def test_settling_without_a_filling_does_nothing(place) -> None:
    assert place.fill().settle() is False
    assert not place.here.exists()


def test_custom_required_files(place) -> None:
    filling = place.fill(required=("train.bin",))
    put(filling, "train.bin", b"t")
    assert filling.complete
    with place.store.restore("a") as got:
        assert read(got, "train.bin") == b"t"


def test_settling_with_fewer_required_files(place) -> None:
    filling = place.fill()
    put(filling, "train.bin", b"t")
    assert filling.settle(("train.bin", "val.bin")) is False
    assert filling.settle(("train.bin",)) is True
    assert place.store.restore("a").generation


def test_another_process_goes_on_with_a_filling(place, tmp_path: Path) -> None:
    put(place.fill(), "train.bin", b"t")
    put(Place(tmp_path).fill(), "val.bin", b"v")
    third = Place(tmp_path).fill()
    put(third, "meta.pkl", b"m")
    assert third.complete
    assert whole(place.store) == {"train.bin": b"t", "val.bin": b"v", "meta.pkl": b"m"}
    located = place.store.locate("a")
    assert [w.state for w in located] == ["whole", "whole"]
    assert located[0].head.generation == located[1].head.generation
    assert all(v.ok for v in place.store.verify("a"))


def test_two_that_fill_in_turns_complete_it(place, tmp_path: Path) -> None:
    one, other = place.fill(), Place(tmp_path).fill()
    put(one, "train.bin", b"t")
    put(other, "val.bin", b"v")
    put(one, "meta.pkl", b"m")
    assert one.complete
    assert whole(place.store) == {"train.bin": b"t", "val.bin": b"v", "meta.pkl": b"m"}


def test_many_that_fill_at_once_leave_something_whole_or_to_be_settled(tmp_path: Path) -> None:
    for n in range(15):
        (tmp_path / str(n)).mkdir()
        places = [Place(tmp_path / str(n)) for _ in FILES]
        barrier = threading.Barrier(len(FILES))

        def work(place: Place, file: str, gate: threading.Barrier = barrier) -> None:
            filling = place.fill()
            gate.wait()
            put(filling, file, file.encode())

        with ThreadPoolExecutor(len(FILES)) as pool:
            for done in [pool.submit(work, *pair) for pair in zip(places, FILES, strict=True)]:
                done.result()
        store = places[0].store
        assert whole(store) is not None or places[0].fill().settle()
        assert whole(store) == {file: file.encode() for file in FILES}
        assert all(v.ok for v in store.verify("a"))


@pytest.mark.parametrize("equal", [True, False])
def test_many_that_prepare_all_of_it_at_once_never_leave_a_mixture(tmp_path: Path, equal) -> None:
    for n in range(10):
        (tmp_path / str(n)).mkdir()
        places = [Place(tmp_path / str(n)) for _ in range(3)]
        barrier = threading.Barrier(3)

        def work(place: Place, mark: bytes, gate: threading.Barrier = barrier) -> bytes | None:
            gate.wait()
            try:
                put_all(place.fill(), mark)
            except ArtifactChanged:
                return None
            return mark

        marks = [b"same"] * 3 if equal else [b"one", b"two", b"six"]
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(work, *pair) for pair in zip(places, marks, strict=True)]
            ended = [w.result() for w in waiting]
        if equal:
            assert None not in ended
            assert whole(places[0].store) is not None or places[0].fill().settle()
        found = whole(places[0].store)
        assert found is None or found in [{f: m + f.encode() for f in FILES} for m in marks]
        again = places[0].fill()
        put_all(again, b"last")
        assert whole(places[0].store) is not None or again.settle()
        assert whole(places[0].store) == {f: b"last" + f.encode() for f in FILES}


def test_a_file_replaced_in_the_same_tick_of_the_clock_is_not_taken_for_ones_own(
    place, tmp_path: Path
) -> None:
    one, other = place.fill(), Place(tmp_path).fill()
    put(one, "train.bin", b"one", mtime_ns=10**18)
    put(other, "train.bin", b"two", mtime_ns=10**18)  # of equal size and time
    put(one, "val.bin", b"one")
    with pytest.raises(ArtifactChanged, match=r"train\.bin"):
        put(one, "meta.pkl", b"one")
    assert whole(place.store) is None


def test_a_file_of_another_replaced_in_the_same_tick_is_not_gone_on_with(
    place, tmp_path: Path
) -> None:
    dead, rival = place.fill(), Place(tmp_path).fill()
    put(dead, "train.bin", b"one", mtime_ns=10**18)
    path = rival.temporary("train.bin")
    path.write_bytes(b"two")
    os.utime(path, ns=(10**18, 10**18))
    os.replace(path, place.here / "train.bin")
    fresh = Place(tmp_path).fill()
    put(fresh, "val.bin", b"one")
    with pytest.raises(ArtifactChanged, match=r"train\.bin"):
        put(fresh, "meta.pkl", b"one")
    assert whole(place.store) is None


def test_a_preparation_that_begins_anew_does_not_count_what_a_dead_one_left(
    place, tmp_path: Path
) -> None:
    dead = place.fill()
    for file in ("train.bin", "val.bin"):
        put(dead, file, b"dead")
    fresh = Place(tmp_path).fill()
    put(fresh, "train.bin", b"new")  # again: this is no going on
    put(fresh, "meta.pkl", b"new")
    assert not fresh.complete
    assert whole(place.store) is None
    put(fresh, "val.bin", b"new")
    assert whole(place.store) == dict.fromkeys(FILES, b"new")
    assert (place.volume / "val.bin").read_bytes() == b"new"
    assert all(v.ok for v in place.store.verify("a"))


def test_another_recipe_does_not_go_on_with_a_filling(place, tmp_path: Path) -> None:
    put(place.fill(Recipe("p", "1", {"subset": 0.1})), "train.bin", b"small")
    other = Place(tmp_path).fill(Recipe("p", "1", {"subset": 1.0}))
    put(other, "val.bin", b"large")
    put(other, "meta.pkl", b"large")
    assert not other.complete
    assert whole(place.store) is None
    put(other, "train.bin", b"large")
    assert whole(place.store) == dict.fromkeys(FILES, b"large")


def test_a_file_replaced_by_a_restore_meanwhile_is_not_given_our_manifest(
    place, tmp_path: Path
) -> None:
    filling = place.fill()
    put(filling, "train.bin", b"ours!")
    with place.store.create("a") as stage:
        for file in FILES:
            (stage.path / file).write_bytes(b"their")
    put(filling, "val.bin", b"ours!")
    with pytest.raises(ArtifactChanged, match=r"train\.bin was replaced"):
        put(filling, "meta.pkl", b"ours!")
    assert whole(place.store) is None


def test_a_durable_tier_that_is_not_mounted_gets_it_when_it_is_whole(tmp_path: Path) -> None:
    memory = Tier("remote", FsspecBackend(f"memory://{tmp_path.name}"), durable=True)
    place = Place(tmp_path, memory)
    filling = place.fill()
    put(filling, "train.bin", b"t")
    put(filling, "val.bin", b"v")
    assert memory.locate("a").state == "absent"
    put(filling, "meta.pkl", b"m")
    located = place.store.locate("a")
    assert [w.state for w in located] == ["whole"] * 3
    assert len({w.head.generation for w in located}) == 1
    put_all(filling, b"new")
    assert len({w.head.generation for w in place.store.locate("a")}) == 1
    assert all(v.ok for v in place.store.verify("a"))


def test_a_tier_that_holds_another_recipe_keeps_it(place) -> None:
    with place.store.create("a", Recipe("p", "1", {"subset": 1.0})) as stage:
        (stage.path / "train.bin").write_bytes(b"full")
    place.store.promote("a")
    place.said.promotes.clear()
    filling = place.fill(Recipe("p", "1", {"subset": 0.1}))
    put_all(filling, b"small")
    assert filling.complete
    assert list(filling.refused) == ["runpod"]
    assert [(tier, action) for tier, action, _ in place.said.promotes] == [("runpod", "refused")]
    assert (place.volume / "train.bin").read_bytes() == b"full"
    assert place.tier.locate("a").state == "whole"


def test_a_volume_that_cannot_be_written_is_named_when_all_is_there(tmp_path: Path) -> None:
    (tmp_path / "volume").write_text("no folder")  # even root cannot write below it
    place = Place.__new__(Place)
    broken = Tier("runpod", RunPodBackend(str(tmp_path / "volume")), durable=True)
    store = TieredStore([local_tier(tmp_path / "data"), broken], Said())
    place.store = store
    filling = store.fill("a", FILES)
    put(filling, "train.bin", b"t")
    put(filling, "val.bin", b"v")
    with pytest.raises(PromoteFailed, match="runpod"):
        put(filling, "meta.pkl", b"m")
    assert filling.complete
    assert whole(store) == {"train.bin": b"t", "val.bin": b"v", "meta.pkl": b"m"}


def test_nothing_is_left_in_the_stores_own_area(place) -> None:
    filling = place.fill()
    put_all(filling, b"x")
    for root in (place.here.parent, place.volume.parent.parent):
        left = [p for p in (root / ".tieredstore").rglob("*") if p.is_file()]
        assert {p.name for p in left} <= {".gitignore", "length.json"}


def test_a_file_that_changes_its_time_only_is_still_what_was_put_in(place) -> None:
    filling = place.fill()
    put(filling, "train.bin", b"t")
    before = os.stat(place.here / "train.bin").st_mtime_ns
    time.sleep(0.01)
    (place.here / "train.bin").chmod(0o600)
    assert os.stat(place.here / "train.bin").st_mtime_ns == before
    put(filling, "val.bin", b"v")
    put(filling, "meta.pkl", b"m")
    assert filling.complete


def test_files_that_only_the_generation_before_had_are_taken_away(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    store = TieredStore(
        [
            local_tier(tmp_path / "first"),
            Tier("volume", RunPodBackend(str(tmp_path / "volume")), durable=True),
        ]
    )
    for files in (("a.bin", "b.bin"), ("b.bin", "c.bin")):
        filling = store.fill("set", list(files))
        for file in files:
            put(filling, file, file.encode())
    for tier in ("first", "volume"):
        left = {p.name for p in (tmp_path / tier / "set").iterdir()}
        assert {n for n in left if not n.startswith(".")} == {"b.bin", "c.bin"}


@pytest.mark.parametrize("flush", range(12))
def test_one_that_completes_while_another_does_never_leaves_a_mixture(
    place, tmp_path: Path, monkeypatch, flush
) -> None:
    """The first stands still at a flush of its last file, and goes on when the other is done."""
    syncfs, counted, stood = beneath.syncfs, [], threading.Event()
    go_on, first = threading.Event(), Place(tmp_path).fill()

    def stand_still(fd: int) -> None:
        syncfs(fd)
        if threading.current_thread().name == "first":
            counted.append(fd)
            if len(counted) == flush + 1:
                stood.set()
                assert go_on.wait(20)

    def finish() -> None:
        with suppress(ArtifactChanged):
            put(first, FILES[-1], b"one" + FILES[-1].encode())
        stood.set()

    for file in FILES[:-1]:
        put(first, file, b"one" + file.encode())
    monkeypatch.setattr(beneath, "syncfs", stand_still)
    thread = threading.Thread(target=finish, name="first")
    thread.start()
    assert stood.wait(20)
    other = place.fill()
    with suppress(ArtifactChanged):
        put_all(other, b"two")
    go_on.set()
    thread.join(20)
    found = whole(place.store)
    assert found is None or found in [{f: m + f.encode() for f in FILES} for m in (b"one", b"two")]
    assert all(v.ok for v in place.store.verify("a")) if found else True
    assert place.store.tiers[0].locate("a").state in {"whole", "pending"}
    assert place.store.locate("a")[1].state in {"whole", "pending", "absent"}
