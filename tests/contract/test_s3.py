"""The contract on S3: moto's server and Ceph's gateway, and each of the clients by itself."""

from __future__ import annotations

import itertools
import socket

import pytest

from tieredstore.backends.s3 import S3Backend, access, obstore
from tieredstore.backends.s3.botocore import Botocore
from tieredstore.testing import BackendContract

_numbers = itertools.count()


class S3Contract(BackendContract):
    """What is the same for every server and client."""

    keeps_mode = False
    keeps_mtime = False

    @pytest.fixture
    def server(self, moto):
        return moto

    @pytest.fixture
    def backend(self, server, monkeypatch):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.options["key"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.options["secret"])
        bucket = server.make_bucket(f"s3-contract-{next(_numbers)}")
        self.endpoint = server.url
        return self.made(f"{bucket}/some/prefix")

    def made(self, url):
        return S3Backend(url, self.endpoint)

    def again(self, backend):
        return self.made(backend.place)

    @pytest.fixture
    def unreachable(self, monkeypatch):
        monkeypatch.setattr(access, "TRIES", 2)  # each waits longer than the one before
        monkeypatch.setattr(obstore, "TRIES", 2)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            self.endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        return self.made("s3://bucket/prefix")

    def put(self, backend, path, data):
        backend.objects.put(path, data)


class TestDirect(S3Contract):
    pass


class TestCeph(S3Contract):
    @pytest.fixture
    def server(self, ceph):
        return ceph


class ObstoreAlone(S3Backend):
    def client(self):
        return self.other()


class TestObstore(S3Contract):
    def made(self, url):
        return ObstoreAlone(url, self.endpoint)


class BotocoreAlone(S3Backend):
    def client(self):
        return Botocore(self.access, self.prefix)


class TestBotocore(S3Contract):
    def made(self, url):
        return BotocoreAlone(url, self.endpoint)
