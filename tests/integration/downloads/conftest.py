"""A web server with an archive, and the helpers beside it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tieredstore.backends.http import backend as http_backend

_SPEC = importlib.util.spec_from_file_location(
    "tieredstore_tests_giving", Path(__file__).with_name("giving.py")
)
giving = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = giving
_SPEC.loader.exec_module(giving)


@pytest.fixture
def archived(tmp_path, load_server, monkeypatch):
    (tmp_path / "served").mkdir()
    (tmp_path / "served/data.tar.gz").write_bytes(giving.TAR)
    monkeypatch.setenv("NO_PROXY", "*")
    server = load_server("web").Web(tmp_path / "served")
    yield server
    server.stop()


@pytest.fixture
def soon(monkeypatch):
    """What fails for the moment is given up on soon."""
    usual = http_backend.HttpBackend.__init__

    def init(self, url, headers=None, timeout=0.7, retry_for=1.5):
        usual(self, url, headers, timeout, retry_for)

    monkeypatch.setattr(http_backend.HttpBackend, "__init__", init)
