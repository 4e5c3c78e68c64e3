"""What tests and benchmarks stand on: a proxy that fails, Ceph's gateway, the S3 benchmark."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

_numbers = itertools.count()


@pytest.fixture
def echo():
    """The port of a server that sends back what it gets."""

    def answer(connection):
        with connection, suppress(OSError):
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    def serve():
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.fixture
def proxy(echo, make_proxy):
    return make_proxy(echo)


@pytest.fixture
def connect(proxy):
    made = []

    def connected():
        made.append(socket.create_connection(("127.0.0.1", proxy.port), 10))
        return made[-1]

    yield connected
    for client in made:
        client.close()


def said(client, data):
    """What comes back of ``data``."""
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    got = b""
    while len(got) < len(data):
        got += client.recv(1 << 16)
    sender.join()
    return got


def read_on(client, got):
    """Add what comes to ``got``, until it ends or fails."""
    while data := client.recv(1 << 16):
        got += data


DATA = bytes(range(256)) * 4000


def test_the_proxy_forwards_and_counts(proxy, connect):
    for _ in range(2):
        assert said(connect(), DATA) == DATA
    assert (proxy.connections, proxy.up.sent, proxy.down.sent) == (2, 2 * len(DATA), 2 * len(DATA))


def test_the_proxy_resets_once_after_so_many_bytes(proxy, connect):
    proxy.down.fail("reset", 100_000, times=1)
    client, got = connect(), bytearray()
    client.sendall(DATA[:200_000])
    with pytest.raises(ConnectionResetError):
        read_on(client, got)
    assert DATA.startswith(got)
    assert len(got) <= 100_000 == proxy.down.sent
    assert said(connect(), DATA) == DATA


def test_a_stall_lasts_until_it_heals(proxy, connect):
    proxy.up.fail("stall", 100_000)
    client = connect()
    client.sendall(DATA[:200_000])
    client.settimeout(0.3)
    got = bytearray()
    with pytest.raises(TimeoutError):
        read_on(client, got)
    assert got == DATA[:100_000]
    proxy.up.heal()
    client.settimeout(10)
    client.shutdown(socket.SHUT_WR)
    read_on(client, got)
    assert got == DATA[:200_000]


def test_the_proxy_refuses_and_takes_again(proxy, connect):
    before = connect()
    assert said(before, b"x") == b"x"
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect()
    assert said(before, b"open") == b"open"
    proxy.accept()
    assert said(connect(), b"y") == b"y"
    proxy.reset_all()
    with pytest.raises(ConnectionResetError):
        before.recv(1)


def test_latency_is_for_each_answer_bandwidth_for_all_together(proxy, connect):
    proxy.down.latency = 0.05
    client, since = connect(), time.monotonic()
    for _ in range(4):
        said(client, b"x")
    assert 0.2 <= time.monotonic() - since < 10
    proxy.down.heal()
    proxy.down.bandwidth = 1_000_000
    clients, since = [connect(), connect()], time.monotonic()
    threads = [threading.Thread(target=said, args=(c, DATA[:200_000])) for c in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.4 <= time.monotonic() - since < 10


@pytest.fixture
def s3(ceph):
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=ceph.url,
        region_name=ceph.environment["AWS_REGION"],
        aws_access_key_id=ceph.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ceph.environment["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()


def test_the_gateway_keeps_what_it_has_when_it_is_killed(ceph, s3):
    bucket = ceph.make_bucket(f"beds-{next(_numbers)}").removeprefix("s3://")
    s3.put_object(Bucket=bucket, Key="a b/c", Body=DATA)
    ceph.kill_gateway()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ceph.port), 5)
    ceph.start_gateway()
    assert s3.get_object(Bucket=bucket, Key="a b/c")["Body"].read() == DATA
    assert [found["Key"] for found in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["a b/c"]


def test_the_gateway_knows_its_users(ceph, s3):
    from botocore.exceptions import ClientError

    bucket = ceph.make_bucket(f"beds-{next(_numbers)}").removeprefix("s3://")
    s3._request_signer._credentials.secret_key = "wrong"
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        s3.list_objects_v2(Bucket=bucket)


def test_the_benchmark_runs(tmp_path):
    root = Path(__file__).parents[2]
    if not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    command = [
        sys.executable,
        str(root / "benchmarks" / "s3.py"),
        "--size-mib",
        "20",
        "--files",
        "5",
    ]
    options = ["--rounds", "1", "--beds", "nginx", "--peers", "tieredstore", "--json", "said.json"]
    options += ["--patience", "0", "--tries", "1"]  # how long it takes does not matter here
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-1000:]
    runs = json.loads((tmp_path / "said.json").read_text())["runs"]
    ours = [(run["verb"], run["set"]) for run in runs if run["peer"] == "tieredstore"]
    assert sorted(ours) == sorted(itertools.product(["restore", "promote"], ["large", "small"]))
    assert all(run["operation"] < run["wall"] for run in runs if run["peer"] == "tieredstore")
