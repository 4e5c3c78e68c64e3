"""The contract on places without rename, through fsspec: ``memory://`` and moto's S3."""

from __future__ import annotations

import itertools
import socket

import fsspec
import pytest

from tieredstore.backends.fsspec import FsspecBackend
from tieredstore.testing import BackendContract

_numbers = itertools.count()


class Keyed(BackendContract):
    leasable = False
    keeps_mode = False
    keeps_mtime = False


class TestMemory(Keyed):
    exclusive = False

    @pytest.fixture
    def backend(self):
        root = f"memory://contract-{next(_numbers)}"
        yield FsspecBackend(root)
        memory = fsspec.filesystem("memory")
        if memory.exists(root):
            memory.rm(root, recursive=True)

    def put(self, backend, path, data):
        root = backend.place.removeprefix("memory:/")
        fsspec.filesystem("memory").pipe_file(f"{root}/{path}", data)

    def again(self, backend):
        return FsspecBackend(backend.place)


class TestS3(Keyed):
    refused_names = ("what?versionId=1",)

    @pytest.fixture
    def backend(self, moto):
        bucket = moto.make_bucket(f"contract-{next(_numbers)}")
        return FsspecBackend(f"{bucket}/some/prefix", moto.options)

    @pytest.fixture
    def unreachable(self):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        options = {
            "key": "k",
            "secret": "s",
            "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{port}"},
            "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 2},
        }
        return FsspecBackend("s3://bucket/prefix", options)

    @pytest.fixture(autouse=True)
    def _client(self, moto):
        import boto3

        self.client = boto3.client(
            "s3",
            endpoint_url=moto.url,
            region_name="us-east-1",
            aws_access_key_id=moto.options["key"],
            aws_secret_access_key=moto.options["secret"],
        )
        self.options = moto.options
        yield
        self.client.close()

    def put(self, backend, path, data):
        bucket, _, prefix = backend.place.removeprefix("s3://").partition("/")
        self.client.put_object(Bucket=bucket, Key=f"{prefix}/{path}", Body=data)

    def again(self, backend):
        return FsspecBackend(backend.place, {**self.options, "skip_instance_cache": True})
