"""The contract on the Hub: dataset repositories of a server in this process."""

from __future__ import annotations

import importlib.util
import itertools
import socket
import sys
from pathlib import Path

import pytest

from tieredstore.backends.hf import HubBackend
from tieredstore.testing import BackendContract

constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra 'hf'")

_HUB = Path(__file__).parents[1] / "servers" / "hub.py"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server():
    spec = importlib.util.spec_from_file_location("tieredstore_tests_hub", _HUB)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    hub = module.Hub()
    hub.start()
    yield hub
    hub.stop()


class TestHub(BackendContract):
    leasable = False
    keeps_mode = False
    keeps_mtime = False
    resumes = False

    @pytest.fixture(autouse=True)
    def _endpoint(self, server, monkeypatch):
        self.hub = server
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", server.token)

    @pytest.fixture
    def backend(self):
        name = f"me/contract-{next(_numbers)}"
        self.hub.repo(name)
        return HubBackend(f"hf://datasets/{name}/some/folder", retry_for=10)

    @pytest.fixture
    def unreachable(self, monkeypatch):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            monkeypatch.setattr(
                constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}"
            )
        return HubBackend("hf://datasets/me/away", retry_for=0.3)

    def put(self, backend, path, data):
        owner, name, folder = backend.place.removeprefix("hf://datasets/").split("/", 2)
        self.hub.put(f"{owner}/{name}", f"{folder}/{path}", data)

    def again(self, backend):
        return HubBackend(backend.place)
