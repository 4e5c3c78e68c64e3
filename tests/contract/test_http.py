"""The contract on a web server: nginx over a folder that others write to."""

from __future__ import annotations

import importlib.util
import itertools
import os
import socket
import sys
from pathlib import Path

import pytest

from tieredstore.backends.http import HttpBackend
from tieredstore.backends.local import LocalBackend
from tieredstore.testing import BackendContract
from tieredstore.testing.samples import Sample, publish, read_artifact

_NGINX = Path(__file__).parents[1] / "servers" / "nginx.py"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("tieredstore_tests_nginx", _NGINX)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if module.missing():
        pytest.skip(module.missing())
    folder = tmp_path_factory.mktemp("nginx")
    server = module.make(folder / "server", folder / "root")
    server.start()
    yield server
    server.stop()


class TestHttp(BackendContract):
    publishable = False
    leasable = False
    listable = False

    @pytest.fixture(autouse=True)
    def _server(self, nginx):
        self.nginx = nginx

    @pytest.fixture
    def backend(self, nginx):
        return HttpBackend(f"{nginx.url}/{next(_numbers)}/a%20folder/", retry_for=5)

    @pytest.fixture
    def unreachable(self):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        return HttpBackend(f"http://127.0.0.1:{port}/folder", retry_for=0.3)

    def folder(self, backend):
        below = backend.place.removeprefix(f"{self.nginx.url}/").replace("%20", " ")
        return self.nginx.root / below

    def put(self, backend, path, data):
        target = self.folder(backend) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.parent / ".beside"  # as publishing does: never rewritten under a reader
        beside.write_bytes(data)
        os.replace(beside, target)

    def again(self, backend):
        return HttpBackend(backend.place)

    @pytest.mark.parametrize("name", ["name", "group/name"])
    def test_reads_what_a_local_tier_published(self, backend, name):
        files = {"a b": b"1", "sub/large": bytes(range(256)) * 5000, "empty": b""}
        sample = publish(LocalBackend(str(self.folder(backend))), name, Sample.of(files))
        found = backend.read_head(name)
        assert found.head.generation == sample.generation
        assert not found.partial
        assert read_artifact(backend, name) == files
