"""`compose` inside a bucket: what the server copies, what passes this machine, what is left."""

from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from urllib.parse import urlsplit

import pytest

from tieredstore import (
    ArtifactChanged,
    CorruptData,
    Reporter,
    Tier,
    TieredStore,
    TierUnavailable,
    Unsupported,
    local_tier,
)
from tieredstore.backend import FileStat, Segment
from tieredstore.backends.s3 import S3Backend
from tieredstore.backends.s3.botocore import Botocore
from tieredstore.backends.s3.compose import Composition
from tieredstore.backends.s3.plan import LEAST
from tieredstore.manifest.artifact import new_generation
from tieredstore.manifest.records import BLOCK, Records, head_of
from tieredstore.manifest.shards import MANY
from tieredstore.testing.samples import record_of

MIB = 1 << 20
OVERHEAD = 300_000  # bytes of requests and answers that carry none of a file
NAME = "corpus/merged.bin"
_numbers = itertools.count()


class WithoutObstore(S3Backend):
    def client(self):
        return Botocore(self.access, self.prefix)


BOTH = [("moto", WithoutObstore), ("ceph", S3Backend)]
ALL = [*BOTH, ("moto", S3Backend), ("ceph", WithoutObstore)]
only_moto = pytest.mark.parametrize("way", BOTH[:1], ids=["moto"])
only_ceph = pytest.mark.parametrize("way", BOTH[1:], ids=["ceph"])
every_way = pytest.mark.parametrize("way", ALL, ids=lambda way: f"{way[0]}-{way[1].__name__}")


@pytest.fixture(params=BOTH, ids=lambda way: f"{way[0]}-{way[1].__name__}")
def way(request):
    """Which server, and which client of it."""
    return request.param


@pytest.fixture
def server(request, way, monkeypatch):
    found = request.getfixturevalue(way[0])
    for key, value in found.environment.items():
        monkeypatch.setenv(key, value)
    return found


@pytest.fixture
def proxy(server, make_proxy):
    return make_proxy(urlsplit(server.url).port)


@pytest.fixture
def store(tmp_path, server, way, proxy):
    bucket = server.make_bucket(f"s3-compose-{next(_numbers)}")
    remote = Tier("s3", way[1](f"{bucket}/some/prefix", proxy.url), durable=True, pack="auto")
    return TieredStore([local_tier(tmp_path / "pod"), remote])


def backend_of(store):
    return store.tiers[1].backend


def chunks(store, *sizes):
    """Single-file artifacts of so many random bytes, in both tiers: their names and bytes."""
    names, data = [], []
    for number, size in enumerate(sizes):
        names.append(f"chunks/{number}.bin")
        data.append(random.Random(number).randbytes(size))
        with store.create_file(names[-1]) as stage:
            stage.file.write_bytes(data[-1])
        store.promote(names[-1])
    return names, b"".join(data)


def moved_by(proxy, call):
    """Bytes that went up and down meanwhile."""
    before = proxy.up.sent, proxy.down.sent
    call()
    return proxy.up.sent - before[0], proxy.down.sent - before[1]


def left_over(store):
    """Uploads that were not ended, and keys of the merged file."""
    backend = backend_of(store)
    return [u["Key"] for u in backend.uploads.below("")], [f.path for f in backend.list("corpus")]


def is_whole(store, tmp_path, data):
    """Every byte as the manifest says, and as it was meant, also in a first tier that is empty."""
    [verified] = store.verify(NAME, ["s3"])
    assert (verified.problems, verified.size) == ((), len(data))
    elsewhere = TieredStore([local_tier(tmp_path / "node"), store.tiers[1]])
    with elsewhere.open_stream(NAME, "merged.bin") as stream:
        assert stream.read(10) == data[:10]
    return elsewhere.restore(NAME).path.read_bytes() == data


@every_way
@pytest.mark.parametrize(
    "sizes",
    [(LEAST, 6 * MIB + 1, 0, 5), (LEAST, 0)],
    ids=["several", "one"],
)
def test_no_byte_of_a_long_part_passes_this_machine(store, proxy, tmp_path, sizes):
    names, data = chunks(store, *sizes)
    up, down = moved_by(proxy, lambda: store.compose(NAME, names, tier="s3"))
    assert up < OVERHEAD
    assert down < OVERHEAD
    assert left_over(store)[0] == []
    assert is_whole(store, tmp_path, data)


@every_way
def test_short_parts_are_gathered_and_sent(store, proxy, tmp_path):
    sizes = (LEAST, 1000, 2 * MIB + 1, 0, 11 * MIB, 3, 4)
    names, data = chunks(store, *sizes)
    up, down = moved_by(proxy, lambda: store.compose(NAME, names, tier="s3"))
    sent = sum(s for s in sizes if s < LEAST)
    for moved in (up, down):
        assert sent < moved < LEAST + BLOCK + OVERHEAD
    assert left_over(store)[0] == []
    assert is_whole(store, tmp_path, data)


@only_moto
@pytest.mark.parametrize("size", [0, 100])
def test_only_short_parts(store, tmp_path, size):
    names, data = chunks(store, size, size, 0)
    store.compose(NAME, names, tier="s3")
    assert is_whole(store, tmp_path, data)


def test_a_key_that_some_servers_cannot_copy(store, proxy, tmp_path):
    data = random.Random(9).randbytes(6 * MIB)
    with store.create("100%41 x") as stage:
        (stage.path / "a").write_bytes(data)
    store.promote("100%41 x")
    up, down = moved_by(proxy, lambda: store.compose(NAME, [("100%41 x", "a")] * 2, tier="s3"))
    assert min(up, down) > 12 * MIB, "it has passed this machine, and the gateway is alive"
    assert left_over(store)[0] == []
    assert is_whole(store, tmp_path, data * 2)


@only_ceph
def test_files_of_a_packed_artifact(store, proxy, tmp_path):
    long, short = random.Random(3).randbytes(6 * MIB), b"short"
    with store.create("many") as stage:
        (stage.path / "long").write_bytes(long)
        for number in range(MANY):
            (stage.path / f"{number:04d}").write_bytes(short)
    store.promote("many")
    assert store.locate("many")[1].head.shards is not None, "it is packed"
    parts = [("many", "long"), ("many", "long"), ("many", "0001")]
    up, down = moved_by(proxy, lambda: store.compose(NAME, parts, tier="s3"))
    assert max(up, down) < OVERHEAD
    assert is_whole(store, tmp_path, long + long + short)


@only_ceph
def test_a_merged_file_is_promoted_in_parts(store, tmp_path):
    """Also where short blocks lie between long ones: no part but the last may be short."""
    names, short = chunks(store, 7)
    long = random.Random(8).randbytes(17 * MIB)
    records = Records.of([record_of("long", long, 17 * MIB)])
    head = head_of(records, None, generation=new_generation())
    staging = store.tiers[0].backend.begin("long", head)
    writer = staging.create(records.files["long"])
    writer.write(0, memoryview(long))
    writer.close()
    staging.publish(head, records, None)
    store.compose(NAME, [*names, ("long", "long"), *names, ("long", "long")])
    store.promote(NAME)
    assert is_whole(store, tmp_path, (short + long) * 2)


@only_moto
def test_several_at_once_leave_one_whole(store, tmp_path):
    names, data = chunks(store, LEAST, 100)
    orders = [names, names[::-1], names * 2]
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda order: store.compose(NAME, order, tier="s3"), orders))
    assert all(where.state == "whole" for where in made)
    head, tail = data[:LEAST], data[LEAST:]
    merged = [data, tail + head, data * 2]
    [verified] = store.verify(NAME, ["s3"])
    assert verified.ok
    assert left_over(store)[0] == []
    assert store.restore(NAME).path.read_bytes() in merged


# -- what goes wrong ----------------------------------------------------------------------------


class Said(Reporter):
    def __init__(self):
        self.damaged = []

    def corrupt(self, tier, what):
        self.damaged.append((tier, what))


def flip(backend, path, at):
    data = bytearray(backend.read(path, 1 << 30))
    data[at] ^= 1
    backend.objects.put(path, data)


def data_of(store, name):
    found = store.locate(name)[1]
    return backend_of(store).data_path(found.folder, found.head, name.rpartition("/")[2])


@only_moto
def test_a_damaged_part_that_is_read_is_named_and_nothing_stays(store):
    names, _ = chunks(store, 6 * MIB, 100, 6 * MIB)
    bad = data_of(store, names[1])
    flip(backend_of(store), bad, 50)
    said = Said()
    with pytest.raises(CorruptData, match="differs from the manifest") as error:
        TieredStore(store.tiers, said).compose(NAME, names, tier="s3")
    assert bad in str(error.value)
    assert [tier for tier, _ in said.damaged] == ["s3"]
    assert left_over(store) == ([], [])


@only_moto
def test_a_damaged_part_that_is_copied_is_found_by_verify(store):
    names, _ = chunks(store, LEAST, 6 * MIB)
    flip(backend_of(store), data_of(store, names[1]), 3 * MIB)
    store.compose(NAME, names, tier="s3")
    [verified] = store.verify(NAME, ["s3"])
    assert not verified.ok
    assert "bytes" in verified.problems[0]


@only_moto
@pytest.mark.parametrize("left", [0, 6 * MIB - 1])
def test_a_part_that_is_gone_or_shorter(store, left):
    names, _ = chunks(store, LEAST, 6 * MIB)
    path = data_of(store, names[1])
    backend_of(store).objects.delete([path])
    if left:
        backend_of(store).objects.put(path, bytes(left))
    with pytest.raises(CorruptData, match=rf"part {names[1]!r}.*is damaged"):
        store.compose(NAME, names, tier="s3")
    assert left_over(store) == ([], [])


def composition(store, size):
    """A merged object straight in the bucket, of two objects of 6 MiB, and what it is made of."""
    backend = backend_of(store)
    data = random.Random(1).randbytes(12 * MIB)
    segments = []
    for name, half in (("a", data[: 6 * MIB]), ("b", data[6 * MIB :])):
        backend.objects.put(name, half)
        segments.append(Segment(backend.stat(name), 0, 6 * MIB))
    record = record_of("merged", data[:size] + bytes(max(0, size - len(data))))
    return Composition(backend.access, backend.uploads, "corpus/merged", record), segments


@only_ceph
@pytest.mark.parametrize("how", ["replaced", "removed"])
@pytest.mark.parametrize("count", [1, 2], ids=["one", "two"])
def test_a_source_that_changes_meanwhile_is_noticed(store, how, count):
    made, segments = composition(store, count * 6 * MIB)
    backend = backend_of(store)
    backend.objects.delete(["a"])
    if how == "replaced":
        backend.objects.put("a", bytes(6 * MIB))
    with pytest.raises(ArtifactChanged, match="/a: was replaced or removed"):
        made.run(segments[:count])
    assert left_over(store)[0] == []


@only_ceph
@pytest.mark.parametrize("size", [12 * MIB - 1, 12 * MIB + 1])
def test_a_result_of_another_length_is_refused(store, size):
    made, segments = composition(store, size)
    with pytest.raises(TierUnavailable, match=f"{12 * MIB} bytes, expected {size}"):
        made.run(segments)


@only_ceph
def test_more_parts_than_s3_takes(store):
    backend = backend_of(store)
    backend.objects.put("a", b"")
    file = FileStat("a", LEAST)
    made, _ = composition(store, 12 * MIB)
    with pytest.raises(Unsupported, match="10001 parts"):
        made.run([Segment(file, 0, LEAST)] * 10_001)
    assert left_over(store) == ([], [])


def test_a_server_that_cannot_copy_says_so(monkeypatch):
    class Refuses(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(501)
            self.end_headers()

        def do_PUT(self):
            self.do_POST()

        def log_message(self, *_):
            pass

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    with HTTPServer(("127.0.0.1", 0), Refuses) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        backend = S3Backend("s3://bucket", f"http://127.0.0.1:{server.server_port}")
        made = Composition(backend.access, backend.uploads, "x", record_of("x", b"ab"))
        file = FileStat("a", 1, tag="tag")
        for segments in ([Segment(file, 0, 1)], [Segment(file, 0, 1)] * 2):
            with pytest.raises(Unsupported):
                made.run(segments)
        server.shutdown()


@only_ceph
def test_a_line_that_breaks_leaves_nothing(store, proxy):
    names, _ = chunks(store, 6 * MIB, 100, 6 * MIB)
    proxy.up.fail("reset", after=200_000)  # only what is sent from here is so long
    with pytest.raises(TierUnavailable) as error:
        store.compose(NAME, names, tier="s3")
    assert "\n" not in str(error.value)
    proxy.up.heal()
    assert left_over(store) == ([], [])
    store.compose(NAME, names, tier="s3")
    assert all(v.ok for v in store.verify(NAME, ["s3"]))
