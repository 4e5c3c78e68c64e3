"""Requests of our own to S3: how they are signed, and which answers are read."""

from __future__ import annotations

import socket
import threading
import time
from types import SimpleNamespace

import pytest

from tieredstore.backend import FileStat
from tieredstore.backends.s3 import signing
from tieredstore.backends.s3.access import Access, preset_of
from tieredstore.backends.s3.bucket import Bucket
from tieredstore.backends.s3.direct import Direct
from tieredstore.backends.s3.objects import Objects, ObjectSource
from tieredstore.backends.s3.signing import Signer
from tieredstore.backends.s3.wire import NoAnswer, Wire
from tieredstore.errors import ArtifactChanged


class Scripted:
    """A server that answers each request with the next of these, in the pieces given."""

    def __init__(self, *answers):
        self.requests = []
        self.connections = 0
        self._answers = list(answers)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while self._answers:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                self._talk(connection)

    def _talk(self, connection):
        while self._answers:
            got = b""
            while b"\r\n\r\n" not in got:
                more = connection.recv(65536)
                if not more:
                    return
                got += more
            self.requests.append(got)
            answer = self._answers.pop(0)
            for piece in answer:
                connection.sendall(piece)
                time.sleep(0.01)
            if b"onnection: close" in answer[0] or answer[-1] == b"":
                return

    def close(self):
        self._listening.close()
        self._thread.join(5)


@pytest.fixture
def serve():
    made = []

    def start(*answers):
        made.append(Scripted(*answers))
        return made[-1]

    yield start
    for server in made:
        server.close()


OK = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "x"\r\n\r\n'


def test_a_head_and_a_body_in_any_pieces_are_one_answer_and_the_connection_is_kept(serve):
    pieces = [bytes([byte]) for byte in OK + b"hello"]
    server = serve([OK + b"hello"], pieces, [OK, b"hello"])
    wire = Wire(server.url, 5)
    for _ in range(3):
        with wire.ask("GET", "/k", {"range": "bytes=0-4"}) as answer:
            assert (answer.status, answer.fields["etag"], answer.left) == (200, '"x"', 5)
            assert answer.read(5) == b"hello"
    assert server.connections == 1
    assert b"\r\nrange: bytes=0-4\r\n" in server.requests[0]


def test_a_body_that_was_not_read_ends_its_connection(serve):
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    server = serve([long, b""], [OK + b"hello"])
    wire = Wire(server.url, 5)
    with wire.ask("GET", "/k", {}) as answer, pytest.raises(NoAnswer):
        answer.read(99)
    with wire.ask("GET", "/k", {}) as answer:
        assert answer.read(5) == b"hello"
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n\r\nhello", b""],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhello"],
        [b"HTTP/1.1 100 Continue\r\n\r\n"],
        [b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
        [b"HTTP/1.1 200 OK\r\nContent Length: 5\r\n\r\nhello"],
        [b"SSH-2.0-OpenSSH_9.2\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-", b""],
    ],
)
def test_an_unusual_answer_is_none(serve, answer):
    with pytest.raises(NoAnswer):
        Wire(serve(answer).url, 5).ask("GET", "/k", {})


def test_a_body_that_breaks_off_or_stalls_is_none(serve):
    server = serve([OK + b"hel", b""], [OK + b"hel"])
    wire = Wire(server.url, 0.2)
    for _ in range(2):
        with wire.ask("GET", "/k", {}) as answer, pytest.raises(NoAnswer):
            answer.read(5)
    with pytest.raises(NoAnswer):
        Wire("http://127.0.0.1:9", 5).ask("GET", "/k", {})


def test_a_signature_is_the_one_that_the_api_reference_shows(monkeypatch):
    moment = time.strptime("20130524T000000Z", "%Y%m%dT%H%M%SZ")
    shown = SimpleNamespace(gmtime=lambda: moment, strftime=time.strftime)
    monkeypatch.setattr(signing, "time", shown)
    now = SimpleNamespace(
        access_key="AKIAIOSFODNN7EXAMPLE",
        secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        token=None,
    )
    signer = Signer(SimpleNamespace(credentials=now, region="us-east-1"))
    host = "examplebucket.s3.amazonaws.com"
    fields = signer.signed("GET", host, "/test.txt", {"Range": "bytes=0-9"})
    assert fields["authorization"].endswith(
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


class Behind(Objects):
    """What a direct request falls back on; it remembers what it was asked."""

    def __init__(self, access):
        super().__init__(access, "")
        self.asked = []

    def __getattribute__(self, name):
        if name not in {"stat", "get", "range", "put", "create", "replace", "list", "delete"}:
            return super().__getattribute__(name)
        return lambda *given: (self.asked.append((name, given[0])), ("other", name))[1]

    stat = get = range = put = create = replace = list = delete = None


def test_what_is_not_as_expected_is_asked_of_the_other_client(serve):
    failing = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"
    short = b"HTTP/1.1 206 P\r\nContent-Length: 2\r\nContent-Range: bytes 0-1/2\r\n\r\nhe"
    whole = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "x"\r\n\r\nhello'
    tagless = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    gone = b"HTTP/1.1 404 Not Found\r\nContent-Length: 33\r\n\r\n<Error><Code>NoSuchBucket</Code>x"
    server = serve([failing], [short], [whole], [tagless], [failing], [gone])
    access = Access("bucket", server.url, "us-east-1", None, preset_of(None, None))
    access.anon = True
    other = Behind(access)
    direct = Direct(access, "", Bucket(access, f"{server.url}/bucket"), lambda: other)
    view = memoryview(bytearray(5))
    direct.get("a", 9)
    direct.range("b", 0, view, "")
    direct.range("c", 0, view, "")
    direct.put("d", b"data")
    direct.stat("e")
    direct.get("f", 9)
    assert [name for name, _ in other.asked] == ["get", "range", "range", "put", "stat", "get"]
    assert bytes(view) == bytes(5)
    assert server.connections == 1


def partial_answer(data, begin, end, tag="x"):
    head = f'HTTP/1.1 206 P\r\nContent-Length: {end - begin}\r\nETag: "{tag}"\r\n'
    return head.encode() + b"Content-Range: bytes %d-%d/%d\r\n\r\n" % (begin, end - 1, len(data))


def source_on(server):
    access = Access("bucket", server.url, "us-east-1", None, preset_of(None, None))
    access.anon = True
    direct = Direct(access, "", Bucket(access, f"{server.url}/bucket"), lambda: Behind(access))
    return ObjectSource(direct, "folder")


def read_in_pieces(source, size, step):
    whole = memoryview(bytearray(size))
    for at in range(0, size, step):
        with source.open("file") as reader:
            assert reader.readinto(at, whole[at : at + step]) == step
    return bytes(whole)


def test_what_is_expected_comes_by_one_request_in_any_pieces(serve):
    data = bytes(range(200))
    server = serve([partial_answer(data, 0, 200), data[:70], data[70:]], [OK])
    source = source_on(server)
    assert source.expect("file", 0, 200)
    assert read_in_pieces(source, 200, 50) == data
    assert [b"range: bytes=0-199" in request for request in server.requests] == [True]
    assert server.connections == 1


def test_what_stops_coming_is_asked_for_piece_by_piece(serve):
    data = bytes(range(200))
    server = serve(
        [partial_answer(data, 0, 200) + data[:60], b""],
        [partial_answer(data, 50, 100) + data[50:100]],
        [partial_answer(data, 100, 200) + data[100:]],
    )
    source = source_on(server)
    assert source.expect("file", 0, 200)
    assert read_in_pieces(source, 200, 50) == data
    asked = [
        request.partition(b"range: bytes=")[2].partition(b"\r")[0] for request in server.requests
    ]
    assert asked == [b"0-199", b"50-99", b"100-199"]
    assert b'if-match: "x"' in server.requests[2]


def test_another_version_is_not_taken_for_the_rest_of_an_object(serve):
    data = bytes(range(200))
    server = serve(
        [partial_answer(data, 0, 200) + data[:60], b""],
        [partial_answer(data, 50, 100, "y") + data[50:100]],
    )
    source = source_on(server)
    assert source.expect("file", 0, 200)
    with source.open("file") as reader:
        view = memoryview(bytearray(50))
        assert reader.readinto(0, view) == 50
        with pytest.raises((ArtifactChanged, ValueError)):
            reader.readinto(50, view)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_body_in_chunks_is_read_and_the_connection_kept(serve):
    body = b"5\r\nhello\r\nB;x=y\r\n, and more.\r\n0\r\n\r\n"
    server = serve([CHUNKED + body], [CHUNKED, *(bytes([byte]) for byte in body)], [OK + b"hello"])
    wire = Wire(server.url, 5)
    for expected in (b"hello, and more.", b"hello, and more.", b"hello"):
        with wire.ask("GET", "/k", {}) as answer:
            assert answer.read(99) == expected
    assert server.connections == 1


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n",
        b"5\r\nhel",
        b"x" * 200,
        b"64\r\n" + b"y" * 200,
        b"5\r\nhello\r\n0\r\nTrailer: 1\r\n\r\n",
    ],
)
def test_chunks_that_do_not_fit_are_none(serve, body):
    server = serve([CHUNKED + body, b""])
    with Wire(server.url, 5).ask("GET", "/k", {}) as answer, pytest.raises(NoAnswer):
        answer.read(99)


def listed(keys, token=""):
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    rows = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-31T23:59:59.000Z</LastModified>"
        f"<ETag>&quot;e&quot;</ETag><Size>3</Size></Contents>"
        for key in keys
    )
    space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    truncated = "true" if token else "false"
    body = (
        f'<?xml version="1.0"?><ListBucketResult {space}><IsTruncated>{truncated}</IsTruncated>'
        f"{more}{rows}</ListBucketResult>"
    ).encode()
    return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body]


class Listing(Behind):
    def __getattribute__(self, name):
        if name != "list":
            return super().__getattribute__(name)
        return lambda _: iter([FileStat("a", 3), FileStat("b", 3), FileStat("c", 3)])


def direct_on(server, other=Behind):
    access = Access("bucket", server.url, "us-east-1", None, preset_of(None, None))
    access.anon = True
    return Direct(access, "pre", Bucket(access, f"{server.url}/bucket"), lambda: other(access))


def test_a_listing_comes_page_by_page(serve):
    server = serve(listed(["pre/x/a", "pre/x/&lt;b&gt;"], "next/one"), listed(["pre/x/c"]))
    found = list(direct_on(server).list("x"))
    assert [stat.path for stat in found] == ["x/a", "x/<b>", "x/c"]
    assert {(stat.size, stat.tag) for stat in found} == {(3, '"e"')}
    assert {stat.mtime_ns for stat in found} == {1769903999 * 10**9}
    assert b"?list-type=2&prefix=pre%2Fx%2F " in server.requests[0]
    assert b"?continuation-token=next%2Fone&list-type=2&prefix=pre%2Fx%2F " in server.requests[1]


def test_a_page_that_does_not_come_is_no_end(serve):
    failing = [b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"]
    cut = [listed(["pre/b"])[0].replace(b"</ListBucketResult>", b"</ListBucketResul!>")]
    tokenless = [listed(["pre/b"])[0].replace(b">false</", b">true</") + b" "]
    for second in (failing, cut, tokenless):
        server = serve(listed(["pre/a"], "next"), second)
        assert [found.path for found in direct_on(server, Listing).list("")] == ["a", "b", "c"]
